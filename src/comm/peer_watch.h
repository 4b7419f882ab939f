// Tells at once when another process of this machine has ended, also as a zombie that nobody has waited for.
#pragma once

#include <sys/types.h>

#include <vector>

namespace hadal {

// Single-owner.
class PeerWatch {
 public:
  PeerWatch() = default;
  ~PeerWatch();
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;

  // Ranks in ascending order; the own process never counts as ended.
  void add(pid_t pid);
  // Costs a system call.
  bool has_ended(int rank) const;

 private:
  std::vector<int> pidfds_;  // -1: already gone when added; -2: this process, or not watchable
};

}  // namespace hadal
