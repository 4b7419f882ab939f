// The HTTP server over real sockets, with a handler of its own.
#include "server/http.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>

#include "base/file.h"
#include "server/api_error.h"
#include "server/server_test_support.h"
#include "server/tls_test_support.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;

// /big answers with 16 MB, far beyond what the kernel buffers, /hold keeps the exchange, /stream begins a stream and
// keeps the exchange, others answer with the body.
class HttpTest : public ::testing::Test {
 protected:
  static constexpr size_t kBigBytes = size_t{16} << 20;

  void start(HttpLimits limits = {}) { start_with({.host = "127.0.0.1", .port = 0, .limits = limits}); }
  void start_with(HttpServerOptions options) {
    options.handler = [this](std::shared_ptr<HttpExchange> exchange) { handle(std::move(exchange)); };
    options.error_response = [](int status, const std::string& message) {
      return api_error_response({status, message});
    };
    options.on_access = [this](const HttpAccess& access) {
      const std::lock_guard lock(mutex_);
      statuses_.push_back(access.status);
    };
    auto started = HttpServer::start(std::move(options));
    ASSERT_TRUE(started.has_value()) << started.error().message;
    server_ = std::move(*started);
  }
  void TearDown() override {
    if (server_) server_->stop();
  }

  void handle(std::shared_ptr<HttpExchange> exchange) {
    const std::string& path = exchange->request().path;
    if (path == "/throw") throw std::runtime_error("boom");
    if (path == "/big") return exchange->respond({.body = std::string(kBigBytes, 'b'), .content_type = "text/plain"});
    if (path == "/hold" || path == "/stream") {
      exchange->on_disconnect([this] { ++num_disconnects_; });
      if (path == "/stream") exchange->start_stream({.content_type = "text/plain"});
      const std::lock_guard lock(mutex_);
      held_.push_back(std::move(exchange));
      return;
    }
    if (path == "/deadline") {
      exchange->set_deadline(exchange->request().arrival + milliseconds(50), [weak = std::weak_ptr(exchange)] {
        if (const auto alive = weak.lock()) alive->respond({.status = 504, .body = "too late"});
      });
      return;
    }
    if (path == "/silent") {
      exchange->keep_alive({.interval = milliseconds(120),
                            .head = {.content_type = "text/event-stream"},
                            .filler = ": waiting\n\n",
                            .late_answer = [](const HttpResponse& answer) { return "data: " + answer.body + "\n\n"; }});
      if (exchange->request().method == "POST") return exchange->respond({.status = 503, .body = "gone"});
      const std::lock_guard lock(mutex_);
      held_.push_back(std::move(exchange));
      return;
    }
    if (path == "/late") {  // answered from another thread, without listening for disconnects
      std::thread([exchange] {
        std::this_thread::sleep_for(milliseconds(50));
        exchange->respond({.body = "late", .content_type = "text/plain"});
      }).detach();
      return;
    }
    exchange->respond(
        {.body = exchange->request().method + path + "|" + exchange->request().body, .content_type = "text/plain"});
  }
  size_t num_held() {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }
  std::vector<int> statuses() {
    const std::lock_guard lock(mutex_);
    return statuses_;
  }
  uint16_t port() const { return server_->port(); }

  std::mutex mutex_;
  std::vector<std::shared_ptr<HttpExchange>> held_;
  std::vector<int> statuses_;
  std::atomic<int> num_disconnects_{0};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpTest, KeepAlivePipeliningAndClose) {
  start();
  TestClient client(port());
  client.send(http_request("POST", "/echo", "one") + http_request("GET", "/two") + http_request("POST", "/late", "x") +
              http_request("GET", "/last", "", "Connection: close\r\n"));
  EXPECT_EQ(client.read_reply().body, "POST/echo|one");
  EXPECT_EQ(client.read_reply().body, "GET/two|");
  EXPECT_EQ(client.read_reply().body, "late");
  const HttpReply last = client.read_reply();
  EXPECT_EQ(last.body, "GET/last|");
  EXPECT_EQ(last.header("connection"), "close");
  EXPECT_TRUE(client.closed_by_peer());
}

TEST_F(HttpTest, HeadHasLengthButNoBody) {
  start();
  TestClient client(port());
  client.send(http_request("HEAD", "/x") + http_request("GET", "/y"));
  const HttpReply head = client.read_reply(true);
  EXPECT_EQ(head.header("content-length"), std::to_string(std::string("HEAD/x|").size()));
  EXPECT_EQ(client.read_reply().body, "GET/y|");
}

