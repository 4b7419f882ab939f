// Clients of the HTTP server that are slow, leave, send ahead, do not read, or are too many.
#include "server/http_test_support.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;

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

}  // namespace
}  // namespace hadal
