// /v1/responses: what requests become, what answers and events look like, what is stored.
#include "server/responses_request.h"

#include <gtest/gtest.h>

#include "server/responses_store.h"
#include "server/server_test_support.h"

namespace hadal {
namespace {

constexpr char kTwoCalls[] =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>{\"q\":1}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>look<｜tool▁sep｜>{\"q\":2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
constexpr char kTools[] = R"("tools":[{"type":"function","name":"look","parameters":{"type":"object"}}])";

Json chat_of(const std::string& body) {
  const auto request = parse_responses_request(Json::parse(body));
  return request ? chat_request_of(*request, Json::array()) : Json(request.error().message);
}

// Their numbers rise from 0.
std::vector<Json> events_of(const HttpReply& reply) {
  std::vector<Json> events = named_events(reply);
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i]["sequence_number"], i);
  return events;
}

std::vector<std::string> types_of(const std::vector<Json>& events) {
  std::vector<std::string> types;
  for (const Json& event : events) {
    const std::string type = event["type"].get<std::string>().substr(std::string("response.").size());
    if (types.empty() || types.back() != type) types.push_back(type);  // deltas count once
  }
  return types;
}

// Ids, which are made anew each time, as "ID".
Json without_ids(Json value) {
  if (value.is_object()) {
    for (const char* name : {"id", "item_id", "call_id"}) {
      if (value.contains(name)) value[name] = "ID";
    }
  }
  if (value.is_structured()) {
    for (Json& item : value) item = without_ids(item);
  }
  return value;
}

TEST(ResponsesRequest, BecomesAChatRequest) {
  EXPECT_EQ(chat_of(R"({"model":"m","input":"Hi","instructions":"Be brief","max_output_tokens":9,"temperature":0,
                        "reasoning":{"effort":"low"},"top_logprobs":2,"metadata":{"a":"b"},"seed":3})"),
            Json::parse(R"({"model":"m","temperature":0,"seed":3,"reasoning_effort":"low","max_tokens":9,
                            "logprobs":true,"top_logprobs":2,
                            "messages":[{"role":"system","content":"Be brief"},{"role":"user","content":"Hi"}]})"));
  EXPECT_EQ(chat_of(R"({"input":"x","tools":[{"type":"function","name":"f","parameters":{},"strict":true}],
                        "tool_choice":{"type":"function","name":"f"},"parallel_tool_calls":false,
                        "text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"}}}})"),
            Json::parse(R"({"parallel_tool_calls":false,
                            "tools":[{"type":"function","function":{"name":"f","parameters":{},"strict":true}}],
                            "tool_choice":{"type":"function","function":{"name":"f"}},
                            "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}},
                            "messages":[{"role":"user","content":"x"}]})"));
}

TEST(ResponsesRequest, ItemsBecomeMessages) {
  const auto messages = messages_of_items(Json::parse(R"([
      {"role":"developer","content":"rules"},
      {"type":"message","role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},
      {"type":"reasoning","id":"r","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
      {"type":"message","role":"assistant","content":[{"type":"output_text","text":"let me look"}]},
      {"type":"function_call","call_id":"1","name":"f","arguments":"{}"},
      {"type":"function_call","call_id":"2","name":"g","arguments":"{\"x\":1}"},
      {"type":"function_call_output","call_id":"1","output":"one"},
      {"type":"function_call_output","call_id":"2","output":[{"type":"input_text","text":"two"}]}])"));
  ASSERT_TRUE(messages) << messages.error().message;
  EXPECT_EQ(*messages, Json::parse(R"([
      {"role":"system","content":"rules"},
      {"role":"user","content":"a\nb"},
      {"role":"assistant","content":"let me look","reasoning_content":"hm","tool_calls":[
          {"id":"1","type":"function","function":{"name":"f","arguments":"{}"}},
          {"id":"2","type":"function","function":{"name":"g","arguments":"{\"x\":1}"}}]},
      {"role":"tool","tool_call_id":"1","content":"one"},
      {"role":"tool","tool_call_id":"2","content":"two"}])"));
}

TEST(ResponsesRequest, RefusesByName) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"([])", "JSON object"},
      {R"({})", "input must be"},
      {R"({"input":5})", "input must be"},
      {R"({"input":[5]})", "input[0] must be an object"},
      {R"({"input":[{"role":"user","content":[{"type":"input_image"}]}]})",
       "input[0].content[0]: type \"input_image\""},
      {R"({"input":[{"role":"user","content":7}]})", "input[0].content must be"},
      {R"({"input":[{"content":"x"}]})", "input[0].role is required"},
      {R"({"input":[{"type":"item_reference","id":"x"}]})", "type \"item_reference\" is not supported"},
      {R"({"input":[{"type":"function_call","name":1}]})", "input[0].name must be a string"},
      {R"({"input":"x","background":true})", "background"},
      {R"({"input":"x","conversation":"c"})", "conversation"},
      {R"({"input":"x","prompt":{"id":"p"}})", "prompt"},
      {R"({"input":"x","truncation":"auto"})", "truncation"},
      {R"({"input":"x","max_output_tokens":0})", "max_output_tokens must be at least 1"},
      {R"({"input":"x","tools":{}})", "tools must be a list"},
      {R"({"input":"x","tools":[{"type":"web_search"}]})", "tools[0]: type \"web_search\" is not supported"},
      {R"({"input":"x","tool_choice":{"type":"mcp"}})", "tool_choice"},
      {R"({"input":"x","text":{"format":4}})", "text.format"},
      {R"({"input":"x","reasoning":"high"})", "reasoning must be an object"},
      {R"({"input":"x","store":"yes"})", "store must be true or false"},
  };
  for (const auto& [body, fragment] : kCases) {
    const auto request = parse_responses_request(Json::parse(body));
    ASSERT_FALSE(request) << body;
    EXPECT_EQ(request.error().status, 400) << body;
    EXPECT_NE(request.error().message.find(fragment), std::string::npos) << body << ": " << request.error().message;
  }
}

