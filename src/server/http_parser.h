// Bytes of a connection to HttpRequests, within limits. The framing rules are RFC 9112's; whatever two parties could
// read differently (Content-Length beside Transfer-Encoding, codings other than plain "chunked", bare CR or LF, folded
// or repeated framing headers) is refused. Does no I/O. Single-owner.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "server/http_message.h"

namespace hadal {

class HttpRequestParser {  // of one message
 public:
  explicit HttpRequestParser(const HttpLimits& limits);
  ~HttpRequestParser();

  enum class State { kHeader, kBody, kDone, kError };

  // Consumes from the front of `bytes` and returns how many. The rest must be passed again, with more behind it. Stops
  // after the header, so that the caller can act on it, and after the message: what follows belongs to the next one.
  size_t feed(std::string_view bytes);

  State state() const { return state_; }
  bool expects_continue() const;  // from kBody on
  bool http_1_1() const;          // from kBody on
  bool keep_alive() const;        // kDone
  size_t num_body_bytes() const;  // read so far
  HttpRequest take();             // kDone, once; without client and arrival

  // kError: the answer to give before the connection closes.
  int error_status() const { return error_status_; }
  const std::string& error_message() const { return error_message_; }

 private:
  struct Impl;
  void fail(int status, std::string message);
  void check_header();
  void check_framing();
  bool has_ambiguous_lines(std::string_view bytes);

  const HttpLimits limits_;
  State state_ = State::kHeader;
  int error_status_ = 0;
  std::string error_message_;
  // Of has_ambiguous_lines().
  size_t num_checked_ = 0;  // at the front of what feed() will be given next
  char last_header_byte_ = '\0';
  size_t line_bytes_ = 0;
  bool header_ended_ = false;
  std::unique_ptr<Impl> impl_;
};

// Path and query of a request target in origin, absolute or asterisk form; false when it is none of them or holds a
// broken percent escape, or one for a control character.
bool split_target(std::string_view target, std::string* path, std::string* query);

}  // namespace hadal
