// The HTTP server over real sockets, with a handler of its own.
#include "server/http.h"

#include <gtest/gtest.h>

#include <atomic>

#include "server/api_error.h"
#include "server/server_test_support.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;

// /echo answers with the body, /hold keeps the exchange, /stream begins a stream and keeps the exchange.
class HttpTest : public ::testing::Test {
 protected:
  void start(HttpLimits limits = {}) {
    HttpServerOptions options{.host = "127.0.0.1", .port = 0, .limits = limits};
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
    if (path == "/hold" || path == "/stream") {
      exchange->on_disconnect([this] { ++num_disconnects_; });
      if (path == "/stream") exchange->start_stream({.content_type = "text/plain"});
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
  start({.idle_timeout = milliseconds(300), .header_timeout = milliseconds(300), .body_timeout = milliseconds(300)});
  TestClient idle(port());
  TestClient in_header(port());
  in_header.send("GET / HTTP/1.1\r\nHos");
  TestClient in_body(port());
  in_body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(in_header.read_reply().status, 408);
  EXPECT_EQ(in_body.read_reply().status, 408);
  EXPECT_TRUE(idle.closed_by_peer());
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

TEST_F(HttpTest, DrainFinishesWhatRunsAndAcceptsNoMore) {
  start();
  TestClient idle(port());
  TestClient busy(port());
  busy.send(http_request("GET", "/hold"));
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  server_->drain();
  EXPECT_TRUE(idle.closed_by_peer());
  EXPECT_FALSE(server_->wait_drained(milliseconds(50)));
  EXPECT_TRUE(eventually([&] {
    try {
      TestClient late(port());
      return late.closed_by_peer();
    } catch (const std::exception&) {
      return true;
    }
  }));
  held_[0]->respond({.body = "done", .content_type = "text/plain"});
  const HttpReply reply = busy.read_reply();
  EXPECT_EQ(reply.body, "done");
  EXPECT_EQ(reply.header("connection"), "close");
  EXPECT_TRUE(server_->wait_drained(milliseconds(5000)));
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
