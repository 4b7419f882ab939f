#include "bench/serve_load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "net/testing/scripted_server.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

const std::string kStream =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

std::vector<ServePrompt> prompts(size_t count) { return std::vector<ServePrompt>(count, {"words", 4, 2}); }

Json body_of(const HttpCall& call) { return Json::parse(call.body); }

TEST(ServeCall, BodiesAreTheClients) {
  const ServePrompt prompt = {"words", 4, 9};
  const HttpCall plain = serve_call({.url = "u", .model = "m", .api_key = "k"}, prompt);
  EXPECT_EQ(plain.method + plain.url + plain.api_key, "POSTuk");
  EXPECT_EQ(plain.body, R"({"model":"m","prompt":"words","temperature":0.0,"max_tokens":9,"best_of":1,"logprobs":null,)"
                        R"("stream":true,"stream_options":{"include_usage":true}})");
  const HttpCall chat = serve_call({.route = ServeRoute::kChat, .model = "m", .ignore_eos = true}, prompt);
  EXPECT_EQ(chat.body,
            R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"words"}]}],"temperature":0.0,)"
            R"("max_completion_tokens":9,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true})");
  const Json extra =
      body_of(serve_call({.model = "m", .logprobs = 3, .extra = {{"temperature", 0.7}, {"top_k", 5}}}, prompt));
  EXPECT_EQ(extra["temperature"], 0.7);
  EXPECT_EQ(extra["top_k"], 5);
  EXPECT_EQ(extra["logprobs"], 3);
  const Json chat_logprobs = body_of(serve_call({.route = ServeRoute::kChat, .logprobs = 3}, prompt));
  EXPECT_EQ(chat_logprobs["logprobs"], true);
  EXPECT_EQ(chat_logprobs["top_logprobs"], 3);
}

TEST(ServeLoad, EveryRequestIsRecordedAndConcurrencyIsKept) {
  constexpr int kMost = 3;
  std::mutex mutex;
  std::condition_variable changed;
  int running = 0, most = 0, num_seen = 0;
  ScriptedServer server([&](ScriptedServer& me, int fd) {
    me.read_request(fd);
    {
      std::unique_lock lock(mutex);
      most = std::max(most, ++running);
      ++num_seen;
      changed.notify_all();
      changed.wait(lock, [&] { return num_seen >= kMost; });  // the first ones wait for each other
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    {
      const std::lock_guard lock(mutex);
      --running;  // before the answer ends: the client sends the next one only then
    }
    ScriptedServer::send(fd, kStream);
  });
  HttpClient client;
  NumpyRandom random(0);
  std::vector<size_t> told;
  const ServeRun run = run_serve_load(client, {.url = server.url}, prompts(20), {.max_concurrency = kMost}, random,
                                      [&](size_t ended) { told.push_back(ended); });
  EXPECT_EQ(most, kMost);
  ASSERT_EQ(run.records.size(), 20u);
  for (const ServeRecord& record : run.records) {
    EXPECT_TRUE(record.success) << record.error;
    EXPECT_EQ(record.text, "ab");
    EXPECT_EQ(record.num_output_tokens, 2);
    EXPECT_EQ(record.num_prompt_tokens, 4);
    EXPECT_EQ(record.num_asked_tokens, 2);
    EXPECT_GE(record.ttft_s, 0.005);
    EXPECT_LE(record.start_s + record.latency_s, run.duration_s);
  }
  EXPECT_GE(run.duration_s, 7 * 0.005);  // twenty requests, three at a time
  EXPECT_EQ(told.back(), 20u);
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
}

// Starts are due at the sums of NumPy's gaps, never before.
TEST(ServeLoad, GapsAreNumpysGammas) {
  ScriptedServer server([&](ScriptedServer& me, int fd) {
    me.read_request(fd);
    ScriptedServer::send(fd, kStream);
  });
  HttpClient client;
  NumpyRandom random(0), same(0);
  const ServeLoad load = {.request_rate = 200, .burstiness = 0.5};
  const ServeRun run = run_serve_load(client, {.url = server.url}, prompts(30), load, random, {});
  double due_s = 0;
  for (const ServeRecord& record : run.records) {
    EXPECT_GE(record.start_s, due_s);
    due_s += same.gamma(0.5, 1 / (200 * 0.5));
  }
  EXPECT_EQ(random.uniform(), same.uniform());  // as many draws
}

TEST(ServeLoad, AServerThatDiesFailsWhatIsLeft) {
  auto server = std::make_unique<ScriptedServer>(std::vector<std::string>{kStream, kStream.substr(0, 120)});
  HttpClient client;
  NumpyRandom random(0);
  // The third connection is taken by the listening socket, but nobody answers: it closes with the server.
  std::thread killer;
  const ServeRun run =
      run_serve_load(client, {.url = server->url}, prompts(4), {.max_concurrency = 1}, random, [&](size_t ended) {
        if (ended == 2) killer = std::thread([&] { server.reset(); });
      });
  if (killer.joinable()) killer.join();
  EXPECT_TRUE(run.records[0].success);
  EXPECT_FALSE(run.records[2].success);
  EXPECT_FALSE(run.records[3].success);
  EXPECT_THAT(run.records[3].error, HasSubstr("http://127.0.0.1:"));
}

TEST(ServeLoad, TokensOfServersWithoutUsageAreCounted) {
  const auto tokenizer = Tokenizer::load(source_dir() / "models/nano");
  ASSERT_TRUE(tokenizer);
  ServeRun run;
  run.records = {{.success = true, .text = "Tom has 3 eggs"}, {.success = true, .num_output_tokens = 7}, {.text = "x"}};
  count_missing_tokens(run, **tokenizer);
  EXPECT_EQ(run.records[0].num_output_tokens, static_cast<int64_t>((*tokenizer)->encode("Tom has 3 eggs", {})->size()));
  EXPECT_EQ(run.records[1].num_output_tokens, 7);
  EXPECT_EQ(run.records[2].num_output_tokens, 0);
}

}  // namespace
}  // namespace hadal
