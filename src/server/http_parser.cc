#include "server/http_parser.h"

#include <utility>  // Asio 1.74 uses std::exchange without it

#include <boost/beast/core/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/optional.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace hadal {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

// Appends as bytes arrive: Beast's string_body reserves what Content-Length claims.
struct GrowingBody {
  using value_type = std::string;
  class reader {
   public:
    template <bool kIsRequest, class Fields>
    reader(http::header<kIsRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<std::uint64_t>&, error_code& error) { error = {}; }
    template <class Buffers>
    std::size_t put(const Buffers& buffers, error_code& error) {
      error = {};
      std::size_t total = 0;
      for (auto it = asio::buffer_sequence_begin(buffers); it != asio::buffer_sequence_end(buffers); ++it) {
        const asio::const_buffer part(*it);
        body_.append(static_cast<const char*>(part.data()), part.size());
        total += part.size();
      }
      return total;
    }
    void finish(error_code& error) { error = {}; }

   private:
    value_type& body_;
  };
};

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool percent_decode(std::string_view text, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      *out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = hex_digit(text[i + 1]);
    const int low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0) return false;
    const int byte = high * 16 + low;
    if (byte < 0x20 || byte == 0x7F) return false;
    *out += static_cast<char>(byte);
    i += 2;
  }
  return true;
}

// What still has to come of any unfinished chunked body: "0\r\n\r\n". Beast asserts that it is not asked to go on after
// a last chunk's size line with less.
constexpr size_t kLeastChunkedBytes = 5;

// Whether the first line ends with a version that exists, but not here; Beast takes any rubbish for a bad version.
bool names_another_version(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, bytes.find_first_of("\r\n"));
  const std::string_view version = line.substr(line.rfind(' ') + 1);
  static constexpr std::string_view kName = "HTTP/";
  static constexpr std::string_view kOurs = "HTTP/1.";
  if (version.starts_with(kOurs)) return version.size() > kOurs.size() && version[kOurs.size()] > '1';
  return version.size() > kName.size() && version.starts_with(kName) && version[kName.size()] != '1';
}

std::string to_string(boost::beast::string_view text) { return std::string(text.data(), text.size()); }

}  // namespace

bool split_target(std::string_view target, std::string* path, std::string* query) {
  query->clear();
  if (target == "*") {
    path->assign(1, '*');
    return true;
  }
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.size() >= scheme.size() && equals_ignoring_case(target.substr(0, scheme.size()), scheme)) {
      target.remove_prefix(scheme.size());
      const size_t slash = target.find_first_of("/?");
      target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
      break;
    }
  }
  if (target.empty() || target[0] != '/') return false;
  const size_t question = target.find('?');
  if (question != std::string_view::npos) *query = std::string(target.substr(question + 1));
  return percent_decode(target.substr(0, question), path);
}

struct HttpRequestParser::Impl {
  http::request_parser<GrowingBody> parser;
  std::string path;
  std::string query;
};

HttpRequestParser::HttpRequestParser(const HttpLimits& limits) : limits_(limits), impl_(std::make_unique<Impl>()) {
  impl_->parser.header_limit(static_cast<std::uint32_t>(limits.max_header_bytes));
  impl_->parser.body_limit(limits.max_body_bytes);
  impl_->parser.eager(false);
}
HttpRequestParser::~HttpRequestParser() = default;

void HttpRequestParser::fail(int status, std::string message) {
  state_ = State::kError;
  error_status_ = status;
  error_message_ = std::move(message);
}

// Line breaks that are not CRLF, and lines that continue the one before: some parsers take them, others do not. Looks
// at each byte of the header once, as soon as it comes.
bool HttpRequestParser::has_ambiguous_lines(std::string_view bytes) {
  for (; num_checked_ < bytes.size() && !header_ended_; ++num_checked_) {
    const char byte = bytes[num_checked_];
    const char last = std::exchange(last_header_byte_, byte);
    if (byte == '\0' || (last == '\r') != (byte == '\n')) return true;
    if (last == '\n' && (byte == ' ' || byte == '\t')) return true;
    header_ended_ = byte == '\n' && line_bytes_ == 1;
    line_bytes_ = byte == '\n' ? 0 : line_bytes_ + 1;
  }
  return false;
}

