// Routes besides generation: render, invocations, abort, prefix cache, configuration.
#include <gtest/gtest.h>

#include "server/server_test_support.h"

namespace hadal {
namespace {

constexpr char kHello[] = R"({"messages":[{"role":"user","content":"Hi"}]})";

TEST(RenderRoutes, ShowWhatWouldBeRun) {
  const TestServer s("x");
  const Json chat = s.post("/v1/chat/completions/render", kHello).json();
  ASSERT_EQ(chat["prompts"].size(), 1u) << chat;
  const Json& prompt = chat["prompts"][0];
  EXPECT_EQ(s.post("/tokenize", kHello).json()["tokens"], prompt["prompt_token_ids"]);
  EXPECT_EQ(s.post("/detokenize", Json{{"tokens", prompt["prompt_token_ids"]}}.dump()).json()["prompt"],
            prompt["prompt"]);
  EXPECT_EQ(chat["model"], "m");
  EXPECT_EQ(chat["max_model_len"], 512);
  EXPECT_EQ(s.post("/v1/completions/render", R"({"prompt":["ab",[97]]})").status, 400);  // either kind, not both
  EXPECT_EQ(s.post("/v1/completions/render", R"({"prompt":["ab","c"]})").json()["prompts"],
            Json::parse(R"([{"prompt":"ab","prompt_tokens":3,"prompt_token_ids":[256,97,98]},
                            {"prompt":"c","prompt_tokens":2,"prompt_token_ids":[256,99]}])"));
  EXPECT_EQ(s.post("/v1/completions/render", R"({"prompt":[97,98],"truncate_prompt_tokens":1})").json()["prompts"],
            Json::parse(R"([{"prompt":"b","prompt_tokens":1,"prompt_token_ids":[98]}])"));
  EXPECT_TRUE(s.engine->seen().empty());  // nothing was run
}

TEST(RenderRoutes, RefuseWhatGenerationRefuses) {
  const TestServer s("x");
  expect_error(s.post("/v1/chat/completions/render", "{"), 400, "JSON decode error");
  expect_error(s.post("/v1/chat/completions/render", R"({"messages":[]})"), 400, "messages");
  expect_error(s.post("/v1/completions/render", R"({"prompt":"a","temperature":-1})"), 400, "temperature");
  expect_error(s.post("/v1/completions/render", R"({"prompt":"a","model":"zebra"})"), 404, "zebra");
}

TEST(Invocations, GoWhereTheBodyBelongs) {
  const TestServer s("hello");
  EXPECT_EQ(s.post("/invocations", kHello).json()["choices"][0]["message"]["content"], "hello");
  EXPECT_EQ(s.post("/invocations", R"({"prompt":"a"})").json()["choices"][0]["text"], "hello");
  expect_error(s.post("/invocations", "["), 400, "JSON decode error");
  expect_error(s.post("/invocations", "[]"), 400, "JSON object");
}

TEST(AbortRequests, EndsOnesByEitherId) {
  const TestServer s(std::string(400, 'a'));
  s.engine->hold();
  TestClient by_answer_id(s.port());
  TestClient by_header(s.port());
  TestClient stays(s.port());
  const auto request = [](const char* id, const char* body) {
    return http_request("POST", "/v1/completions", body, std::string("X-Request-Id: ") + id + "\r\n");
  };
  by_answer_id.send(request("one", R"({"prompt":"a","max_tokens":300,"stream":true})"));
  by_header.send(request("two", R"({"prompt":"a","max_tokens":300})"));
  stays.send(request("three", R"({"prompt":"a","max_tokens":3})"));
  ASSERT_TRUE(s.engine->wait_running(3));
  s.engine->step();
  EXPECT_EQ(s.post("/abort_requests", R"({"request_ids":["cmpl-one","two","unknown"]})").body, R"({"aborted":2})");
  const auto events = by_answer_id.read_reply().events();
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(parse_json(events[events.size() - 2]).value()["error"]["code"], 499);
  EXPECT_EQ(events.back(), "[DONE]");
  expect_error(by_header.read_reply(), 499, "/abort_requests");
  EXPECT_TRUE(eventually([&] { return s.engine->num_aborted() == 2; }));
  s.engine->release();
  EXPECT_EQ(stays.read_reply().json()["choices"][0]["text"], "aaa");
  EXPECT_EQ(s.metric(R"(vllm:request_success_total{model_name="m",engine="0",finished_reason="abort"})"), 2);
}

TEST(AbortRequests, RefusesOtherBodies) {
  const TestServer s("x");
  expect_error(s.post("/abort_requests", "{}"), 400, "request_ids is required");
  expect_error(s.post("/abort_requests", R"({"request_ids":[1]})"), 400, "request_ids");
  EXPECT_EQ(s.post("/abort_requests", R"({"request_ids":[]})").body, R"({"aborted":0})");
}

TEST(OperatorRoutes, ResetThePrefixCacheAndShowTheConfiguration) {
  ServerOptions options;
  options.explained_config = {{"port", {{"value", 0}, {"origin", "command line"}}}};
  {
    const TestServer s("x", options);
    EXPECT_EQ(s.post("/reset_prefix_cache", "").status, 200);
    EXPECT_EQ(s.post("/reset_prefix_cache", "").body, "");
    expect_error(s.get("/server_info"), 404, "development mode");
  }
  options.dev_mode = true;
  options.api_keys = {"k"};
  const TestServer s("x", options);
  EXPECT_EQ(s.get("/server_info").status, 401);
  EXPECT_EQ(s.post("/reset_prefix_cache", "").status, 401);
  EXPECT_EQ(http_call(s.port(), "GET", "/server_info", "", "Authorization: Bearer k\r\n").json()["vllm_config"],
            options.explained_config);
}

}  // namespace
}  // namespace hadal
