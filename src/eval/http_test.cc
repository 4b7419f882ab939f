#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "eval/http_answers.h"
#include "eval/http_client.h"
#include "eval/http_reply.h"

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
  EXPECT_EQ(busy->retry_after, "2");
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

TEST(HttpUrl, PartsAndRefusals) {
  const auto url = parse_url("http://[::1]:8000/v1?x=1");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host + "|" + url->port + "|" + url->path, "::1|8000|/v1?x=1");
  EXPECT_EQ(url->authority(), "[::1]:8000");
  EXPECT_EQ(parse_url("http://example.org")->authority(), "example.org:80");
  for (const char* bad : {"", "http://", "localhost:8000", "ftp://x", "http://a b", "http://a\r\nX: y", "http://h:"}) {
    EXPECT_EQ(parse_url(bad).error().code, ErrorCode::kInvalidArgument) << bad;
  }
  const auto tls = parse_url("https://api.example.org/v1");
  EXPECT_EQ(tls.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(tls.error().message, HasSubstr("no TLS"));
}

// Answers connections one after another with fixed bytes and keeps what it was sent.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::vector<std::string> answers, bool silent = false)
      : answers_(std::move(answers)), silent_(silent) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    url = fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port));
    if (!silent_) thread_ = std::thread([this] { serve(); });
  }
  ~ScriptedServer() {
    ::shutdown(listener_, SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
    ::close(listener_);
  }

  std::string url;
  std::vector<std::string> requests;  // read it when all answers were taken

 private:
  void serve() {
    for (const std::string& answer : answers_) {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      std::string request;
      char buffer[4096];
      while (!is_whole(request)) {
        const ssize_t got = ::recv(fd, buffer, sizeof(buffer), 0);
        if (got <= 0) break;
        request.append(buffer, static_cast<size_t>(got));
      }
      requests.push_back(request);
      (void)!::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
      ::close(fd);
    }
  }
  static bool is_whole(const std::string& request) {
    const size_t head = request.find("\r\n\r\n"), length = request.find("Content-Length: ");
    if (head == std::string::npos) return false;
    return length == std::string::npos || request.size() >= head + 4 + std::stoul(request.substr(length + 16));
  }

  const std::vector<std::string> answers_;
  const bool silent_;
  int listener_ = -1;
  std::thread thread_;
};

std::string ok(const std::string& body) {
  return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
}

TEST(HttpClient, SendsKeyAndBodyAndReadsTheAnswer) {
  ScriptedServer server({ok("fine")});
  const std::string body(1 << 20, 'x');
  const auto reply = http_call({.method = "POST", .url = server.url + "/v1/x", .body = body, .api_key = "secret"}, {});
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->body, "fine");
  const std::string& request = server.requests.at(0);
  EXPECT_THAT(request, ::testing::StartsWith("POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:"));
  EXPECT_THAT(request, HasSubstr("Authorization: Bearer secret\r\n"));
  EXPECT_THAT(request, ::testing::EndsWith("\r\n\r\n" + body));
}

TEST(HttpClient, SilenceAndAbsenceAreErrors) {
  ScriptedServer silent({}, true);
  const auto late = http_call({.url = silent.url}, {.timeout = std::chrono::milliseconds(50)});
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(late.error().message, HasSubstr("no answer in 50 ms"));
  EXPECT_THAT(http_get("http://127.0.0.1:1/").error().message, HasSubstr("nobody listens there"));
  EXPECT_THAT(http_call({.url = silent.url, .api_key = "a\r\nb"}, {}).error().message, HasSubstr("line break"));
}

constexpr const char* kModels = R"({"object":"list","data":[{"id":"m1","root":"/m"},{"id":"m2","root":"/m"}]})";

TEST(HttpAnswers, AsksTheCompletionsRouteWithoutBos) {
  ScriptedServer server({ok(kModels), ok(R"({"choices":[{"text":" #### 4","finish_reason":"length"}],
      "usage":{"prompt_tokens":7,"completion_tokens":3}})")});
  auto source = make_http_answers({.base_url = server.url + "/v1/completions"},
                                  {.max_gen_toks = 9, .stop = {"Q:"}, .add_bos_token = false});
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(dump_json((*source)->identity()), R"({"model":"m1","root":"/m"})");
  const auto answer = (*source)->answer({.text = "2+2="});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->text + "|" + answer->finish_reason, " #### 4|length");
  EXPECT_EQ(answer->num_prompt_tokens + answer->num_tokens, 10);
  EXPECT_THAT(server.requests.at(0), HasSubstr("GET /v1/models "));
  EXPECT_THAT(server.requests.at(1), HasSubstr("POST /v1/completions "));
  EXPECT_THAT(server.requests.at(1),
              ::testing::EndsWith(R"({"model":"m1","temperature":0,"max_tokens":9,"stop":["Q:"],)"
                                  R"("prompt":"2+2=","add_special_tokens":false})"));
}

TEST(HttpAnswers, TriesAgainWhenBusyAndPassesTheServersWordsOn) {
  ScriptedServer server({ok(kModels), "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
                         "HTTP/1.1 400 Bad\r\n\r\n{\"error\":{\"message\":\"prompt too long\"}}"});
  auto source = make_http_answers({.base_url = server.url + "/v1/", .model = "m2"}, {});
  ASSERT_TRUE(source) << source.error().message;
  const auto answer = (*source)->answer({.text = "x"});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(answer.error().message, HasSubstr("400 prompt too long"));
}

TEST(HttpAnswers, UnknownModelsAndWrongRoutesAreRefused) {
  ScriptedServer server({ok(kModels), ok("[]")});
  const auto unknown = make_http_answers({.base_url = server.url + "/v1", .model = "m3"}, {});
  EXPECT_THAT(unknown.error().message, HasSubstr("has no model 'm3'"));
  const auto none = make_http_answers({.base_url = server.url + "/v1"}, {});
  EXPECT_THAT(none.error().message, HasSubstr("no list of models"));
  EXPECT_THAT(make_http_answers({.base_url = "http://h/v1/completions", .chat = true}, {}).error().message,
              HasSubstr("--chat"));
  EXPECT_THAT(make_http_answers({.base_url = "http://h/v1/chat/completions"}, {}).error().message, HasSubstr("--chat"));
}

TEST(HttpAnswers, ChatAnswersAreSplit) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"choices":[{"message":{"content":"B","reasoning_content":"A"},"finish_reason":"stop"}]})", "A|B"},
      {R"({"choices":[{"message":{"content":"B","reasoning":"A"},"finish_reason":"stop"}]})", "A|B"},
      {R"({"choices":[{"message":{"content":"<think>A</think>B"}}]})", "A|B"},
      {R"({"choices":[{"message":{"content":"A</think>B"}}]})", "A|B"},
      {R"({"choices":[{"message":{"content":null,"reasoning_content":"A"}}]})", "A|"},
  };
  for (const auto& [body, expected] : cases) {
    const auto answer = parse_completion(body, true);
    ASSERT_TRUE(answer) << body;
    EXPECT_EQ(answer->reasoning + "|" + answer->text, expected);
  }
}

TEST(HttpAnswers, BrokenBodiesAreErrors) {
  for (const char* body : {"", "[]", "{}", R"({"choices":[]})", R"({"choices":[3]})", R"({"choices":[{"text":1}]})",
                           R"({"choices":{"text":"x"}})"}) {
    EXPECT_EQ(parse_completion(body, false).error().code, ErrorCode::kCorrupt) << body;
    EXPECT_EQ(parse_completion(body, true).error().code, ErrorCode::kCorrupt) << body;
  }
}

}  // namespace
}  // namespace hadal
