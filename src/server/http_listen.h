// Where a server listens, and the plain system calls around it. No third-party types.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/status.h"

namespace hadal {

// Bound and listening. Owned by whoever takes `fd`.
struct ListenSocket {
  int fd = -1;
  int family = 0;     // AF_INET, AF_INET6, AF_UNIX
  uint16_t port = 0;  // 0 with AF_UNIX
  // Of a unix socket, to remove at the end.
  std::string path;
  dev_t device = 0;
  ino_t inode = 0;
};

// Errors: kIo naming host and port (in use, no such address).
Expected<ListenSocket> listen_tcp(const std::string& host, uint16_t port);

// Readable and writable by owner and group. A socket file that nobody listens on any more is replaced.
// Errors: kInvalidArgument (path too long), kIo (in use, another kind of file, no permission).
Expected<ListenSocket> listen_unix(const std::string& path);

// Removes the file of a unix socket, unless somebody else has put another one there.
void remove_unix_socket(const ListenSocket& socket);

// "127.0.0.1:34567", "[::1]:34567", "unix"; "unknown" when the peer is gone.
std::string peer_name(int fd);

// Small writes leave at once, and clients whose host is gone are found. Nothing on unix sockets.
void tune_connection(int fd);

// Takes as many open files as the system allows: connections are files.
void raise_open_file_limit();

}  // namespace hadal
