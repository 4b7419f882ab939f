// Deadlines, signs of life and the log line of generating requests, through the whole server.
#include "server/request_watch.h"

#include <gtest/gtest.h>

#include "server/server_test_support.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;

TEST(RequestWatch, DeadlineOfAPlainAnswerIs504) {
  ServerOptions options;
  options.request_timeout = std::chrono::hours(1);
  EXPECT_EQ(TestServer("abc", options).post("/v1/completions", R"({"prompt":"a"})").status, 200);
  options.request_timeout = milliseconds(200);
  const TestServer s("abc", options);
  s.engine->hold();
  const HttpReply late = s.post("/v1/completions", R"({"prompt":"a","n":2})");
  expect_error(late, 504, "did not end within 0.2 s");
  EXPECT_EQ(late.json()["error"]["type"], "timeout_error");
  EXPECT_TRUE(s.engine->wait_running(0));
  EXPECT_EQ(s.engine->num_aborted(), 2u);
}

TEST(RequestWatch, DeadlineOfAStreamIsAnErrorEvent) {
  ServerOptions options;
  options.request_timeout = std::chrono::seconds(1);  // long enough for the first step, which waits for its request
  const TestServer s("abcdef", options);
  s.engine->hold();
  std::thread first_step([&] { s.engine->step(); });
  const HttpReply reply = s.post("/v1/completions", R"({"prompt":"a","stream":true})");
  first_step.join();
  EXPECT_EQ(reply.status, 200);
  const auto events = reply.events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(parse_json(events[1]).value()["error"]["code"], 504);
  EXPECT_EQ(events[2], "[DONE]");
}

TEST(RequestWatch, SignsOfLifeComeBeforeTheFirstTokenAndOnlyWhenAskedFor) {
  ServerOptions options;
  options.sse_heartbeat = milliseconds(150);
  const TestServer s("abc", options);
  s.engine->hold();
  TestClient client(s.port());
  client.send(http_request("POST", "/v1/chat/completions",
                           R"({"messages":[{"role":"user","content":"Hi"}],"stream":true})", "X-Request-Id: mine\r\n"));
  EXPECT_TRUE(client.wait_for(": waiting\n\n"));
  s.engine->release();
  const HttpReply reply = client.read_reply();
  EXPECT_EQ(reply.header("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(reply.header("x-request-id"), "mine");
  EXPECT_TRUE(reply.body.starts_with(": waiting\n\n")) << reply.body;
  auto events = reply.events();
  std::erase_if(events, [](const auto& event) { return event == "BAD : waiting"; });
  EXPECT_EQ(joined(events, "/choices/0/delta/content"), "abc");
  EXPECT_EQ(events.back(), "[DONE]");

  s.engine->hold();
  TestClient plain(s.port());  // not a stream: nothing may precede the answer
  plain.send(http_request("POST", "/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(s.engine->wait_running(1));
  TestClient stream(s.port());
  stream.send(http_request("POST", "/v1/completions", R"({"prompt":"a","stream":true})"));
  EXPECT_TRUE(stream.wait_for(": waiting\n\n"));  // so `plain`, sent before, has been silent for as long
  s.engine->release();
  EXPECT_EQ(plain.read_reply().json()["choices"][0]["text"], "abc");
}

TEST(RequestWatch, ErrorsAfterASignOfLifeAreEvents) {
  ServerOptions options;
  options.sse_heartbeat = milliseconds(150);
  const TestServer s("abc", options);
  s.engine->hold();
  TestClient client(s.port());
  client.send(http_request("POST", "/v1/completions", R"({"prompt":"a","stream":true})"));
  ASSERT_TRUE(client.wait_for(": waiting\n\n"));
  s.engine->fail_next_step("rank 1 is lost");
  s.engine->step();
  const HttpReply reply = client.read_reply();
  EXPECT_EQ(reply.status, 200);
  auto events = reply.events();
  std::erase_if(events, [](const auto& event) { return event == "BAD : waiting"; });
  ASSERT_EQ(events.size(), 2u) << reply.body;
  EXPECT_EQ(parse_json(events[0]).value()["error"]["code"], 500);
  EXPECT_EQ(events[1], "[DONE]");
}

TEST(RequestWatch, LogLineShowsTextOnlyWhenAsked) {
  auto serving = std::make_shared<ServingContext>();
  serving->tokenizer = test_tokenizer();
  GenerationParams params;
  params.n = 2;
  params.stop = {"END"};
  AnswerContext context;
  context.serving = serving;
  context.head.id = "cmpl-7";
  context.params = params;
  context.prompts = {{{1, 2, 3}, "se\ncret"}, {{4}, "x"}};
  SamplingParams sampling;
  sampling.seed = 5;
  sampling.max_tokens = 33;
  const std::string line = describe_request(context, {sampling, sampling}, 0);
  EXPECT_TRUE(line.starts_with("Received request cmpl-7: prompt: 4 tokens in 2 prompts, params: SamplingParams(n=2, "));
  EXPECT_NE(line.find(R"(seed=5, stop=["END"], stop_token_ids=[])"), std::string::npos) << line;
  EXPECT_NE(line.find("max_tokens=33"), std::string::npos);
  EXPECT_EQ(line.find("cret"), std::string::npos);
  EXPECT_NE(describe_request(context, {sampling}, 4).find(R"(in 2 prompts, "se\nc"..., params)"), std::string::npos);
  EXPECT_NE(describe_request(context, {sampling}, 99).find(R"("se\ncret", params)"), std::string::npos);
}

}  // namespace
}  // namespace hadal
