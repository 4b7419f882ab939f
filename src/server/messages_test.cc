// /v1/messages: what requests become, what answers and events look like, errors in this API's shape.
#include <gtest/gtest.h>

#include "server/messages_request.h"
#include "server/server_test_support.h"

namespace hadal {
namespace {

constexpr char kCall[] =
    "let me look<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>{\"q\":[1,2]}<｜tool▁call▁end｜>"
    "<｜tool▁calls▁end｜>";
constexpr char kTools[] = R"("tools":[{"name":"look","description":"d","input_schema":{"type":"object"}}])";
constexpr char kHello[] = R"("messages":[{"role":"user","content":"Hi"}])";

std::string body_of(const std::string& more, const char* max_tokens = "400") {
  return std::string("{") + kHello + R"(,"max_tokens":)" + max_tokens + (more.empty() ? "" : "," + more) + "}";
}

// The message that a client builds from the events.
Json built_from(const std::vector<Json>& events) {
  Json message = events.front()["message"];
  std::string partial_json;
  for (const Json& event : events) {
    const std::string type = event["type"];
    if (type == "content_block_start") {
      EXPECT_EQ(event["index"], message["content"].size());
      message["content"].push_back(event["content_block"]);
      partial_json.clear();
    } else if (type == "content_block_delta") {
      const Json& delta = event["delta"];
      for (const char* name : {"text", "thinking"}) {
        if (!delta.contains(name)) continue;
        message["content"].back()[name] =
            message["content"].back()[name].get<std::string>() + delta[name].get<std::string>();
      }
      if (delta["type"] == "input_json_delta") partial_json += delta["partial_json"].get<std::string>();
    } else if (type == "content_block_stop" && !partial_json.empty()) {
      message["content"].back()["input"] = Json::parse(partial_json);
    } else if (type == "message_delta") {
      message.update(event["delta"]);
      message["usage"] = event["usage"];
    }
  }
  EXPECT_EQ(events.back()["type"], "message_stop");
  return message;
}

Json without_ids(Json message) {
  message["id"] = "ID";
  for (Json& block : message["content"]) {
    if (block.contains("id")) block["id"] = "ID";
  }
  return message;
}

void expect_messages_error(const HttpReply& reply, int status, const char* type, const std::string& fragment) {
  EXPECT_EQ(reply.status, status) << reply.body;
  EXPECT_EQ(reply.json()["type"], "error");
  EXPECT_EQ(reply.json()["error"]["type"], type);
  EXPECT_NE(reply.json()["error"]["message"].get<std::string>().find(fragment), std::string::npos) << reply.body;
}

TEST(MessagesRequest, BecomesAChatRequest) {
  const auto chat = chat_request_of_messages(Json::parse(R"({
      "model":"m","max_tokens":50,"temperature":0.5,"stop_sequences":["END"],"thinking":{"type":"disabled"},
      "system":[{"type":"text","text":"one"},{"type":"text","text":"two","cache_control":{"type":"ephemeral"}}],
      "tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],
      "tool_choice":{"type":"any","disable_parallel_tool_use":true},
      "messages":[
        {"role":"user","content":"question"},
        {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"a"},
                                       {"type":"text","text":"b"},
                                       {"type":"tool_use","id":"t1","name":"f","input":{"x":1}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"r"}]},
                                  {"type":"text","text":"go on"}]},
        {"role":"reminder","content":"still there"}]})"),
                                             false);
  ASSERT_TRUE(chat) << chat.error().message;
  EXPECT_EQ(*chat, Json::parse(R"({
      "model":"m","temperature":0.5,"max_tokens":50,"stop":["END"],
      "messages":[
        {"role":"system","content":"one\ntwo"},
        {"role":"user","content":"question"},
        {"role":"assistant","content":"a\nb","reasoning_content":"hm",
         "tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
        {"role":"tool","tool_call_id":"t1","content":"r"},
        {"role":"user","content":"go on"},
        {"role":"user","content":"still there"}],
      "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],
      "tool_choice":"required","parallel_tool_calls":false,"reasoning_effort":"none"})"));
}

TEST(MessagesRequest, RefusesByName) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"([])", "JSON object"},
      {R"({"messages":[{"role":"user","content":"x"}]})", "max_tokens is required"},
      {R"({"max_tokens":0,"messages":[{"role":"user","content":"x"}]})", "max_tokens must be at least 1"},
      {R"({"max_tokens":1})", "messages must be"},
      {R"({"max_tokens":1,"messages":[]})", "messages must be"},
      {R"({"max_tokens":1,"messages":["x"]})", "messages[0] must be an object"},
      {R"({"max_tokens":1,"messages":[{"content":"x"}]})", "messages[0].role is required"},
      {R"({"max_tokens":1,"messages":[{"role":"user"}]})", "messages[0].content must be"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":["x"]}]})", "messages[0].content[0] must be an object"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":[{"type":"image"}]}]})",
       "type \"image\" is not supported"},
      {R"({"max_tokens":1,"system":7,"messages":[{"role":"user","content":"x"}]})", "system must be"},
      {R"({"max_tokens":1,"tools":{},"messages":[{"role":"user","content":"x"}]})", "tools must be a list"},
      {R"({"max_tokens":1,"tools":[{"type":"web_search_20250305"}],"messages":[{"role":"user","content":"x"}]})",
       "tools[0]: only tools that the client runs"},
      {R"({"max_tokens":1,"tool_choice":"any","messages":[{"role":"user","content":"x"}]})", "tool_choice.type"},
      {R"({"max_tokens":1,"thinking":true,"messages":[{"role":"user","content":"x"}]})", "thinking.type"},
  };
  for (const auto& [body, fragment] : kCases) {
    const auto chat = chat_request_of_messages(Json::parse(body), false);
    ASSERT_FALSE(chat) << body;
    EXPECT_NE(chat.error().message.find(fragment), std::string::npos) << body << ": " << chat.error().message;
  }
}