size_t HttpRequestParser::feed(std::string_view bytes) {
  if (bytes.empty() || state_ == State::kDone || state_ == State::kError) return 0;
  if (state_ == State::kBody && impl_->parser.chunked() && bytes.size() < kLeastChunkedBytes) return 0;
  if (state_ == State::kHeader && has_ambiguous_lines(bytes)) {
    fail(400, "Malformed HTTP request: header lines end with CR LF and do not continue");
    return 0;
  }
  error_code error;
  const size_t consumed = impl_->parser.put(asio::const_buffer(bytes.data(), bytes.size()), error);
  num_checked_ -= std::min(num_checked_, consumed);
  if (error == http::error::header_limit) {
    fail(431, fmt::format("Request header is larger than {} bytes", limits_.max_header_bytes));
  } else if (error == http::error::body_limit) {
    fail(413, fmt::format("Request body is larger than {} bytes", limits_.max_body_bytes));
  } else if (error == http::error::bad_version && names_another_version(bytes)) {
    fail(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here");
  } else if (error && error != http::error::need_more) {
    fail(400, fmt::format("Malformed HTTP request: {}", error.message()));
  } else if (state_ == State::kHeader && impl_->parser.is_header_done()) {
    check_header();
  } else if (impl_->parser.is_done()) {
    state_ = State::kDone;
  } else if (consumed == 0 && bytes.size() > limits_.max_header_bytes) {
    // Header lines, chunk headers and trailers must arrive whole: bound how long we wait for their end.
    fail(state_ == State::kHeader ? 431 : 400, fmt::format("Line longer than {} bytes", limits_.max_header_bytes));
  }
  return consumed;
}

void HttpRequestParser::check_header() {
  const auto& message = impl_->parser.get();
  size_t num_headers = 0;
  for (auto it = message.begin(); it != message.end(); ++it) ++num_headers;
  if (num_headers > limits_.max_headers) {
    return fail(431, fmt::format("{} header fields, at most {} accepted", num_headers, limits_.max_headers));
  }
  if (message.version() != 10 && message.version() != 11) {
    return fail(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here");
  }
  const std::string target = to_string(message.target());
  if (!split_target(target, &impl_->path, &impl_->query)) return fail(400, "Malformed request target");
  if (message.count(http::field::host) != 1 && message.version() == 11) {
    return fail(400, "An HTTP/1.1 request needs exactly one Host header");
  }
  const auto expect = message[http::field::expect];
  if (!expect.empty() && !equals_ignoring_case(to_string(expect), "100-continue")) {
    return fail(417, "The only expectation supported is 100-continue");
  }
  check_framing();
}

void HttpRequestParser::check_framing() {
  auto& parser = impl_->parser;
  const auto& message = parser.get();
  const bool has_coding = message.count(http::field::transfer_encoding) > 0;
  if (has_coding && message.count(http::field::content_length) > 0) {
    return fail(400, "Content-Length and Transfer-Encoding exclude each other");
  }
  // "5, 5" and repeated fields have a meaning, but not the same one to everybody.
  const std::string length_text = to_string(message[http::field::content_length]);
  if (message.count(http::field::content_length) > 1 ||
      length_text.find_first_not_of("0123456789") != std::string::npos) {
    return fail(400, "Content-Length must be one number, given once");
  }
  if (has_coding) {
    const bool plain = message.count(http::field::transfer_encoding) == 1 &&
                       equals_ignoring_case(to_string(message[http::field::transfer_encoding]), "chunked");
    if (!plain || message.version() != 11) return fail(501, "The only transfer coding supported is chunked");
  }
  const auto length = parser.content_length();
  if (length && *length > limits_.max_body_bytes) {
    return fail(413, fmt::format("Request body of {} bytes, at most {} accepted", *length, limits_.max_body_bytes));
  }
  parser.eager(true);
  state_ = parser.is_done() || (!parser.chunked() && length.value_or(0) == 0) ? State::kDone : State::kBody;
}

bool HttpRequestParser::expects_continue() const {
  return http_1_1() && !impl_->parser.get()[http::field::expect].empty();
}
bool HttpRequestParser::http_1_1() const { return impl_->parser.get().version() == 11; }
bool HttpRequestParser::keep_alive() const { return impl_->parser.get().keep_alive(); }
size_t HttpRequestParser::num_body_bytes() const { return impl_->parser.get().body().size(); }

HttpRequest HttpRequestParser::take() {
  auto message = impl_->parser.release();
  HttpRequest request;
  request.method = to_string(message.method_string());
  request.path = std::move(impl_->path);
  request.query = std::move(impl_->query);
  for (const auto& field : message) {
    request.headers.emplace_back(to_string(field.name_string()), to_string(field.value()));
  }
  request.body = std::move(message.body());
  return request;
}

}  // namespace hadal
