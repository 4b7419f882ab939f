// The HTTP server over real sockets, with a handler of its own: framing, streams, deadlines, the end.
#include "server/http_test_support.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;

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

}  // namespace
}  // namespace hadal