TEST(Messages, AnswerHasThinkingAndText) {
  const TestServer s("<think>hm</think>hello");
  const Json message = s.post("/v1/messages", body_of(R"("model":"m")")).json();
  EXPECT_EQ(without_ids(message), Json::parse(R"({
      "id":"ID","type":"message","role":"assistant","model":"m",
      "content":[{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"hello"}],
      "stop_reason":"end_turn","stop_sequence":null,
      "usage":{"input_tokens":19,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":10}})"));
}

TEST(Messages, EventsBuildTheSameMessage) {
  for (const std::string answer : {"<think>hm</think>hello", "", kCall, "<think>never ends"}) {
    const TestServer s(answer, with_tool_parser("deepseek_v31"));
    const Json whole = s.post("/v1/messages", body_of(kTools)).json();
    const auto events = named_events(s.post("/v1/messages", body_of(std::string(kTools) + R"(,"stream":true)")));
    ASSERT_GE(events.size(), 4u);
    EXPECT_EQ(events[0]["message"]["usage"]["output_tokens"], 0);
    EXPECT_EQ(events[0]["message"]["content"], Json::array());
    EXPECT_EQ(without_ids(built_from(events)), without_ids(whole)) << answer;
  }
}

TEST(Messages, ToolUse) {
  const TestServer s(kCall, with_tool_parser("deepseek_v31"));
  const Json message = s.post("/v1/messages", body_of(kTools)).json();
  EXPECT_EQ(message["stop_reason"], "tool_use") << message;
  ASSERT_EQ(message["content"].size(), 2u);
  EXPECT_EQ(message["content"][0], Json::parse(R"({"type":"text","text":"let me look"})"));
  EXPECT_EQ(message["content"][1]["name"], "look");
  EXPECT_EQ(message["content"][1]["input"], Json::parse(R"({"q":[1,2]})"));
  EXPECT_FALSE(message["content"][1]["id"].get<std::string>().empty());
}

TEST(Messages, ACutCallIsGivenBackAsText) {
  const TestServer s(std::string(kCall).substr(0, std::string(kCall).find("2]")), with_tool_parser("deepseek_v31"));
  const Json message = s.post("/v1/messages", body_of(kTools)).json();
  EXPECT_EQ(message["stop_reason"], "end_turn");
  EXPECT_EQ(message["content"].back()["type"], "text");
  EXPECT_NE(message.dump().find("q\\\":[1,"), std::string::npos) << message;
}

TEST(Messages, StopReasons) {
  const TestServer s("hello END more");
  const Json stopped = s.post("/v1/messages", body_of(R"("stop_sequences":["END"])")).json();
  EXPECT_EQ(stopped["stop_reason"], "stop_sequence");
  EXPECT_EQ(stopped["stop_sequence"], "END");
  EXPECT_EQ(stopped["content"][0]["text"], "hello ");
  EXPECT_EQ(s.post("/v1/messages", body_of("", "3")).json()["stop_reason"], "max_tokens");
}

TEST(Messages, CountTokens) {
  const TestServer s("x");
  const std::string body = std::string("{") + kHello + "}";
  EXPECT_EQ(s.post("/v1/messages/count_tokens", body).json(), Json::parse(R"({"input_tokens":20})"));
  EXPECT_TRUE(s.engine->seen().empty());
  expect_messages_error(s.post("/v1/messages/count_tokens", "{}"), 400, "invalid_request_error", "messages");
}

TEST(Messages, KeysAndErrors) {
  ServerOptions options;
  options.api_keys = {"k"};
  const TestServer s("abc", options);
  EXPECT_EQ(s.post("/v1/messages", body_of("")).status, 401);
  EXPECT_EQ(s.post("/v1/messages", body_of(""), "x-api-key: wrong\r\n").status, 401);
  const auto post = [&](const std::string& body) { return s.post("/v1/messages", body, "x-api-key: k\r\n"); };
  EXPECT_EQ(post(body_of("")).status, 200);
  expect_messages_error(post("{"), 400, "invalid_request_error", "JSON decode error");
  expect_messages_error(post(body_of(R"("temperature":-1)")), 400, "invalid_request_error", "temperature");
  expect_messages_error(post(body_of(R"("model":"zebra")")), 404, "not_found_error", "zebra");
  expect_messages_error(post(body_of("", "9999")), 400, "invalid_request_error", "maximum context length");
}

TEST(Messages, AnErrorDuringTheStreamIsItsLastEvent) {
  const TestServer s("abc");
  s.engine->hold();
  TestClient streaming(s.port());
  streaming.send(http_request("POST", "/v1/messages", body_of(R"("stream":true)")));
  ASSERT_TRUE(s.engine->wait_running(1));
  s.engine->step();
  s.engine->fail_next_step("rank 1 is lost");
  s.engine->step();
  EXPECT_EQ(named_events(streaming.read_reply()).back(),
            Json::parse(R"({"type":"error","error":{"type":"api_error","message":"rank 1 is lost"}})"));
}

}  // namespace
}  // namespace hadal