TEST(Responses, AnswerHasReasoningAndText) {
  const TestServer s("<think>hm</think>hello");
  const Json response = s.post("/v1/responses", R"({"input":"Hi","metadata":{"k":"v"},"instructions":"i"})").json();
  EXPECT_EQ(response["object"], "response") << response;
  EXPECT_EQ(response["status"], "completed");
  EXPECT_EQ(response["metadata"]["k"], "v");
  EXPECT_EQ(response["instructions"], "i");
  EXPECT_EQ(response["text"]["format"]["type"], "text");
  EXPECT_EQ(without_ids(response["output"]), Json::parse(R"([
      {"type":"reasoning","id":"ID","status":"completed","summary":[],
       "content":[{"type":"reasoning_text","text":"hm"}]},
      {"type":"message","id":"ID","status":"completed","role":"assistant",
       "content":[{"type":"output_text","text":"hello","annotations":[],"logprobs":[]}]}])"));
  EXPECT_EQ(response["usage"]["output_tokens"], 10);  // 7 letters, 2 markers, EOS
  EXPECT_GT(response["usage"]["output_tokens_details"]["reasoning_tokens"], 0);
}

TEST(Responses, EventsBuildTheSameResponse) {
  for (const std::string answer : {"<think>hm</think>hello", "", kTwoCalls}) {
    const TestServer s(answer, with_tool_parser("deepseek_v31"));
    const std::string body = std::string(R"({"input":"Hi",)") + kTools;
    const Json whole = s.post("/v1/responses", body + "}").json();
    const auto events = events_of(s.post("/v1/responses", body + R"(,"stream":true})"));
    ASSERT_GE(events.size(), 3u);
    EXPECT_EQ(events[0]["response"]["status"], "in_progress");
    const Json& last = events.back();
    EXPECT_EQ(last["type"], "response.completed");
    EXPECT_EQ(without_ids(last["response"]["output"]), without_ids(whole["output"])) << answer;
    EXPECT_EQ(last["response"]["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    std::map<size_t, std::string> texts;  // by item
    for (const Json& event : events) {
      if (event.contains("delta")) texts[event["output_index"]] += event["delta"].get<std::string>();
    }
    for (const auto& [index, text] : texts) {
      const Json& item = whole["output"][index];
      EXPECT_EQ(text, item["type"] == "function_call" ? item["arguments"] : item["content"][0]["text"]);
    }
  }
}

TEST(Responses, EventsComeInOrder) {
  const TestServer s("<think>hm</think>hello");
  EXPECT_EQ(
      types_of(events_of(s.post("/v1/responses", R"({"input":"Hi","stream":true})"))),
      (std::vector<std::string>{"created", "in_progress", "output_item.added", "content_part.added",
                                "reasoning_text.delta", "reasoning_text.done", "content_part.done", "output_item.done",
                                "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
                                "content_part.done", "output_item.done", "completed"}));
}

TEST(Responses, FunctionCallsAreItems) {
  const TestServer s(kTwoCalls, with_tool_parser("deepseek_v31"));
  const Json response = s.post("/v1/responses", std::string(R"({"input":"Hi",)") + kTools + "}").json();
  EXPECT_EQ(without_ids(response["output"]), Json::parse(R"([
      {"type":"function_call","id":"ID","call_id":"ID","name":"look","arguments":"{\"q\":1}","status":"completed"},
      {"type":"function_call","id":"ID","call_id":"ID","name":"look","arguments":"{\"q\":2}","status":"completed"}])"));
  EXPECT_NE(response["output"][0]["call_id"], response["output"][1]["call_id"]);
  const auto events = events_of(s.post("/v1/responses", std::string(R"({"input":"Hi","stream":true,)") + kTools + "}"));
  EXPECT_EQ(types_of(events),
            (std::vector<std::string>{"created", "in_progress", "output_item.added", "function_call_arguments.delta",
                                      "function_call_arguments.done", "output_item.done", "output_item.added",
                                      "function_call_arguments.delta", "function_call_arguments.done",
                                      "output_item.done", "completed"}));
}

TEST(Responses, ACutCallIsGivenBackAsText) {
  const TestServer s(std::string(kTwoCalls).substr(0, std::string(kTwoCalls).find("}")),
                     with_tool_parser("deepseek_v31"));
  const std::string body = std::string(R"({"input":"Hi",)") + kTools;
  const Json output = s.post("/v1/responses", body + "}").json()["output"];
  ASSERT_EQ(output.size(), 1u) << output;
  EXPECT_NE(output[0]["content"][0]["text"].get<std::string>().find("{\"q\":1"), std::string::npos) << output;
  const Json streamed = events_of(s.post("/v1/responses", body + R"(,"stream":true})")).back()["response"]["output"];
  EXPECT_EQ(streamed.back()["content"][0]["text"], output[0]["content"][0]["text"]);
  for (size_t i = 0; i + 1 < streamed.size(); ++i) EXPECT_EQ(streamed[i]["status"], "incomplete");  // was announced
}

// Its arguments are no JSON, which templates that show them as an object refuse; its text follows as a message.
TEST(Responses, ACutCallIsNoCallOfTheConversation) {
  const Json items = Json::parse(R"([
      {"type":"function_call","call_id":"1","name":"look","arguments":"{\"q\":","status":"incomplete"},
      {"type":"message","role":"assistant","content":[{"type":"output_text","text":"look{\"q\":"}]}])");
  EXPECT_EQ(messages_of_items(items).value(), Json::parse(R"([{"role":"assistant","content":"look{\"q\":"}])"));
  const TestServer s(std::string(kTwoCalls).substr(0, std::string(kTwoCalls).find("}")),
                     with_tool_parser("deepseek_v31"));
  const std::string body = std::string(R"({"input":"Hi",)") + kTools;
  const Json last = events_of(s.post("/v1/responses", body + R"(,"stream":true})")).back();
  const std::string id = last["response"]["id"];
  ASSERT_EQ(s.post("/v1/responses", R"({"input":"more","previous_response_id":")" + id + "\"}").status, 200);
  EXPECT_EQ(test_tokenizer()->decode(s.engine->seen().back().prompt_ids, true),
            "[user]Hi[assistant]" + last["response"]["output"].back()["content"][0]["text"].get<std::string>() +
                "[user]more[assistant]");
}