TEST_F(HttpTest, Http10ClosesUnlessAskedNotTo) {
  start();
  TestClient client(port());
  client.send("GET /a HTTP/1.0\r\n\r\n");
  EXPECT_EQ(client.read_reply().body, "GET/a|");
  EXPECT_TRUE(client.closed_by_peer());
  TestClient streaming(port());
  streaming.send("GET /stream HTTP/1.0\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  held_[0]->write("abc");
  held_[0]->finish();
  const std::string all = streaming.read_all();
  EXPECT_EQ(all.substr(all.find("\r\n\r\n") + 4), "abc");  // no chunk framing
}

TEST_F(HttpTest, StreamIsChunkedByteForByte) {
  start();
  TestClient client(port());
  client.send(http_request("GET", "/stream"));
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  held_[0]->write("hello");
  held_[0]->write("");
  held_[0]->write(std::string(20, 'x'));
  held_[0]->finish();
  held_[0]->write("after the end");
  std::string all;
  while (!all.ends_with("0\r\n\r\n")) {
    const std::string more = client.read_some();
    if (more.empty()) break;
    all += more;
  }
  EXPECT_EQ(all.substr(all.find("\r\n\r\n") + 4), "5\r\nhello\r\n14\r\n" + std::string(20, 'x') + "\r\n0\r\n\r\n");
  client.send(http_request("GET", "/again"));
  EXPECT_EQ(client.read_reply().body, "GET/again|");
}

TEST_F(HttpTest, ExpectContinue) {
  start({.max_body_bytes = 100});
  TestClient client(port());
  client.send("POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_reply().status, 100);
  client.send("abc");
  EXPECT_EQ(client.read_reply().body, "POST/e|abc");
  client.send("POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_reply().status, 413);  // refused before the body is sent
}

TEST_F(HttpTest, MalformedAndOversizedGetJsonErrorsAndAClose) {
  start({.max_body_bytes = 1000});
  const std::vector<std::pair<std::string, int>> cases = {
      {"nonsense\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(70000, 'a') + "\r\n\r\n", 431},
      {http_request("POST", "/", std::string(5'000'000, 'b')), 413},  // the client still sends when the answer comes
  };
  for (const auto& [text, status] : cases) {
    TestClient client(port());
    client.try_send(text);
    const HttpReply reply = client.read_reply();
    EXPECT_EQ(reply.status, status) << text.substr(0, 60);
    EXPECT_EQ(reply.json()["error"]["code"], status);
    EXPECT_EQ(reply.header("connection"), "close");
  }
  EXPECT_EQ(http_call(port(), "GET", "/still").body, "GET/still|");
}

TEST_F(HttpTest, HandlerExceptionIs500) {
  start();
  EXPECT_EQ(http_call(port(), "GET", "/throw").status, 500);
}

TEST_F(HttpTest, SlowSendersAreTimedOut) {
  start({.idle_timeout = milliseconds(300)});
  EXPECT_TRUE(TestClient(port()).closed_by_peer());
  start({.header_timeout = milliseconds(300), .body_timeout = milliseconds(300)});
  TestClient in_header(port());
  in_header.send("GET / HTTP/1.1\r\nHos");
  TestClient in_body(port());
  in_body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(in_header.read_reply().status, 408);
  EXPECT_EQ(in_body.read_reply().status, 408);
  // One byte now and then does not help: the limit is for the whole header.
  TestClient dripping(port());
  bool refused = false;
  for (int i = 0; i < 300 && !refused; ++i) {
    refused = !dripping.try_send("G");
    std::this_thread::sleep_for(milliseconds(30));
  }
  EXPECT_TRUE(refused);
}

TEST_F(HttpTest, DisconnectIsNoticedWhileWaitingAndWhileStreaming) {
  start();
  for (const char* path : {"/hold", "/stream"}) {
    for (const bool half : {false, true}) {
      const int before = num_disconnects_;
      const size_t held_before = num_held();
      TestClient client(port());
      client.send(http_request("GET", path));
      ASSERT_TRUE(eventually([&] { return num_held() == held_before + 1; }));
      half ? client.half_close() : client.close();
      EXPECT_TRUE(eventually([&] { return num_disconnects_ == before + 1; })) << path << half;
      EXPECT_TRUE(held_.back()->disconnected());
      held_.back()->respond({.body = "nobody"});  // must be harmless
    }
  }
  EXPECT_EQ(statuses(), (std::vector<int>{499, 499, 200, 200}));
}

TEST_F(HttpTest, HalfClosedClientGetsAnswersThatNeedNoWaiting) {
  start();
  TestClient client(port());
  client.send(http_request("GET", "/a") + http_request("GET", "/late") + http_request("GET", "/b"));
  client.half_close();
  EXPECT_EQ(client.read_reply().body, "GET/a|");
  EXPECT_EQ(client.read_reply().body, "late");
  EXPECT_EQ(client.read_reply().body, "GET/b|");
  EXPECT_TRUE(client.closed_by_peer());
}

TEST_F(HttpTest, DisconnectBehindPipelinedInputIsNoticed) {
  start();
  TestClient client(port());
  client.send(http_request("GET", "/hold") + http_request("POST", "/x", std::string(3'000'000, 'p')));
  client.close();
  EXPECT_TRUE(eventually([&] { return num_disconnects_ == 1; }));
}

TEST_F(HttpTest, SlowReaderIsCutOff) {
  start({.max_unsent_bytes = 1 << 20});
  TestClient client(port());
  client.set_receive_buffer(4096);
  client.send(http_request("GET", "/stream"));
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  for (int i = 0; i < 64; ++i) held_[0]->write(std::string(1 << 20, 'z'));  // far beyond what the kernel buffers
  EXPECT_TRUE(eventually([&] { return num_disconnects_ == 1; }));
}

TEST_F(HttpTest, RequestsSentAheadWaitForTheirReader) {
  start_with({.host = "127.0.0.1", .port = 0, .num_io_threads = 1, .limits = {.max_unsent_bytes = 1 << 20}});
  constexpr size_t kNumRequests = 6;
  TestClient client(port());
  client.set_receive_buffer(1 << 16);
  std::string requests;
  for (size_t i = 0; i < kNumRequests; ++i) requests += http_request("GET", "/big");
  client.send(requests);
  client.half_close();                                    // which throws none of them away
  EXPECT_EQ(http_call(port(), "GET", "/x").status, 200);  // so the IO thread has seen them
  EXPECT_LT(statuses().size(), kNumRequests);
  for (size_t i = 0; i < kNumRequests; ++i) EXPECT_EQ(client.read_reply().body.size(), kBigBytes);
  EXPECT_TRUE(client.closed_by_peer());
}

TEST_F(HttpTest, InputBehindABacklogIsNotKept) {
  start({.max_unsent_bytes = 1 << 20});
  TestClient client(port());
  client.set_receive_buffer(1 << 16);
  client.send(http_request("GET", "/big") + http_request("POST", "/x", std::string(3'000'000, 'p')));
  EXPECT_EQ(client.read_reply().body.size(), kBigBytes);
  EXPECT_TRUE(client.closed_by_peer());
}

TEST_F(HttpTest, TakingAnAnswerIsNotBeingIdle) {
  start({.idle_timeout = milliseconds(200)});
  TestClient client(port());
  client.set_receive_buffer(1 << 16);
  client.send(http_request("GET", "/big"));
  ASSERT_TRUE(client.wait_for("\r\n\r\n"));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(TestClient(port()).closed_by_peer());
  EXPECT_EQ(client.read_reply().body.size(), kBigBytes);
  EXPECT_TRUE(client.closed_by_peer());
}

TEST_F(HttpTest, StuckReaderIsTimedOut) {
  start({.write_timeout = milliseconds(300)});
  TestClient client(port());
  client.set_receive_buffer(4096);
  client.send(http_request("GET", "/stream"));
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  for (int i = 0; i < 16; ++i) held_[0]->write(std::string(1 << 20, 'z'));
  EXPECT_TRUE(eventually([&] { return num_disconnects_ == 1; }));
}

TEST_F(HttpTest, ConnectionLimit) {
  start({.max_connections = 2});
  TestClient first(port());
  TestClient second(port());
  second.send(http_request("GET", "/a"));
  EXPECT_EQ(second.read_reply().status, 200);
  TestClient third(port());
  EXPECT_EQ(third.read_reply().status, 503);
  first.close();
  EXPECT_TRUE(eventually([&] { return http_call(port(), "GET", "/b").status == 200; }));
}

TEST_F(HttpTest, TotalBodyLimit) {
  start({.max_body_bytes = 1 << 20, .max_total_body_bytes = 1'500'000});
  TestClient first(port());
  first.send(http_request("POST", "/hold", std::string(1'000'000, 'a')));
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  EXPECT_EQ(http_call(port(), "POST", "/b", std::string(1'000'000, 'b')).status, 503);
  held_[0]->respond({.body = "x"});
  EXPECT_EQ(first.read_reply().status, 200);
  EXPECT_EQ(http_call(port(), "POST", "/b", std::string(1'000'000, 'b')).status, 200);
}

TEST_F(HttpTest, DrainFinishesWhatRunsAndWaitsForNobodyElse) {
  start();
  TestClient idle(port());
  TestClient busy(port());
  busy.send(http_request("GET", "/hold"));
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  server_->drain();
  EXPECT_TRUE(idle.closed_by_peer());
  EXPECT_FALSE(server_->wait_drained(milliseconds(50)));
  TestClient late(port());  // the handler may tell it to go elsewhere
  late.send(http_request("GET", "/late-comer"));
  const HttpReply told = late.read_reply();
  EXPECT_EQ(told.body, "GET/late-comer|");
  EXPECT_EQ(told.header("connection"), "close");
  EXPECT_TRUE(late.closed_by_peer());
  TestClient later(port());
  later.send(http_request("GET", "/hold"));
  ASSERT_TRUE(eventually([&] { return num_held() == 2; }));
  held_[0]->respond({.body = "done", .content_type = "text/plain"});
  const HttpReply reply = busy.read_reply();
  EXPECT_EQ(reply.body, "done");
  EXPECT_EQ(reply.header("connection"), "close");
  EXPECT_TRUE(server_->wait_drained(milliseconds(5000)));  // though `later` has no answer
}

TEST_F(HttpTest, DeadlineComesUnlessTheAnswerHasEnded) {
  start_with({.host = "127.0.0.1", .port = 0, .num_io_threads = 1, .limits = {}});
  TestClient client(port());
  client.send(http_request("GET", "/deadline"));
  EXPECT_EQ(client.read_reply().status, 504);
  client.send(http_request("GET", "/hold"));
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  std::atomic<bool> called{false};
  held_[0]->post([&, exchange = held_[0]] {  // in one task: no deadline is looked at in between
    exchange->set_deadline(std::chrono::steady_clock::now() + milliseconds(1), [&] { called = true; });
    exchange->respond({.body = "in time"});
  });
  EXPECT_EQ(client.read_reply().body, "in time");
  // Of other connections, one tick after the other: the first one's deadline would have come by then.
  for (int i = 0; i < 2; ++i) EXPECT_EQ(http_call(port(), "GET", "/deadline").status, 504);
  EXPECT_FALSE(called);
  client.send(http_request("GET", "/deadline"));
  EXPECT_EQ(client.read_reply().status, 504);
}

TEST_F(HttpTest, SilentStreamsShowSignsOfLife) {
  start();
  TestClient client(port());
  client.send(http_request("GET", "/silent"));
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  std::string seen;
  while (seen.find(": waiting\n\n\r\nb\r\n: waiting") == std::string::npos) seen += client.read_some();
  EXPECT_NE(seen.find("HTTP/1.1 200 OK"), std::string::npos);
  EXPECT_NE(seen.find("text/event-stream"), std::string::npos);
  held_[0]->start_stream({.content_type = "text/plain"});  // has begun already
  held_[0]->write("data: 1\n\n");
  held_[0]->respond({.status = 503, .body = "gone"});
  while (!seen.ends_with("0\r\n\r\n")) seen += client.read_some();
  EXPECT_NE(seen.find("9\r\ndata: 1\n\n\r\n"), std::string::npos) << seen;
  EXPECT_NE(seen.find("data: gone\n\n"), std::string::npos) << seen;
  EXPECT_EQ(seen.find("text/plain"), std::string::npos);
  client.send(http_request("POST", "/silent"));  // a whole answer before the first sign of life stays one
  EXPECT_EQ(client.read_reply().status, 503);
}

TEST_F(HttpTest, ResponsiveWhileIoThreadsTurn) {
  start();
  EXPECT_TRUE(server_->responsive(std::chrono::seconds(20)));
}

class UnixSocketTest : public HttpTest {
 protected:
  HttpServerOptions options() const { return {.unix_socket = path_, .limits = {}}; }
  void expect_refused(const std::string& path, const std::string& fragment) {
    const auto second = HttpServer::start({.unix_socket = path});
    ASSERT_FALSE(second.has_value());
    EXPECT_NE(second.error().message.find(fragment), std::string::npos) << second.error().message;
  }
  const TempDir dir_;
  const std::string path_ = (dir_.path() / "s").string();
};

TEST_F(UnixSocketTest, ServesAndRemovesItsFile) {
  start_with(options());
  TestClient client(path_);
  client.send(http_request("POST", "/echo", "one"));
  EXPECT_EQ(client.read_reply().body, "POST/echo|one");
  EXPECT_EQ(std::filesystem::status(path_).permissions(), std::filesystem::perms(0660));
  EXPECT_EQ(server_->port(), 0);
  expect_refused(path_, "another server listens there");
  server_->stop();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(UnixSocketTest, StaleFilesAreReplacedOthersAreNot) {
  {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ::close(fd);  // leaves the file behind, as a killed server does
  }
  start_with(options());
  EXPECT_EQ(TestClient(path_).try_send("GET / HTTP/1.1\r\n"), true);
  std::filesystem::remove(path_);
  ASSERT_TRUE(write_file_atomically(path_, "mine"));
  server_->stop();
  EXPECT_TRUE(std::filesystem::exists(path_));  // not its own any more
  expect_refused(path_, "no socket");
  expect_refused((dir_.path() / std::string(200, 'x')).string(), "at most 107");
  expect_refused((dir_.path() / "absent" / "s").string(), "absent/s");
}

// The in-memory client's bytes through a real connection.
class HttpsTest : public HttpTest {
 protected:
  void start_tls(HttpLimits limits = {}) {
    const TestCertificate own = make_test_certificate("localhost");
    ASSERT_TRUE(write_file_atomically(dir_.path() / "both.pem", own.certificate_pem + own.key_pem));
    HttpServerOptions options{.host = "127.0.0.1", .port = 0, .limits = limits};
    options.tls.certificate_file = (dir_.path() / "both.pem").string();
    start_with(std::move(options));
  }
  // What the server sends until `until` comes, or it ends.
  std::string talk(TestClient* socket, TestTlsClient* tls, const std::string& until) {
    while (tls->received().find(until) == std::string::npos && !tls->ended() && !tls->failed()) {
      tls->advance();
      const std::string output = tls->take_output();
      if (!output.empty()) {
        socket->send(output);
        continue;
      }
      const std::string more = socket->read_some();
      if (more.empty()) break;
      tls->feed(more);
      tls->advance();
    }
    return tls->received();
  }
  const TempDir dir_;
};

TEST_F(HttpsTest, RequestsAndStreams) {
  start_tls();
  TestClient socket(port());
  TestTlsClient tls;
  tls.write(http_request("POST", "/echo", "hello"));
  EXPECT_NE(talk(&socket, &tls, "POST/echo|hello").find("200 OK"), std::string::npos);
  tls.write(http_request("GET", "/stream"));
  tls.advance();
  socket.send(tls.take_output());
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  held_[0]->write("piece");
  held_[0]->finish();
  EXPECT_TRUE(talk(&socket, &tls, "0\r\n\r\n").ends_with("5\r\npiece\r\n0\r\n\r\n"));
  tls.write(http_request("GET", "/bye", "", "Connection: close\r\n"));
  talk(&socket, &tls, "never");
  EXPECT_TRUE(tls.ended());  // the end is said, so that nobody can cut an answer short unseen
}

TEST_F(HttpsTest, PlainHttpIsToldSo) {
  start_tls();
  const HttpReply reply = http_call(port(), "GET", "/x");
  EXPECT_EQ(reply.status, 400);
  EXPECT_NE(reply.body.find("https://"), std::string::npos);
  TestClient rubbish(port());
  rubbish.send(std::string("\x16\x03\x01\x00\x04", 5) + "oops");
  EXPECT_EQ(rubbish.read_reply().status, 0);
  start_tls({.header_timeout = milliseconds(500)});
  EXPECT_TRUE(TestClient(port()).closed_by_peer());  // no handshake in time
  EXPECT_EQ(statuses(), std::vector<int>{});
}

TEST_F(HttpTest, ExchangesOutliveTheServer) {
  start();
  TestClient client(port());
  client.send(http_request("GET", "/hold"));
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  server_.reset();
  EXPECT_EQ(num_disconnects_, 1);
  held_[0]->respond({.body = "x"});
  held_[0]->post([] { FAIL(); });
}

TEST_F(HttpTest, BusyPortIsAnError) {
  start();
  HttpServerOptions options{.host = "127.0.0.1", .port = port()};
  const auto second = HttpServer::start(options);
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().message.find(std::to_string(port())), std::string::npos);
}

}  // namespace
}  // namespace hadal
