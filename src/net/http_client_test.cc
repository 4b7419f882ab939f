#include "net/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>

#include "net/testing/scripted_server.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr milliseconds kShort{50};
const std::string kChunked = "HTTP/1.1 200 OK\r\nX-Y: 1\r\nTransfer-Encoding: chunked\r\n\r\n";

std::string ok(const std::string& body) {
  return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
}
std::string chunk(const std::string& bytes) { return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes); }

TEST(HttpUrl, PartsAndRefusals) {
  const auto url = parse_url("http://[::1]:8000/v1?x=1");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host + "|" + url->port + "|" + url->target, "::1|8000|/v1?x=1");
  EXPECT_EQ(url->authority(), "[::1]:8000");
  EXPECT_EQ(parse_url("http://example.org")->authority(), "example.org:80");
  EXPECT_EQ(parse_url("http://example.org?a=[1]")->target, "/?a=[1]");
  const auto tls = parse_url("https://api.example.org/v1");
  ASSERT_TRUE(tls);
  EXPECT_EQ(tls->scheme, HttpUrl::Scheme::kHttps);
  EXPECT_EQ(tls->authority(), "api.example.org:443");
  const auto socket = parse_url("unix:/run/h.sock:/v1/models?a=:/b");
  ASSERT_TRUE(socket);
  EXPECT_EQ(socket->scheme, HttpUrl::Scheme::kUnix);
  EXPECT_EQ(socket->host + "|" + socket->target + "|" + socket->authority(), "/run/h.sock|/v1/models?a=:/b|localhost");
  EXPECT_EQ(parse_url("unix:/run/h.sock")->target, "/");
  for (const std::string bad :
       {"", "http://", "localhost:8000", "ftp://x", "http://a b", "http://a\r\nX: y", "http://h:", "http://h:0",
        "http://h:65536", "http://h:8o", "http://user@h", "http://[::1", "unix:h.sock", "unix:", "https://"}) {
    EXPECT_EQ(parse_url(bad).error().code, ErrorCode::kInvalidArgument) << bad;
  }
  EXPECT_THAT(parse_url("unix:/" + std::string(200, 'x')).error().message, HasSubstr("at most 107 bytes"));
}

TEST(HttpUrl, RoutesBelowABase) {
  EXPECT_EQ(url_below("http://h:1", "/v1/models"), "http://h:1/v1/models");
  EXPECT_EQ(url_below("http://h:1/x//", "/v1/models"), "http://h:1/x/v1/models");
  EXPECT_EQ(url_below("unix:/run/h.sock", "/v1/models"), "unix:/run/h.sock:/v1/models");
  EXPECT_EQ(url_below("unix:/run/h.sock:/x/", "/v1/models"), "unix:/run/h.sock:/x/v1/models");
}

TEST(HttpClient, SendsKeyHeadersAndBodyAndReadsTheAnswer) {
  ScriptedServer server({ok("fine"), ok("")});
  const std::string body(1 << 20, 'x');
  const auto reply = http_call(
      {.method = "POST", .url = server.url + "/v1/x", .body = body, .api_key = "secret", .headers = {{"X-A", "b"}}});
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->body, "fine");
  EXPECT_EQ(reply->header("content-length"), "4");
  const std::string& request = server.requests.at(0);
  EXPECT_THAT(request, StartsWith("POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:"));
  EXPECT_THAT(request, HasSubstr("Authorization: Bearer secret\r\n"));
  EXPECT_THAT(request, HasSubstr("Content-Type: application/json\r\n"));
  EXPECT_THAT(request, HasSubstr("X-A: b\r\n"));
  EXPECT_THAT(request, ::testing::EndsWith("\r\n\r\n" + body));
  ASSERT_TRUE(http_call({.url = server.url, .api_key = "a", .headers = {{"authorization", "Basic b"}}}));
  EXPECT_THAT(server.requests.at(1), HasSubstr("authorization: Basic b\r\n"));
  EXPECT_THAT(server.requests.at(1), ::testing::Not(HasSubstr("Bearer")));
}

