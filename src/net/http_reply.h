// Reads the bytes of an HTTP/1.x answer as they come: status, headers, a body by Content-Length, in chunks, or until
// the peer closes. Every length is bounded before it is trusted. No sockets here. Definition: RFC 9112.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace hadal {

struct HttpReply {
  int status = 0;
  std::string reason;                                        // of the status line
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case, in the order they came
  std::string body;

  // The first value of a header; empty when there is none. `name` in lower case.
  std::string_view header(std::string_view name) const;
};

// Single-owner. After an error or once done() it takes nothing more.
class HttpReplyParser {
 public:
  explicit HttpReplyParser(size_t max_body_bytes) : max_body_bytes_(max_body_bytes) {}

  // Errors: kCorrupt (not HTTP/1.x, lengths that contradict each other, a broken chunk), kUnsupported (another transfer
  // coding), kResourceExhausted (head over 64 KiB, body over the limit).
  Status push(std::string_view bytes);
  // The peer closed. Error: kCorrupt when the answer is not whole.
  Status end();

  // The head of the final answer (not of an interim one) was read.
  bool has_head() const { return state_ != State::kHead; }
  bool done() const { return state_ == State::kDone; }
  // What was read so far: the whole answer when done().
  const HttpReply& reply() const { return reply_; }
  HttpReply take() { return std::move(reply_); }
  // The part of the body that was read since the last call; it then counts for the limit alone.
  std::string take_body() { return std::exchange(reply_.body, {}); }

 private:
  enum class State { kHead, kSizedBody, kBodyUntilClose, kChunkSize, kChunkData, kChunkEnd, kTrailers, kDone };

  bool step(Status& status);  // false: needs more bytes
  Status parse_head(std::string_view head);
  Status parse_header(std::string_view name, std::string_view value);
  Status parse_chunk_size(std::string_view line);
  Status choose_body();
  bool move_body();
  std::optional<std::string_view> next_line();
  void consume(size_t count) { used_ += count; }
  std::string_view rest() const { return std::string_view(pending_).substr(used_); }

  const size_t max_body_bytes_;
  State state_ = State::kHead;
  std::string pending_;  // pushed, from used_ on not yet looked at
  size_t used_ = 0;
  HttpReply reply_;
  std::optional<uint64_t> content_length_;
  bool chunked_ = false;
  uint64_t body_left_ = 0;   // of the body or the chunk
  uint64_t body_bytes_ = 0;  // read so far
};

}  // namespace hadal
