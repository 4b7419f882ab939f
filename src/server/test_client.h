// A blocking HTTP client that shows every byte, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

struct sockaddr;

namespace hadal {

struct HttpReply {
  int status = 0;                                   // 0: the connection ended before a status line
  std::multimap<std::string, std::string> headers;  // names in lower case
  std::string body;                                 // chunks joined
  std::string header(const std::string& name) const;
  Json json() const;
  // The data of server-sent events; any line that is neither empty nor "data: ..." is reported as "BAD <line>".
  std::vector<std::string> events() const;
};

class TestClient {
 public:
  explicit TestClient(uint16_t port);
  explicit TestClient(const std::string& unix_socket);
  ~TestClient();
  void send(std::string_view bytes);
  bool try_send(std::string_view bytes);  // false once the peer refuses more
  HttpReply read_reply(bool head = false);
  std::string read_some();  // "" at the end of the connection or after 120 s
  std::string read_all();
  bool wait_for(std::string_view bytes);  // takes nothing; false when the connection ends before they have come
  bool closed_by_peer();                  // true when the connection ends within 120 s without another byte
  void half_close();
  void close();
  void set_receive_buffer(int num_bytes);

 private:
  void open(const sockaddr* address, size_t size);
  bool fill();
  int fd_ = -1;
  std::string buffer_;
};

std::string http_request(std::string_view method, std::string_view path, std::string_view body = "",
                         std::string_view extra_headers = "");
HttpReply http_call(uint16_t port, std::string_view method, std::string_view path, std::string_view body = "",
                    std::string_view extra_headers = "");

}  // namespace hadal
