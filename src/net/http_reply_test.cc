#include "net/http_reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hadal {
namespace {

using ::testing::HasSubstr;

constexpr size_t kMaxBody = 64;

// The whole answer in pieces of `step` bytes, then the end of the stream.
Expected<HttpReply> parse(std::string_view bytes, size_t step) {
  HttpReplyParser parser(kMaxBody);
  for (size_t at = 0; at < bytes.size() && !parser.done(); at += step) {
    HADAL_RETURN_IF_ERROR(parser.push(bytes.substr(at, step)));
  }
  HADAL_RETURN_IF_ERROR(parser.end());
  return parser.take();
}

TEST(HttpReply, BodiesAreTheSameHoweverTheBytesAreCut) {
  const std::pair<const char*, const char*> cases[] = {
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"},
      {"HTTP/1.1 200 OK\r\ncontent-length:5\r\nContent-Length: 5\r\n\r\nhellonext", "hello"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", "hello"},
      {"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n", "0123456789"},
      {"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nuntil the end", "until the end"},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"},
      {"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", ""},
      {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
  };
  for (const auto& [bytes, body] : cases) {
    for (const size_t step : {1, 2, 3, 7, 1000}) {
      const auto reply = parse(bytes, step);
      ASSERT_TRUE(reply) << bytes << ": " << reply.error().message;
      EXPECT_EQ(reply->body, body) << step;
    }
  }
  const auto busy = parse("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n", 4);
  EXPECT_EQ(busy->status, 503);
  EXPECT_EQ(busy->reason, "Service Unavailable");
  EXPECT_EQ(busy->header("retry-after"), "2");
  EXPECT_EQ(busy->header("x"), "");
}

TEST(HttpReply, ABodyTakenInPiecesStillCountsForItsLimit) {
  const std::string head = "HTTP/1.1 200 OK\r\nA: 1\r\n\r\n";
  HttpReplyParser parser(kMaxBody);
  ASSERT_TRUE(parser.push(head.substr(0, 9)));
  EXPECT_FALSE(parser.has_head());
  ASSERT_TRUE(parser.push(head.substr(9) + std::string(40, 'a')));
  EXPECT_TRUE(parser.has_head());
  EXPECT_EQ(parser.reply().header("a"), "1");
  EXPECT_EQ(parser.take_body(), std::string(40, 'a'));
  ASSERT_TRUE(parser.push(std::string(24, 'b')));
  EXPECT_EQ(parser.take_body(), std::string(24, 'b'));
  EXPECT_EQ(parser.push("c").error().code, ErrorCode::kResourceExhausted);
}

TEST(HttpReply, DamagedAnswersAreRefused) {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::pair<std::string, const char*> cases[] = {
      {"", "ends in its head"},
      {"HTTP/1.1 200 OK\r\n", "ends in its head"},
      {"FTP 200\r\n\r\n", "not an HTTP answer"},
      {"HTTP/2 200\r\n\r\n", "not an HTTP answer"},
      {"HTTP/1.1\r\n\r\n", "not an HTTP answer"},
      {"HTTP/1.1 2x0 OK\r\n\r\n", "not an HTTP answer"},
      {"HTTP/1.1 099 Low\r\n\r\n", "not an HTTP answer"},
      {"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "without a colon"},
      {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not one number"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n", "not one number"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "not one number"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "not one number"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n", "65 bytes, at most 64"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "ends in its body"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "chunked only"},
      {"HTTP/1.1 200 OK\r\n\r\n" + std::string(kMaxBody + 1, 'x'), "more than 64 bytes"},
      {"HTTP/1.1 200 OK\r\nX: " + std::string(70'000, 'x'), "a head of more than"},
      {chunked + "zz\r\n", "a chunk without a size"},
      {chunked + "\r\n", "a chunk without a size"},
      {chunked + "41\r\n", "more than 64 bytes"},
      {chunked + "FFFFFFFFFFFFFFFF\r\n", "more than 64 bytes"},
      {chunked + "2\r\nabc\r\n", "longer than its size"},
      {chunked + "2\r\nab", "ends in its body"},
      {chunked + std::string(10'000, '1'), "a chunk without a size"},
  };
  for (const auto& [bytes, message] : cases) {
    for (const size_t step : {1, 100'000}) {
      const auto reply = parse(bytes, step);
      ASSERT_FALSE(reply) << bytes.substr(0, 100);
      EXPECT_THAT(reply.error().message, HasSubstr(message)) << bytes.substr(0, 100);
    }
  }
}

}  // namespace
}  // namespace hadal
