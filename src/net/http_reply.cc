#include "net/http_reply.h"

#include <algorithm>
#include <charconv>

namespace hadal {
namespace {

constexpr size_t kMaxHeadBytes = 64 << 10;
constexpr size_t kMaxLineBytes = 8 << 10;  // of a chunk's size with its extensions, or a trailer
constexpr std::string_view kLineEnd = "\r\n";

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return out;
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  return begin == text.npos ? "" : text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

// The whole of `text` as an unsigned number.
std::optional<uint64_t> number(std::string_view text, int base) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string_view HttpReply::header(std::string_view name) const {
  const auto found = std::find_if(headers.begin(), headers.end(), [&](const auto& one) { return one.first == name; });
  return found == headers.end() ? std::string_view() : found->second;
}

Status HttpReplyParser::push(std::string_view bytes) {
  pending_.append(bytes);
  Status status;
  while (status && state_ != State::kDone && step(status)) {
  }
  pending_.erase(0, used_);
  used_ = 0;
  return status;
}

Status HttpReplyParser::end() {
  if (state_ == State::kBodyUntilClose) state_ = State::kDone;
  if (state_ == State::kDone) return {};
  return make_error(ErrorCode::kCorrupt, "the answer ends in its {}", state_ == State::kHead ? "head" : "body");
}

bool HttpReplyParser::step(Status& status) {
  switch (state_) {
    case State::kHead: {
      const size_t end = rest().find("\r\n\r\n");
      if (std::min(end, rest().size()) > kMaxHeadBytes) {
        status = make_error(ErrorCode::kResourceExhausted, "a head of more than {} bytes", kMaxHeadBytes);
        return false;
      }
      if (end == std::string_view::npos) return false;
      status = parse_head(rest().substr(0, end));
      consume(end + 4);
      return true;
    }
    case State::kSizedBody:
    case State::kChunkData:
      return move_body();
    case State::kBodyUntilClose:
      body_left_ = rest().size();
      if (body_left_ > max_body_bytes_ - body_bytes_) {
        status = make_error(ErrorCode::kResourceExhausted, "an answer of more than {} bytes", max_body_bytes_);
      } else {
        move_body();
      }
      return false;
    case State::kChunkSize:
    case State::kChunkEnd:
    case State::kTrailers: {
      if (std::min(rest().find(kLineEnd), rest().size()) > kMaxLineBytes) {
        status = make_error(ErrorCode::kCorrupt, "a chunk without a size");
        return false;
      }
      const auto line = next_line();
      if (!line) return false;
      if (state_ == State::kChunkSize) {
        status = parse_chunk_size(*line);
      } else if (state_ == State::kChunkEnd) {
        if (!line->empty()) status = make_error(ErrorCode::kCorrupt, "a chunk is longer than its size says");
        state_ = State::kChunkSize;
      } else if (line->empty()) {
        state_ = State::kDone;
      }
      return true;
    }
    case State::kDone:
      return false;
  }
  return false;
}

// Moves what there is of the body or chunk.
bool HttpReplyParser::move_body() {
  const size_t count = static_cast<size_t>(std::min<uint64_t>(body_left_, rest().size()));
  reply_.body.append(rest().substr(0, count));
  consume(count);
  body_bytes_ += count;
  body_left_ -= count;
  if (body_left_ > 0 || state_ == State::kBodyUntilClose) return false;
  state_ = state_ == State::kSizedBody ? State::kDone : State::kChunkEnd;
  return true;
}

std::optional<std::string_view> HttpReplyParser::next_line() {
  const size_t end = rest().find(kLineEnd);
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = rest().substr(0, end);
  consume(end + kLineEnd.size());
  return line;
}

Status HttpReplyParser::parse_head(std::string_view head) {
  const std::string_view status_line = head.substr(0, head.find(kLineEnd));
  const bool is_http = status_line.size() >= 12 && status_line.starts_with("HTTP/1.") && status_line[8] == ' ';
  const auto status = is_http ? number(status_line.substr(9, 3), 10) : std::nullopt;
  if (!status || *status < 100) return make_error(ErrorCode::kCorrupt, "not an HTTP answer");
  reply_ = {};
  reply_.status = static_cast<int>(*status);
  reply_.reason = std::string(trimmed(status_line.substr(12)));
  content_length_.reset();
  chunked_ = false;
  for (size_t at = status_line.size(); at < head.size();) {
    const std::string_view rest = head.substr(at + kLineEnd.size());
    const std::string_view line = rest.substr(0, rest.find(kLineEnd));
    at += kLineEnd.size() + line.size();
    const size_t colon = line.find(':');
    if (colon == line.npos) return make_error(ErrorCode::kCorrupt, "a header line without a colon");
    HADAL_RETURN_IF_ERROR(parse_header(lower(line.substr(0, colon)), trimmed(line.substr(colon + 1))));
  }
  return choose_body();
}

Status HttpReplyParser::parse_header(std::string_view name, std::string_view value) {
  if (name == "content-length") {
    const auto length = number(value, 10);
    if (!length || (content_length_ && *content_length_ != *length)) {
      return make_error(ErrorCode::kCorrupt, "Content-Length: {}: not one number", value);
    }
    content_length_ = length;
  } else if (name == "transfer-encoding") {
    if (lower(value) != "chunked") {
      return make_error(ErrorCode::kUnsupported, "Transfer-Encoding: {}: this client reads chunked only", value);
    }
    chunked_ = true;
  }
  reply_.headers.emplace_back(name, value);
  return {};
}

Status HttpReplyParser::choose_body() {
  if (reply_.status < 200) return {};  // an interim answer: the real head follows
  if (reply_.status == 204 || reply_.status == 304) {
    state_ = State::kDone;
  } else if (chunked_) {
    state_ = State::kChunkSize;
  } else if (content_length_) {
    if (*content_length_ > max_body_bytes_) {
      return make_error(ErrorCode::kResourceExhausted, "an answer of {} bytes, at most {} are read", *content_length_,
                        max_body_bytes_);
    }
    body_left_ = *content_length_;
    state_ = body_left_ == 0 ? State::kDone : State::kSizedBody;
  } else {
    state_ = State::kBodyUntilClose;
  }
  return {};
}

Status HttpReplyParser::parse_chunk_size(std::string_view line) {
  const auto size = number(trimmed(line.substr(0, line.find(';'))), 16);
  if (!size) return make_error(ErrorCode::kCorrupt, "a chunk without a size");
  if (*size > max_body_bytes_ - body_bytes_) {
    return make_error(ErrorCode::kResourceExhausted, "an answer of more than {} bytes", max_body_bytes_);
  }
  body_left_ = *size;
  state_ = body_left_ == 0 ? State::kTrailers : State::kChunkData;
  return {};
}

}  // namespace hadal
