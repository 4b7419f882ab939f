#include "comm/peer_watch.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace hadal {

PeerWatch::~PeerWatch() {
  for (const int fd : pidfds_) {
    if (fd >= 0) close(fd);
  }
}

void PeerWatch::add(pid_t pid) {
  if (pid == getpid()) {
    pidfds_.push_back(-2);
    return;
  }
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  pidfds_.push_back(fd >= 0 ? fd : errno == ESRCH ? -1 : -2);
}

bool PeerWatch::has_ended(int rank) const {
  const int fd = pidfds_[rank];
  if (fd < 0) return fd == -1;
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&entry, 1, 0) > 0;
}

}  // namespace hadal
