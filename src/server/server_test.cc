// Routes, keys, errors, life cycle and metrics of the server, over loopback sockets with a scripted engine.
#include "server/server.h"

#include <gtest/gtest.h>

#include <cmath>

#include "server/server_test_support.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;

constexpr char kHello[] = R"("messages":[{"role":"user","content":"Hi"}])";

TEST(Server, InfoRoutes) {
  const TestServer s("hi");
  EXPECT_EQ(s.get("/health").status, 200);
  EXPECT_EQ(s.get("/health").body, "");
  EXPECT_EQ(s.get("/ping").status, 200);
  EXPECT_EQ(s.post("/ping", "").status, 200);
  EXPECT_EQ(s.get("/version").body, R"({"version":"1.2.3"})");
  const Json models = s.get("/v1/models").json();
  EXPECT_EQ(models["object"], "list");
  EXPECT_EQ(models["data"][0]["id"], "m");
  EXPECT_EQ(models["data"][0]["root"], "/models/test");
  EXPECT_EQ(models["data"][0]["max_model_len"], 512);
  EXPECT_EQ(models["data"][1]["id"], "second/name");
  EXPECT_EQ(s.get("/v1/models/second/name").json()["id"], "second/name");
  EXPECT_EQ(s.get("/v1/models/second%2Fname").json()["id"], "second/name");
  expect_error(s.get("/v1/models/zebra"), 404, "The model `zebra` does not exist.");
  EXPECT_EQ(s.get("/load").json()["server_load"], 0);
  expect_error(s.get("/hadal/certificate"), 404, "There is no certificate for this model");
  const Json info = s.get("/tokenizer_info").json();
  EXPECT_EQ(info["eos_token"], "<EOS>");
  EXPECT_EQ(info["bos_token"], "<BOS>");
  EXPECT_EQ(s.get("/metrics/").status, 200);
  EXPECT_EQ(s.get("/metrics").header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
}

TEST(Server, UnknownRoutesAndMethods) {
  const TestServer s("hi");
  expect_error(s.get("/nothing"), 404, "/nothing");
  const HttpReply wrong = s.get("/v1/completions");
  expect_error(wrong, 405, "GET");
  EXPECT_EQ(wrong.header("allow"), "POST, OPTIONS");
  expect_error(http_call(s.port(), "BREW", "/health"), 405, "allowed: GET, HEAD, OPTIONS");
  const HttpReply options =
      http_call(s.port(), "OPTIONS", "/v1/models", "", "Origin: http://x\r\nAccess-Control-Request-Headers: a, b\r\n");
  EXPECT_EQ(options.status, 200);
  EXPECT_EQ(options.header("access-control-allow-origin"), "*");
  EXPECT_EQ(options.header("access-control-allow-headers"), "a, b");
  const HttpReply head = http_call(s.port(), "HEAD", "/version");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.header("content-length"), "19");
}

TEST(Server, ApiKeys) {
  ServerOptions options;
  options.api_keys = {"k1", "k2"};
  const TestServer s("hi", options);
  for (const char* open : {"/health", "/ping", "/version", "/metrics"}) EXPECT_EQ(s.get(open).status, 200) << open;
  const HttpReply none = s.get("/v1/models");
  expect_error(none, 401, "Unauthorized");
  EXPECT_EQ(none.json()["error"]["type"], "authentication_error");
  EXPECT_EQ(none.header("www-authenticate"), "Bearer");
  EXPECT_EQ(s.post("/tokenize", R"({"prompt":"a"})").status, 401);
  const auto status = [&](const std::string& value) {
    return http_call(s.port(), "GET", "/v1/models", "", "Authorization: " + value + "\r\n").status;
  };
  EXPECT_EQ(status("Bearer k1"), 200);
  EXPECT_EQ(status("bearer k2"), 200);
  for (const char* bad : {"Bearer k", "Bearer k11", "Bearer ", "Bearer None", "Basic k1", "k1"}) {
    EXPECT_EQ(status(bad), 401) << bad;
  }
  EXPECT_EQ(http_call(s.port(), "OPTIONS", "/v1/models", "", "Origin: http://x\r\n").status, 200);
}

