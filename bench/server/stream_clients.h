// Many streaming requests from a process of its own, so that a server's CPU time is the server's alone.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace hadal {

struct StreamResult {
  int64_t num_events = 0;  // "data: " lines, [DONE] included
  int64_t num_bytes = 0;
  int64_t num_ended = 0;  // streams with [DONE]
  double seconds = 0;     // from the first request to the last end
};

// Forked at construction: before the server has threads. Single-owner.
class StreamClients {
 public:
  StreamClients();
  ~StreamClients();
  StreamClients(const StreamClients&) = delete;
  StreamClients& operator=(const StreamClients&) = delete;

  // Sends `body` to `path` on `num_streams` connections and reads all answers to their end.
  StreamResult run(uint16_t port, int num_streams, const std::string& path, const std::string& body);

 private:
  [[noreturn]] void serve();

  int to_child_ = -1;
  int from_child_ = -1;
  pid_t child_ = -1;
};

}  // namespace hadal
