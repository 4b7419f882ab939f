// A server for tests of clients: sockets and fixed bytes, no HTTP code of ours.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace hadal {

class ScriptedServer {
 public:
  // Talks to one client; `fd` is closed when it returns. Runs on a thread of its own for every connection.
  using Script = std::function<void(ScriptedServer& server, int fd)>;

  // Answers connections one after another with fixed bytes, then no more. `silent`: takes connections and says nothing.
  explicit ScriptedServer(std::vector<std::string> answers, bool silent = false);
  // Every connection runs the script. `socket_path`: a unix socket instead of a port of the loopback address.
  explicit ScriptedServer(Script script, const std::string& socket_path = "");
  ~ScriptedServer();

  std::string url;                    // "http://127.0.0.1:PORT" or "unix:PATH"
  std::vector<std::string> requests;  // in the order they came whole; read it when their answers were taken

  // For scripts. Empty: the client left before its request was whole.
  std::string read_request(int fd);
  // False: the client is gone.
  static bool send(int fd, std::string_view bytes);
  // Waits until the client closes.
  static void wait_for_close(int fd);

 private:
  void listen_on(const std::string& socket_path);
  void serve(Script script, size_t most);

  int listener_ = -1;
  std::string socket_path_;
  std::thread thread_;
  std::mutex mutex_;
};

}  // namespace hadal