TEST(Server, WithoutKeysAnyAuthorizationPasses) {
  const TestServer s("hi");
  for (const char* value : {"Authorization: Bearer None\r\n", "Authorization: Bearer \r\n"}) {
    EXPECT_EQ(s.post("/v1/completions", R"({"prompt":"a","best_of":1,"logprobs":null,"x":1})", value).status, 200);
  }
}

TEST(Server, ContentTypes) {
  const TestServer s("hi");
  const auto status = [&](const char* header) { return s.post("/v1/completions", R"({"prompt":"a"})", header).status; };
  EXPECT_EQ(status("Content-Type: application/json\r\n"), 200);
  EXPECT_EQ(status("Content-Type: Application/JSON; charset=utf-8\r\n"), 200);
  EXPECT_EQ(status(""), 200);
  expect_error(s.post("/v1/completions", "a=1", "Content-Type: application/x-www-form-urlencoded\r\n"), 415,
               "Unsupported Media Type");
}

TEST(Server, TokenService) {
  const TestServer s("x");
  EXPECT_EQ(s.post("/tokenize", R"({"prompt":"ab"})").body,
            R"({"count":3,"max_model_len":512,"tokens":[256,97,98],"token_strs":null})");
  EXPECT_EQ(s.post("/tokenize", R"({"prompt":" b","add_special_tokens":false,"return_token_strs":true})").body,
            R"({"count":2,"max_model_len":512,"tokens":[32,98],"token_strs":["Ġ","b"]})");
  EXPECT_EQ(s.post("/tokenize", R"({"prompt":""})").json()["count"], 1);
  EXPECT_EQ(s.post("/tokenize", std::string("{") + kHello + "}").json()["count"], 20);
  EXPECT_EQ(s.post("/detokenize", R"({"tokens":[256,97,98]})").body, R"({"prompt":"<BOS>ab"})");
  EXPECT_EQ(s.post("/detokenize", R"({"tokens":[]})").body, R"({"prompt":""})");
  expect_error(s.post("/detokenize", R"({"tokens":[260]})"), 400, "260 is out of vocabulary");
  expect_error(s.post("/tokenize", R"({})"), 400, "prompt");
  expect_error(s.post("/tokenize", R"({"prompt":"a","model":"zebra"})"), 404, "zebra");
}

TEST(Server, ErrorsBeforeAnyEventArePlainJson) {
  const TestServer s("x");
  const std::string long_text(600, 'a');
  const struct {
    std::string path;
    std::string body;
    int status;
    std::string fragment;
  } kCases[] = {
      {"/v1/completions", "{", 400, "JSON decode error"},
      {"/v1/completions", std::string(300, '['), 400, "JSON decode error"},
      {"/v1/completions", "{\"prompt\":\"\xff\"}", 400, "JSON decode error"},
      {"/v1/completions", R"({"prompt":"","add_special_tokens":false,"stream":true})", 400, "Prompt cannot be empty"},
      {"/v1/completions", R"({"prompt":[999999],"stream":true})", 400, "Token id 999999 is out of vocabulary"},
      {"/v1/completions", R"({"prompt":"a","model":"zebra","stream":true})", 404, "The model `zebra` does not exist."},
      {"/v1/completions", R"({"prompt":"a","max_tokens":511,"stream":true})", 400,
       "This model's maximum context length is 512 tokens. However, you requested 513 tokens (2 in the messages, 511 "
       "in "
       "the completion). Please reduce the length of the messages or completion."},
      {"/v1/completions", R"({"prompt":"a","max_tokens":9223372036854775807})", 400, "maximum context length is 512"},
      {"/v1/chat/completions", R"({"messages":[{"role":"user","content":")" + long_text + R"("}],"stream":true})", 400,
       "This model's maximum context length is 512 tokens. However, you requested 618 tokens in the messages, Please "
       "reduce the length of the messages."},
      {"/v1/completions", R"({"prompt":"a","logit_bias":{"300":1}})", 400,
       "300 is out of vocabulary, whose size is 260"},
      {"/v1/completions", R"({"prompt":"a","allowed_token_ids":[300]})", 400, "out of vocabulary"},
      {"/v1/completions", R"({"prompt":"a","truncate_prompt_tokens":513})", 400,
       "(513) is greater than max_model_len (512)"},
      {"/v1/chat/completions", std::string("{") + kHello + R"(,"chat_template_kwargs":{"messages":1}})", 400,
       "messages"},
  };
  for (const auto& one : kCases) expect_error(s.post(one.path, one.body), one.status, one.fragment);
  EXPECT_TRUE(s.engine->seen().empty());
}

