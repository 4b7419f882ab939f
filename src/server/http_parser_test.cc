#include "server/http_parser.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

namespace hadal {
namespace {

using State = HttpRequestParser::State;

struct Parsed {
  State state;
  int status = 0;
  HttpRequest request;
  size_t num_consumed = 0;
};

// Feeds `text` as if it arrived in pieces of `step` bytes.
Parsed parse(const std::string& text, size_t step, const HttpLimits& limits = {}) {
  HttpRequestParser parser(limits);
  size_t begin = 0;
  for (size_t end = std::min(step, text.size());; end = std::min(end + step, text.size())) {
    size_t consumed;
    do {
      consumed = parser.feed(std::string_view(text).substr(begin, end - begin));
      begin += consumed;
    } while (consumed > 0 && parser.state() != State::kDone && parser.state() != State::kError);
    if (end == text.size() || parser.state() == State::kDone || parser.state() == State::kError) break;
  }
  Parsed result{parser.state(), parser.error_status(), {}, begin};
  if (parser.state() == State::kDone) result.request = parser.take();
  return result;
}

TEST(HttpParser, SameResultHoweverTheBytesArrive) {
  const std::string text =
      "POST /v1/a%20b?x=1&y=%41 HTTP/1.1\r\nHost: h\r\nX-Thing: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: t\r\n\r\nGET /next";
  for (const size_t step : {size_t{1}, size_t{2}, size_t{7}, size_t{50}, text.size()}) {
    const Parsed parsed = parse(text, step);
    ASSERT_EQ(parsed.state, State::kDone) << step;
    EXPECT_EQ(parsed.request.method, "POST");
    EXPECT_EQ(parsed.request.path, "/v1/a b");
    EXPECT_EQ(parsed.request.query, "x=1&y=%41");
    EXPECT_EQ(parsed.request.header("x-thing"), "1");
    EXPECT_EQ(parsed.request.body, "hello world");
    EXPECT_EQ(text.substr(parsed.num_consumed), "GET /next") << step;
  }
}

// Messages that two parsers could cut differently, and plain rubbish: all must be refused, never guessed at.
TEST(HttpParser, RefusesWhatCouldBeReadTwoWays) {
  const std::string head = "POST / HTTP/1.1\r\nHost: h\r\n";
  const std::vector<std::pair<std::string, int>> cases = {
      {head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {head + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
      {head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {head + "Transfer-Encoding: identity\r\n\r\n", 501},
      {head + "Transfer-Encoding: xchunked\r\n\r\n", 501},
      {head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
      {head + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400},
      {head + "Content-Length: 5, 5\r\n\r\nhello", 400},
      {head + "Content-Length: -5\r\n\r\nhello", 400},
      {head + "Content-Length: +5\r\n\r\nhello", 400},
      {head + "Content-Length: 0x5\r\n\r\nhello", 400},
      {head + "Content-Length: 99999999999999999999\r\n\r\n", 400},
      {head + "Content-Length : 5\r\n\r\nhello", 400},
      {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", 400},
      {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", 400},
      {head + "Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n", 400},
      {head + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", 400},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
      {"GET / HTTP/1.1\r\n\r\n", 400},  // no Host
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505},
      {"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505},
      {"GET / http/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET nothing HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /a%00b HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /\r\n\r\n", 400},
      {"\x16\x03\x01\x02\x01\x01\x01\x01\xfc\x03\x03\r\n\r\n", 400},  // TLS on a plain port
      {head + "Expect: something\r\n\r\n", 417},
      // Lines that end, or go on, in ways of their own.
      {"POST / HTTP/1.1\nHost: h\n\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\nContent-Length: 5\r\n\r\nhello", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nX: 1\nContent-Length: 5\r\n\r\nhello", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nX: a\rContent-Length: 5\r\n\r\nhello", 400},
      {head + "X: 1\r\n folded\r\n\r\n", 400},
      {head + "Content-Length:\r\n 5\r\n\r\nhello", 400},
      {head + "Transfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\n Content-Length: 5\r\nHost: h\r\n\r\nhello", 400},
      {head + std::string("X: a\0b\r\n\r\n", 10), 400},
      {head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
      {head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {head + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501},
      {head + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400},
      {head + "Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", 400},
      {head + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400},
      {head + "Transfer-Encoding: chunked\r\n\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400},
      {"CONNECT host:443 HTTP/1.1\r\nHost: host\r\n\r\n", 400},
      {"GET host:80/ HTTP/1.1\r\nHost: host\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET / a HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"G@T / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
  };
  for (const auto& [text, status] : cases) {
    for (const size_t step : {size_t{1}, text.size()}) {
      const Parsed parsed = parse(text, step);
      EXPECT_EQ(parsed.state, State::kError) << text;
      EXPECT_EQ(parsed.status, status) << text;
    }
  }
}

TEST(HttpParser, Limits) {
  const HttpLimits limits{.max_header_bytes = 1000, .max_headers = 10, .max_body_bytes = 100};
  const std::string head = "POST / HTTP/1.1\r\nHost: h\r\n";
  EXPECT_EQ(parse(head + "X: " + std::string(2000, 'a'), 64, limits).status, 431);
  std::string many = head;
  for (int i = 0; i < 12; ++i) many += fmt::format("X{}: 1\r\n", i);
  EXPECT_EQ(parse(many + "\r\n", 64, limits).status, 431);
  EXPECT_EQ(parse(head + "Content-Length: 101\r\n\r\n", 64, limits).status, 413);
  EXPECT_EQ(parse(head + "Content-Length: 100\r\n\r\n" + std::string(100, 'b'), 64, limits).request.body.size(), 100u);
  EXPECT_EQ(parse(head + "Transfer-Encoding: chunked\r\n\r\n40\r\n" + std::string(64, 'c') + "\r\n40\r\n" +
                      std::string(64, 'c') + "\r\n0\r\n\r\n",
                  64, limits)
                .status,
            413);
  // A chunk extension or trailer without end must not be buffered for ever.
  EXPECT_EQ(parse(head + "Transfer-Encoding: chunked\r\n\r\n5;" + std::string(5000, 'e'), 64, limits).state,
            State::kError);
  EXPECT_EQ(parse(head + "Transfer-Encoding: chunked\r\n\r\n0\r\nT: " + std::string(5000, 'e'), 64, limits).state,
            State::kError);
}

TEST(HttpParser, BodyMemoryFollowsTheBytesNotTheClaim) {
  HttpRequestParser parser({});
  const std::string text = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000000\r\n\r\n";
  EXPECT_EQ(parser.feed(text), text.size());
  EXPECT_EQ(parser.state(), State::kBody);
  parser.feed("abc");
  EXPECT_EQ(parser.num_body_bytes(), 3u);
}

TEST(HttpParser, Targets) {
  std::string path;
  std::string query;
  EXPECT_TRUE(split_target("http://host:80/a?b=c?d", &path, &query));
  EXPECT_EQ(path + "|" + query, "/a|b=c?d");
  EXPECT_TRUE(split_target("https://host", &path, &query));
  EXPECT_EQ(path, "/");
  EXPECT_TRUE(split_target("*", &path, &query));
  for (const char* bad : {"", "a", "?x", "/%", "/%4", "/%0a", "ftp://x/"}) {
    EXPECT_FALSE(split_target(bad, &path, &query)) << bad;
  }
}

}  // namespace
}  // namespace hadal