TEST(HttpClient, RequestsThatCannotBeSentAreRefused) {
  const std::string url = "http://127.0.0.1:1/";
  const std::pair<HttpCall, const char*> cases[] = {
      {{.url = url, .api_key = "a\r\nb"}, "line break"},
      {{.url = url, .headers = {{"X", "a\nb"}}}, "line break"},
      {{.url = url, .headers = {{"X", std::string("a\0b", 3)}}}, "line break"},
      {{.url = url, .headers = {{"X Y", "a"}}}, "no header name"},
      {{.url = url, .headers = {{"", "a"}}}, "no header name"},
      {{.url = url, .headers = {{"content-length", "3"}}}, "this client's own"},
      {{.method = "GET /x HTTP/1.1\r\n", .url = url}, "no HTTP method"},
      {{.url = "ftp://x"}, "must be http://"},
  };
  for (const auto& [call, message] : cases) {
    const auto reply = http_call(call);
    ASSERT_FALSE(reply) << message;
    EXPECT_EQ(reply.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(reply.error().message, HasSubstr(message));
  }
}

TEST(HttpClient, SilenceAbsenceAndBrokenAnswersAreErrors) {
  ScriptedServer silent({}, true);
  const auto late = http_call({.url = silent.url}, {.timeout = kShort});
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(late.error().message, silent.url + ": no answer in 50 ms");
  const auto idle = http_call({.url = silent.url}, {.idle_timeout = kShort});
  EXPECT_THAT(idle.error().message, HasSubstr("nothing came in 50 ms"));
  EXPECT_THAT(http_get("http://127.0.0.1:1/").error().message, HasSubstr("nobody listens there"));
  EXPECT_THAT(http_get("unix:/nowhere/h.sock").error().message, HasSubstr("nobody listens there"));
  EXPECT_THAT(http_get("http://name.invalid/").error().message, HasSubstr("no host is called name.invalid"));
  ScriptedServer cut({"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "HTTP/1.1 404 Gone\r\n\r\n"});
  EXPECT_THAT(http_get(cut.url).error().message, HasSubstr("ends in its body"));
  EXPECT_EQ(http_get(cut.url).error().code, ErrorCode::kNotFound);
  ScriptedServer large({ok("12345")});
  EXPECT_EQ(http_get(large.url, {.max_bytes = 4}).error().code, ErrorCode::kResourceExhausted);
}

TEST(HttpClient, AnEarlyAnswerIsReadThoughTheRequestIsNotTaken) {
  ScriptedServer server([](ScriptedServer&, int fd) {
    char byte;
    if (::recv(fd, &byte, 1, 0) == 1) ScriptedServer::send(fd, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    ScriptedServer::wait_for_close(fd);
  });
  const auto reply = http_call({.method = "POST", .url = server.url, .body = std::string(32 << 20, 'x')});
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 413);
}

TEST(HttpClient, UnixSockets) {
  const std::string path =
      fmt::format("{}/hadal_net_{}.sock", std::filesystem::temp_directory_path().string(), ::getpid());
  ScriptedServer server(
      [&](ScriptedServer& me, int fd) {
        me.read_request(fd);
        ScriptedServer::send(fd, ok("by socket"));
      },
      path);
  const auto reply = http_call({.url = url_below(server.url, "/v1/models")});
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->body, "by socket");
  EXPECT_THAT(server.requests.at(0), StartsWith("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"));
}

// Each piece is sent only after the one before it was read: the stream cannot wait for the whole answer.
TEST(HttpStream, PiecesArriveAsTheyAreSent) {
  std::mutex mutex;
  std::condition_variable changed;
  int num_read = 0;
  ScriptedServer server([&](ScriptedServer&, int fd) {
    ScriptedServer::send(fd, kChunked);
    for (int i = 0; i < 3; ++i) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return num_read == i; });
      ScriptedServer::send(fd, chunk(fmt::format("piece {}", i)));
    }
    ScriptedServer::send(fd, "0\r\n\r\n");
  });
  HttpClient client;
  auto stream = client.open({.url = server.url});
  ASSERT_TRUE(stream) << stream.error().message;
  const auto head = (*stream)->head();
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ(head->header("x-y"), "1");
  HttpTime last{};
  for (int i = 0; i < 3; ++i) {
    const auto piece = (*stream)->next();
    ASSERT_TRUE(piece && *piece);
    EXPECT_EQ((*piece)->bytes, fmt::format("piece {}", i));
    EXPECT_GT((*piece)->when, last);
    last = (*piece)->when;
    const std::lock_guard lock(mutex);
    ++num_read;
    changed.notify_all();
  }
  const auto end = (*stream)->next();
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
}

TEST(HttpStream, CancelWakesTheReaderAndClosesTheConnection) {
  std::mutex mutex;
  std::condition_variable changed;
  int num_closed = 0;
  ScriptedServer server([&](ScriptedServer&, int fd) {
    ScriptedServer::send(fd, kChunked + chunk("a"));
    ScriptedServer::wait_for_close(fd);
    const std::lock_guard lock(mutex);
    ++num_closed;
    changed.notify_all();
  });
  HttpClient client;
  {
    const auto stream = client.open({.url = server.url}, {.timeout = milliseconds(0)});
    ASSERT_TRUE((*stream)->next());
    std::thread other([&] { (*stream)->cancel(); });
    const auto piece = (*stream)->next();
    other.join();
    ASSERT_FALSE(piece);
    EXPECT_EQ(piece.error().code, ErrorCode::kCancelled);
    EXPECT_EQ((*stream)->rest().error().code, ErrorCode::kCancelled);
    const auto dropped = client.open({.url = server.url}, {.timeout = milliseconds(0)});
    ASSERT_TRUE((*dropped)->next());
  }
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(30), [&] { return num_closed == 2; }));
  }
  EXPECT_TRUE(http_call({.url = server.url}, {.timeout = kShort}).error().message.ends_with("no answer in 50 ms"));
}