TEST(Server, BigBodies) {
  ServerOptions options;
  options.http.max_body_bytes = 1 << 20;
  const TestServer s("x", options);
  expect_error(s.post("/v1/completions", std::string(2 << 20, 'x')), 413, "larger than 1048576 bytes");
  EXPECT_EQ(s.post("/tokenize", R"({"prompt":")" + std::string(300'000, 'a') + R"("})").json()["count"], 300'001);
}

TEST(Server, QueueFullIs503WithRetryAfterAndLeavesNothingBehind) {
  const TestServer s("x");
  s.engine->hold();
  s.engine->set_max_running(3);
  const HttpReply reply = s.post("/v1/completions", R"({"prompt":"a","n":4,"stream":true})");
  expect_error(reply, 503, "queue full");
  EXPECT_EQ(reply.json()["error"]["type"], "overloaded_error");
  EXPECT_EQ(reply.header("retry-after"), "1");
  EXPECT_TRUE(s.engine->wait_running(0));
  EXPECT_EQ(s.metric(R"(vllm:request_success_total{model_name="m",engine="0",finished_reason="abort"})"), 0);
}

TEST(Server, DisconnectAbortsWithinOneStep) {
  const TestServer s(std::string(400, 'y'));
  s.engine->hold();
  for (const char* body : {R"({"prompt":["a","b"],"n":2,"max_tokens":400})",
                           R"({"prompt":["a","b"],"n":2,"max_tokens":400,"stream":true})"}) {
    for (const bool half : {false, true}) {
      const size_t aborted_before = s.engine->num_aborted();
      TestClient client(s.port());
      client.send(http_request("POST", "/v1/completions", body));
      ASSERT_TRUE(s.engine->wait_running(4));
      s.engine->step();
      half ? client.half_close() : client.close();
      EXPECT_TRUE(s.engine->wait_running(0)) << body;  // the engine is held: no token was made in between
      EXPECT_EQ(s.engine->num_aborted(), aborted_before + 4);
    }
  }
  EXPECT_TRUE(eventually([&] { return s.server->num_active_requests() == 0; }));
  EXPECT_TRUE(eventually([&] {
    return s.metric(R"(vllm:request_success_total{model_name="m",engine="0",finished_reason="abort"})") == 16;
  }));
  EXPECT_EQ(s.metric(R"(vllm:num_requests_running{model_name="m",engine="0"})"), 0);
}

TEST(Server, EngineErrors) {
  const TestServer s("abcdef");
  s.engine->hold();
  TestClient plain(s.port());
  plain.send(http_request("POST", "/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(s.engine->wait_running(1));
  s.engine->fail_next_step("rank 1 is lost");
  s.engine->step();
  expect_error(plain.read_reply(), 500, "rank 1 is lost");
  TestClient streaming(s.port());
  streaming.send(http_request("POST", "/v1/completions", R"({"prompt":"a","n":2,"stream":true})"));
  ASSERT_TRUE(s.engine->wait_running(2));
  s.engine->step();
  s.engine->fail_next_step("rank 1 is lost");
  s.engine->step();
  const HttpReply reply = streaming.read_reply();
  EXPECT_EQ(reply.status, 200);
  const auto events = reply.events();
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(parse_json(events[2]).value()["error"]["message"], "rank 1 is lost");
  EXPECT_EQ(events[3], "[DONE]");
}

TEST(Server, LoadingThenReady) {
  TestServer s([](const Request&) { return test_ids("x"); }, {}, false);
  s.server->set_loading_progress(0.25, "reading weights");
  const HttpReply health = s.get("/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_EQ(health.json()["status"], "loading");
  EXPECT_EQ(health.json()["progress"], 0.25);
  EXPECT_EQ(health.json()["step"], "reading weights");
  EXPECT_EQ(s.get("/ping").status, 503);
  EXPECT_EQ(s.get("/health/ready").status, 503);
  EXPECT_EQ(s.get("/health/live").status, 200);
  EXPECT_EQ(s.get("/health/live").body, "");
  EXPECT_EQ(s.get("/version").status, 200);
  EXPECT_EQ(s.get("/metrics").status, 200);
  expect_error(s.get("/v1/models"), 503, "Loading model");
  expect_error(s.post("/v1/completions", R"({"prompt":"a"})"), 503, "Loading model");
  s.attach();
  EXPECT_EQ(s.get("/health").status, 200);
  EXPECT_EQ(s.post("/v1/completions", R"({"prompt":"a"})").status, 200);
}

TEST(Server, HealthFollowsTheEngine) {
  ServerOptions options;
  options.stall_limit = milliseconds(200);
  const TestServer s(std::string(500, 'a'), options);
  s.engine->set_healthy(false);
  EXPECT_EQ(s.get("/health").status, 503);
  s.engine->set_healthy(true);
  EXPECT_EQ(s.get("/health").status, 200);
  s.engine->hold();  // has work, does nothing
  TestClient client(s.port());
  client.send(http_request("POST", "/v1/completions", R"({"prompt":"a","max_tokens":500})"));
  ASSERT_TRUE(s.engine->wait_running(1));
  EXPECT_TRUE(eventually([&] { return s.get("/health").status == 503; }));
  EXPECT_TRUE(eventually([&] {
    s.engine->step();
    return s.get("/health").status == 200;
  }));
  s.engine->release();
  EXPECT_EQ(client.read_reply().status, 200);
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_EQ(s.get("/health").status, 200);  // idle is healthy
}

TEST(Server, DrainLetsRunningRequestsEnd) {
  ServerOptions options;
  options.num_io_threads = 1;
  TestServer s("abc", options);
  s.engine->hold();
  TestClient running(s.port());
  running.send(http_request("POST", "/v1/completions", R"({"prompt":"a","stream":true})"));
  TestClient kept(s.port());
  kept.send("GET /vers");  // a request on its way when the drain begins
  ASSERT_TRUE(s.engine->wait_running(1));
  EXPECT_EQ(s.get("/version").status, 200);  // so the IO thread has read what was sent before
  bool clean = false;
  std::thread stopper([&] { clean = s.server->shutdown(std::chrono::minutes(2)); });
  EXPECT_TRUE(eventually([&] { return s.get("/health").header("connection") == "close"; }));
  kept.send("ion HTTP/1.1\r\nHost: h\r\n\r\n");
  const HttpReply version = kept.read_reply();
  EXPECT_EQ(version.status, 200);
  EXPECT_EQ(version.header("connection"), "close");
  const HttpReply health = s.get("/health");  // a load balancer's probe is answered, not refused
  expect_error(health, 503, "draining");
  EXPECT_EQ(health.header("connection"), "close");
  EXPECT_EQ(s.get("/health/live").status, 200);
  const HttpReply refused = s.post("/v1/completions", R"({"prompt":"a"})");
  expect_error(refused, 503, "shutting down");
  EXPECT_EQ(refused.header("retry-after"), "1");
  EXPECT_EQ(refused.header("connection"), "close");
  s.engine->release();
  EXPECT_EQ(joined(running.read_reply().events(), "/choices/0/text"), "abc");
  stopper.join();
  EXPECT_TRUE(clean);
}

TEST(Server, ShutdownAfterTheLimitTellsTheClients) {
  TestServer s("abcdefgh");
  s.engine->hold();
  TestClient streaming(s.port());
  streaming.send(http_request("POST", "/v1/completions", R"({"prompt":"a","stream":true})"));
  TestClient plain(s.port());
  plain.send(http_request("POST", "/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(s.engine->wait_running(2));
  s.engine->step();
  EXPECT_FALSE(s.server->shutdown(milliseconds(50)));
  const auto events = streaming.read_reply().events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(parse_json(events[1]).value()["error"]["code"], 503);
  EXPECT_EQ(events[2], "[DONE]");
  const HttpReply refused = plain.read_reply();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.header("retry-after"), "1");
  EXPECT_TRUE(s.engine->wait_running(0));
}

// A kept engine never tells the other ranks that it ends.
TEST(Server, ShutdownInTheMiddleOfAStepKeepsNothing) {
  TestServer s("abcdefgh");
  s.engine->hold_in_step();
  TestClient client(s.port());
  client.send(http_request("POST", "/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(s.engine->wait_running(1));
  EXPECT_FALSE(s.server->shutdown(milliseconds(1)));
  expect_error(client.read_reply(), 503, "shutting down");
  const std::weak_ptr<FakeEngine> engine = s.engine;
  s.server.reset();
  s.engine.reset();
  EXPECT_TRUE(engine.expired());
}

TEST(Server, SlowReaderLosesItsRequestOnly) {
  ServerOptions options;
  options.http.max_unsent_bytes = 1 << 16;
  options.num_io_threads = 1;
  TestServer s([](const Request&) { return std::vector<int32_t>(200'000, 'y'); }, options, false);
  s.max_model_len = 200'000;
  s.attach();
  s.engine->set_tokens_per_step(16);  // some 20 kB of events
  s.engine->hold();
  TestClient slow(s.port());
  slow.set_receive_buffer(4096);
  slow.send(
      http_request("POST", "/v1/completions", R"({"prompt":"a","max_tokens":150000,"stream":true,"logprobs":20})"));
  ASSERT_TRUE(s.engine->wait_running(1));
  // An answer shows that the IO thread has written all steps before: else a fast engine could end before the server
  // has seen how slow the reader is.
  for (int step = 0; step < 5000 && s.engine->num_aborted() == 0; ++step) {
    s.engine->step();
    ASSERT_EQ(s.get("/version").status, 200);
  }
  EXPECT_EQ(s.engine->num_aborted(), 1u);
  EXPECT_TRUE(s.engine->wait_running(0));
  s.engine->release();
  EXPECT_EQ(s.post("/v1/completions", R"({"prompt":"a"})").status, 200);
}

TEST(Server, HealthAnswersWhileLongPromptsAreTokenised) {
  const TestServer s("x");
  constexpr int kClients = 40;  // half a second of work for the tokenisers, against a millisecond for the answer
  const std::string body = R"({"prompt":")" + std::string(1'000'000, 'w') + R"("})";
  const std::string request = http_request("POST", "/v1/completions", body);
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<TestClient>(s.port()));
    clients.back()->send(request.substr(0, request.size() - 1));
  }
  for (const auto& client : clients) client->send(request.substr(request.size() - 1));  // now all are to be tokenised
  EXPECT_TRUE(eventually([&] { return s.server->num_active_requests() > 0; }));
  EXPECT_EQ(s.get("/health").status, 200);
  EXPECT_GT(s.server->num_active_requests(), 0);  // so the answer did not wait for all of them
  for (const auto& client : clients) EXPECT_EQ(client->read_reply().status, 400);
}

TEST(Server, MetricsCountExactly) {
  const TestServer s(std::string(50, 'z'));
  constexpr int kRequests = 10;
  constexpr int kPrompt = 6;  // "hello" and BOS
  for (int i = 0; i < kRequests; ++i) {
    EXPECT_EQ(s.post("/v1/completions", R"({"prompt":"hello","max_tokens":10})").status, 200);
  }
  const std::string labels = R"({model_name="m",engine="0"})";
  for (const char* name :
       {"time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
        "request_inference_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
        "request_prompt_tokens", "request_generation_tokens", "request_params_n", "request_params_max_tokens",
        "request_max_num_generation_tokens", "request_time_per_output_token_seconds"}) {
    EXPECT_EQ(s.metric(fmt::format("vllm:{}_count{}", name, labels)), kRequests) << name;
  }
  EXPECT_EQ(s.metric("vllm:time_per_output_token_seconds_count" + labels), 90);
  EXPECT_EQ(s.metric("vllm:inter_token_latency_seconds_count" + labels), 90);
  EXPECT_TRUE(eventually([&] { return s.metric("vllm:iteration_tokens_total_count" + labels) == 100; }));
  EXPECT_EQ(s.metric("vllm:iteration_tokens_total_sum" + labels), kRequests * (kPrompt + 10));
  EXPECT_EQ(s.metric("vllm:request_prompt_tokens_sum" + labels), kRequests * kPrompt);
  EXPECT_EQ(s.metric("vllm:request_generation_tokens_sum" + labels), 100);
  EXPECT_EQ(s.metric("vllm:request_params_max_tokens_sum" + labels), 100);
  EXPECT_EQ(s.metric("vllm:prompt_tokens_total" + labels), kRequests * kPrompt);
  EXPECT_EQ(s.metric("vllm:generation_tokens_total" + labels), 100);
  EXPECT_EQ(s.metric(R"(vllm:request_success_total{model_name="m",engine="0",finished_reason="length"})"), kRequests);
  EXPECT_EQ(s.metric("hadal_steps_total"), 100);
  EXPECT_EQ(s.metric("hadal_step_seconds_total"), 50);
  EXPECT_EQ(s.metric("hadal_step_sampling_seconds_total"), 12.5);
  EXPECT_EQ(s.metric("hadal_step_barriers_total"), 300);
  EXPECT_EQ(s.metric("hadal_step_collectives_total"), 400);
  EXPECT_EQ(s.metric("hadal_step_comm_bytes_total"), 1100);
  EXPECT_EQ(s.metric("hadal_step_threads"), 3);
  EXPECT_EQ(s.metric(R"(hadal_step_phase_seconds_total{phase="experts"})"), 25);
  EXPECT_EQ(s.metric(R"(hadal_step_phase_busy_seconds_total{phase="experts"})"), 50);
  EXPECT_EQ(s.metric(R"(hadal_step_weight_bytes_total{phase="experts"})"), 700);
  EXPECT_EQ(s.metric(R"(hadal_step_flops_total{phase="experts"})"), 900);
  EXPECT_EQ(s.metric(R"(hadal_step_kv_bytes_total{phase="head"})"), 500);
  EXPECT_EQ(s.metric("vllm:num_preemptions_total" + labels), 7);
  EXPECT_EQ(s.metric("vllm:num_requests_running" + labels), 0);
  s.get("/nothing");
  EXPECT_TRUE(eventually([&] {
    return s.metric(R"(http_requests_total{handler="/v1/completions",method="POST",status="2xx"})") == kRequests &&
           s.metric(R"(http_requests_total{handler="none",method="GET",status="4xx"})") == 1;
  }));
  EXPECT_TRUE(std::isnan(s.metric(R"(http_requests_total{handler="/metrics",method="GET",status="2xx"})")));
}

TEST(Server, MetricsCarryOldAndNewNames) {
  const TestServer s("hello");
  EXPECT_EQ(s.post("/v1/completions", R"({"prompt":"hello","max_tokens":3})").status, 200);
  const std::string plain = R"(model_name="m",engine="0")";
  const std::string labels = "{" + plain + "}";
  const std::pair<std::string, double> expected[] = {
      {"vllm:num_requests_waiting_by_reason{" + plain + R"(,reason="capacity"})", 0},
      {"vllm:num_requests_waiting_by_reason{" + plain + R"(,reason="deferred"})", 0},
      {"vllm:num_requests_swapped" + labels, 0},
      {"vllm:gpu_cache_usage_perc" + labels, 0},
      {"vllm:kv_cache_usage_perc" + labels, 0},
      {"vllm:cpu_cache_usage_perc" + labels, 0},
      {"vllm:gpu_prefix_cache_hit_rate" + labels, 0},
      {"vllm:cpu_prefix_cache_hit_rate" + labels, -1},
      {"vllm:prompt_tokens_by_source_total{" + plain + R"(,source="local_compute"})", 5},  // FakeEngine caches one
      {"vllm:prompt_tokens_by_source_total{" + plain + R"(,source="local_cache_hit"})", 1},
      {"vllm:prompt_tokens_by_source_total{" + plain + R"(,source="external_kv_transfer"})", 0},
      {"vllm:prompt_tokens_cached_total" + labels, 1},
      {"vllm:prompt_tokens_recomputed_total" + labels, 0},
      {"vllm:request_prefill_kv_computed_tokens_sum" + labels, 5},
      {"vllm:request_prefill_kv_computed_tokens_count" + labels, 1},
      {"vllm:time_in_queue_requests_count" + labels, 1},
      {"vllm:model_forward_time_milliseconds_count" + labels, 3},
      {"vllm:model_execute_time_milliseconds_sum" + labels, 1500},
      {"vllm:spec_decode_num_drafts_total" + labels, 0},
      {"vllm:spec_decode_num_accepted_tokens_per_pos_total{" + plain + R"(,position="0"})", 0},
      {"vllm:tokens_total" + labels, 0},
  };
  EXPECT_TRUE(eventually([&] { return s.metric("vllm:iteration_tokens_total_count" + labels) == 3; }));
  for (const auto& [name, value] : expected) EXPECT_EQ(s.metric(name), value) << name;
  EXPECT_GT(s.metric("process_max_fds"), 0);
  EXPECT_GT(s.metric("process_resident_memory_bytes"), 0);
  EXPECT_GT(s.metric("process_virtual_memory_bytes"), s.metric("process_resident_memory_bytes"));
}

TEST(Server, WithoutStatisticsThereAreNoEngineMetrics) {
  ServerOptions options;
  options.log_stats = false;
  const TestServer s("hello", options);
  EXPECT_EQ(s.post("/v1/completions", R"({"prompt":"hello"})").status, 200);
  EXPECT_TRUE(eventually(
      [&] { return s.metric(R"(http_requests_total{handler="/v1/completions",method="POST",status="2xx"})") == 1; }));
  const std::string text = s.get("/metrics").body;
  EXPECT_EQ(text.find("vllm:"), std::string::npos);
  EXPECT_EQ(text.find("hadal_step"), std::string::npos);
  EXPECT_NE(text.find("process_open_fds"), std::string::npos);
}

TEST(Server, OptionsAreChecked) {
  EXPECT_FALSE(Server::start({}).has_value());
  const auto refused = [](auto change) {
    ServerOptions options{.host = "127.0.0.1", .port = 0, .served_model_names = {"m"}};
    change(options);
    const auto started = Server::start(options);
    return !started.has_value() && started.error().code == ErrorCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](ServerOptions& o) { o.root_path = "x"; }));
  EXPECT_TRUE(refused([](ServerOptions& o) { o.api_keys = {"a", ""}; }));
  EXPECT_TRUE(refused([](ServerOptions& o) { o.tls.key_file = "key.pem"; }));
  EXPECT_TRUE(refused([](ServerOptions& o) { o.tls.certificate_file = "absent.pem"; }));
  ServerOptions options{.host = "127.0.0.1", .port = 0, .served_model_names = {"m"}};
  options.reasoning_parser = "deepseek_r2";
  EXPECT_FALSE(Server::start(options).has_value());
}

}  // namespace
}  // namespace hadal