TEST(Responses, EndAtTheLimitIsIncomplete) {
  const TestServer s("hello");
  const Json whole = s.post("/v1/responses", R"({"input":"Hi","max_output_tokens":2})").json();
  EXPECT_EQ(whole["status"], "incomplete");
  EXPECT_EQ(whole["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(whole["output"][0]["status"], "incomplete");
  const auto events = events_of(s.post("/v1/responses", R"({"input":"Hi","max_output_tokens":2,"stream":true})"));
  EXPECT_EQ(events.back()["type"], "response.incomplete");
}

TEST(Responses, LogprobsAreThoseOfTheText) {
  const TestServer s("<think>hm</think>hello");
  const Json output = s.post("/v1/responses", R"({"input":"Hi","top_logprobs":2})").json()["output"];
  const Json& logprobs = output[1]["content"][0]["logprobs"];
  ASSERT_GE(logprobs.size(), 5u) << output;
  std::string text;
  for (const Json& entry : logprobs) text += entry["token"].get<std::string>();
  EXPECT_NE(text.find("hello"), std::string::npos);
  EXPECT_EQ(text.find("hm"), std::string::npos);
  EXPECT_EQ(logprobs[0]["top_logprobs"].size(), 2u);
  ServerOptions options;
  options.return_tokens_as_token_ids = true;
  const TestServer with_ids("A", options);
  const Json message = with_ids.post("/v1/responses", R"({"input":"Hi","top_logprobs":1})").json()["output"][0];
  EXPECT_EQ(message["content"][0]["logprobs"][0]["token"], "token_id:65") << message;
}

TEST(Responses, ErrorsArePlainBeforeAndEventsAfterTheFirstToken) {
  const TestServer s("abc");
  expect_error(s.post("/v1/responses", R"({"input":"Hi","model":"zebra","stream":true})"), 404, "zebra");
  expect_error(s.post("/v1/responses", R"({"input":"Hi","temperature":-1})"), 400, "temperature");
  expect_error(s.post("/v1/responses", R"({"input":"Hi","previous_response_id":"resp_0"})"), 404, "resp_0");
  s.engine->hold();
  TestClient streaming(s.port());
  streaming.send(http_request("POST", "/v1/responses", R"({"input":"Hi","stream":true})"));
  ASSERT_TRUE(s.engine->wait_running(1));
  s.engine->step();
  s.engine->fail_next_step("rank 1 is lost");
  s.engine->step();
  const Json last = events_of(streaming.read_reply()).back();
  EXPECT_EQ(last["type"], "response.failed");
  EXPECT_EQ(last["response"]["status"], "failed");
  EXPECT_EQ(last["response"]["error"]["message"], "rank 1 is lost");
}

TEST(Responses, ConversationsGoOnFromStoredOnes) {
  const TestServer s("pong");
  const Json first = s.post("/v1/responses", R"({"input":"ping","instructions":"old"})").json();
  const std::string id = first["id"];
  EXPECT_EQ(s.get("/v1/responses/" + id).json(), first);
  const Json second =
      s.post("/v1/responses", R"({"input":"more","instructions":"new","previous_response_id":")" + id + "\"}").json();
  EXPECT_EQ(second["previous_response_id"], id);
  const std::string expected = "[system]new[user]ping[assistant]pong[user]more[assistant]";
  const auto prompt = s.engine->seen().back().prompt_ids;
  EXPECT_EQ(test_tokenizer()->decode(prompt, true), expected);
  expect_error(s.post("/v1/responses/" + id + "/cancel", ""), 400, "background");
  EXPECT_EQ(http_call(s.port(), "DELETE", "/v1/responses/" + id).json()["deleted"], true);
  for (const char* method : {"GET", "DELETE"})
    expect_error(http_call(s.port(), method, "/v1/responses/" + id), 404, id);
  expect_error(s.post("/v1/responses/" + id + "/cancel", ""), 404, id);
  expect_error(s.post("/v1/responses/" + id, ""), 404, "Not Found");
  const std::string unstored = s.post("/v1/responses", R"({"input":"ping","store":false})").json()["id"];
  expect_error(s.get("/v1/responses/" + unstored), 404, unstored);
}

TEST(ResponsesStore, ForgetsTheOldestByNumberAndBySize) {
  const auto response = [](size_t size) { return StoredResponse{std::string(size, 'x'), nullptr}; };
  ResponsesStore few(2, 1000);
  for (const char* id : {"a", "b", "c"}) few.put(id, response(1));
  EXPECT_EQ(few.find("a"), nullptr);
  EXPECT_NE(few.find("b"), nullptr);
  EXPECT_TRUE(few.erase("b"));
  EXPECT_FALSE(few.erase("b"));
  few.put("d", response(1));
  EXPECT_NE(few.find("c"), nullptr);
  ResponsesStore small(100, 1000);
  small.put("a", response(400));
  small.put("b", response(400));
  small.put("c", response(400));
  EXPECT_EQ(small.find("a"), nullptr);
  EXPECT_NE(small.find("c"), nullptr);
  small.put("d", response(2000));
  EXPECT_EQ(small.find("d"), nullptr);
  EXPECT_NE(small.find("c"), nullptr);
}

}  // namespace
}  // namespace hadal