TEST(HttpStream, OutlivesItsClient) {
  ScriptedServer server([](ScriptedServer&, int fd) { ScriptedServer::wait_for_close(fd); });
  auto client = std::make_unique<HttpClient>();
  const auto stream = client->open({.url = server.url});
  client.reset();
  EXPECT_EQ((*stream)->head().error().code, ErrorCode::kCancelled);
  (*stream)->cancel();
}

TEST(HttpClient, ManyStreamsOnOneThreadAndEveryOneEndsOnce) {
  constexpr int kNumCalls = 200;
  std::mutex mutex;
  std::condition_variable changed;
  int num_heads = 0, num_ended = 0, num_failed = 0;
  bool go = false;
  ScriptedServer server([&](ScriptedServer&, int fd) {
    ScriptedServer::send(fd, kChunked + chunk("a"));
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return go; });
    lock.unlock();
    ScriptedServer::send(fd, chunk("b") + "0\r\n\r\n");
  });
  HttpClient client;
  std::vector<std::string> bodies(kNumCalls);
  std::thread::id io_thread;
  client.post([&] { io_thread = std::this_thread::get_id(); });
  for (int i = 0; i < kNumCalls; ++i) {
    const HttpCallbacks callbacks = {.on_head =
                                         [&](const HttpReply& head, HttpTime) {
                                           EXPECT_EQ(head.status, 200);
                                           EXPECT_EQ(std::this_thread::get_id(), io_thread);
                                           const std::lock_guard lock(mutex);
                                           ++num_heads;
                                           changed.notify_all();
                                         },
                                     .on_body = [&, i](std::string_view bytes, HttpTime) { bodies[i] += bytes; },
                                     .on_end =
                                         [&](Status end, HttpTime) {
                                           const std::lock_guard lock(mutex);
                                           ++num_ended;
                                           num_failed += !end;
                                           changed.notify_all();
                                         }};
    ASSERT_TRUE(client.start({.url = server.url}, {}, callbacks));
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return num_heads == kNumCalls; });  // all of them are open at the same time
  go = true;
  changed.notify_all();
  changed.wait(lock, [&] { return num_ended == kNumCalls; });
  EXPECT_EQ(num_failed, 0);
  EXPECT_EQ(bodies, std::vector<std::string>(kNumCalls, "ab"));
}

TEST(HttpClient, CallbacksMayCancelAndTheEndIsTold) {
  ScriptedServer server([](ScriptedServer&, int fd) {
    ScriptedServer::send(fd, kChunked + chunk("a"));
    ScriptedServer::wait_for_close(fd);
  });
  std::vector<std::string> told;
  std::atomic<uint64_t> id{0};
  std::mutex mutex;
  std::condition_variable changed;
  HttpClient client;
  std::unique_lock lock(mutex);
  const auto started = client.start({.url = server.url}, {},
                                    {.on_head = [&](const HttpReply&, HttpTime) { told.push_back("head"); },
                                     .on_body =
                                         [&](std::string_view bytes, HttpTime) {
                                           told.emplace_back(bytes);
                                           const std::lock_guard wait_for_id(mutex);
                                           client.cancel(id);
                                         },
                                     .on_end =
                                         [&](Status end, HttpTime) {
                                           told.push_back(end.error().message);
                                           const std::lock_guard guard(mutex);
                                           id = 0;
                                           changed.notify_all();
                                         }});
  ASSERT_TRUE(started);
  id = *started;
  changed.wait(lock, [&] { return id == 0; });
  EXPECT_EQ(told, (std::vector<std::string>{"head", "a", server.url + ": cancelled"}));
}

TEST(HttpClient, DelayedTasksRunInOrderOfTheirTimes) {
  HttpClient client;
  std::mutex mutex;
  std::condition_variable changed;
  std::string order;
  const auto add = [&](char letter) {
    const std::lock_guard lock(mutex);
    order += letter;
    changed.notify_all();
  };
  client.post([&] {  // in one task: none of them runs before all are posted
    client.post([&] { add('c'); }, milliseconds(300));
    client.post([&] { add('b'); }, milliseconds(20));
    client.post([&] { add('a'); });
    client.post([&] { add('d'); }, std::chrono::hours(1));
  });
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return order.size() == 3; });
  EXPECT_EQ(order, "abc");
}

}  // namespace
}  // namespace hadal
