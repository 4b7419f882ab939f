// Tool calls and structured output as clients of /v1/chat/completions read them, streamed and not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/server.h"
#include "server/server_test_support.h"

namespace hadal {
namespace {

using testing::HasSubstr;

const std::string kBegin = "<｜tool▁calls▁begin｜>", kEnd = "<｜tool▁calls▁end｜>", kCall = "<｜tool▁call▁begin｜>",
                  kSep = "<｜tool▁sep｜>", kCallEnd = "<｜tool▁call▁end｜>";
const std::string kHello = R"("messages":[{"role":"user","content":"Hi"}],"max_tokens":400)";
const std::string kTools =
    R"(,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":)"
    R"({"x":{"type":"integer"}},"required":["x"],"additionalProperties":false}}},)"
    R"({"type":"function","function":{"name":"g"}}])";

std::string call(const std::string& name, const std::string& arguments) {
  return kCall + name + kSep + arguments + kCallEnd;
}

// What a streaming client joins: the deltas of choice 0, as the official libraries do it.
struct Joined {
  std::string content;
  std::string reasoning;
  Json calls = Json::array();
  std::vector<std::string> finish_reasons;
};

Joined join(const std::vector<std::string>& events) {
  Joined joined;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const Json chunk = parse_json(event).value();
    if (chunk["choices"].empty()) continue;
    const Json choice = chunk["choices"][0];
    const Json& delta = choice["delta"];
    joined.content += delta.value("content", "");
    joined.reasoning += delta.value("reasoning", "");
    for (const Json& piece : delta.value("tool_calls", Json::array())) {
      const size_t index = piece["index"];
      if (index == joined.calls.size()) {
        EXPECT_EQ(piece["type"], "function");
        EXPECT_EQ(piece["function"]["arguments"], "");
        joined.calls.push_back({{"id", piece["id"]},
                                {"type", "function"},
                                {"function", {{"name", piece["function"]["name"]}, {"arguments", ""}}}});
      } else {
        EXPECT_FALSE(piece.contains("id"));
        EXPECT_FALSE(piece["function"].contains("name"));
      }
      Json& arguments = joined.calls[index]["function"]["arguments"];
      arguments = arguments.get<std::string>() + piece["function"]["arguments"].get<std::string>();
    }
    if (!choice["finish_reason"].is_null()) joined.finish_reasons.push_back(choice["finish_reason"]);
  }
  return joined;
}

Json without_ids(Json calls) {
  for (Json& one : calls) one.erase("id");
  return calls;
}

Json expected_call(const std::string& name, const std::string& arguments) {
  return {{"type", "function"}, {"function", {{"name", name}, {"arguments", arguments}}}};
}

struct ToolCase {
  std::string answer;
  std::string fields;  // of the request, beside messages and tools
  Json content;
  std::vector<std::pair<std::string, std::string>> calls;
  std::string finish_reason;
};

void check(const ToolCase& one, const std::string& parser) {
  for (const int tokens_per_step : {1, 7, 1000}) {
    const TestServer s(one.answer, with_tool_parser(parser));
    s.engine->set_tokens_per_step(tokens_per_step);
    const std::string body = kHello + kTools + one.fields;
    const Json choice = s.post("/v1/chat/completions", "{" + body + "}").json()["choices"][0];
    Json calls = Json::array();
    for (const auto& [name, arguments] : one.calls) calls.push_back(expected_call(name, arguments));
    EXPECT_EQ(choice["finish_reason"], one.finish_reason) << one.answer;
    EXPECT_EQ(choice["message"]["content"], one.content) << one.answer;
    EXPECT_EQ(choice["message"].contains("tool_calls"), !one.calls.empty()) << one.answer;
    EXPECT_EQ(without_ids(choice["message"].value("tool_calls", Json::array())), calls) << one.answer;
    const Joined streamed = join(s.post("/v1/chat/completions", "{" + body + R"(,"stream":true})").events());
    EXPECT_EQ(streamed.finish_reasons, std::vector<std::string>{one.finish_reason}) << one.answer;
    if (one.content.is_null() || streamed.calls.size() == one.calls.size()) {
      EXPECT_EQ(without_ids(streamed.calls), calls) << one.answer;
      EXPECT_EQ(streamed.content, one.content.is_null() ? "" : one.content.get<std::string>()) << one.answer;
    }
  }
}

TEST(ToolAnswers, AutoWithDeepSeek) {
  check({"just text", "", "just text", {}, "stop"}, "deepseek_v31");
  check({kBegin + call("f", R"({"x": 1})") + kEnd, "", nullptr, {{"f", R"({"x": 1})"}}, "tool_calls"}, "deepseek_v31");
  check({"Look: " + kBegin + call("f", "{\"x\":\n1}") + call("h", "{}") + kEnd + "bye",
         R"(,"tool_choice":"auto")",
         "Look: ",
         {{"f", "{\"x\":\n1}"}, {"h", "{}"}},
         "tool_calls"},
        "deepseek_v31");
  check({kBegin + call("f", "{}") + call("g", "{}") + kEnd,
         R"(,"parallel_tool_calls":false)",
         nullptr,
         {{"f", "{}"}},
         "tool_calls"},
        "deepseek_v31");
  check({"a" + kBegin + kCall + "function" + kSep + "f\n```json\n{\"x\": 1}\n```" + kCallEnd + kEnd,
         "",
         "a",
         {{"f", "{\"x\": 1}"}},
         "tool_calls"},
        "deepseek_v3");
}

TEST(ToolAnswers, WhatIsNoCallComesBackAsText) {
  const std::string broken = kBegin + call("f", R"({"x": )");
  check({"a" + broken, "", "a" + broken, {}, "stop"}, "deepseek_v31");
  check({kBegin + "x", "", kBegin + "x", {}, "stop"}, "deepseek_v31");
  // Cut by length, inside the second call.
  const std::string cut = kBegin + call("f", R"({"x":1})") + kCall + "g" + kSep + "{\"y";
  check({cut + "zzzz",
         fmt::format(R"(,"max_completion_tokens":{})", cut.size()),
         kCall + "g" + kSep + "{\"y",
         {{"f", R"({"x":1})"}},
         "length"},
        "deepseek_v31");
  // Inside a header, and behind the last call.
  const std::string header = kBegin + call("f", "{}") + kCall + "g";
  check({header + "zzzz",
         fmt::format(R"(,"max_completion_tokens":{})", header.size()),
         kCall + "g",
         {{"f", "{}"}},
         "length"},
        "deepseek_v31");
  const std::string whole = kBegin + call("f", "{}") + "  ";
  check({whole + "zzzz",
         fmt::format(R"(,"max_completion_tokens":{})", whole.size()),
         nullptr,
         {{"f", "{}"}},
         "tool_calls"},
        "deepseek_v31");
}

TEST(ToolAnswers, NoneLeavesTheText) {
  const std::string answer = kBegin + call("f", "{}") + kEnd;
  check({answer, R"(,"tool_choice":"none")", answer, {}, "stop"}, "deepseek_v31");
  const auto prompt = [](ServerOptions options, const std::string& choice) {
    const TestServer s("x", std::move(options));
    s.post("/v1/chat/completions", "{" + kHello + kTools + choice + "}");
    return test_tokenizer()->decode(s.engine->seen().at(0).prompt_ids, false);
  };
  ServerOptions excluding = with_tool_parser("deepseek_v31");
  EXPECT_THAT(prompt(excluding, R"(,"tool_choice":"none")"), HasSubstr("[tools]"));
  excluding.exclude_tools_when_tool_choice_none = true;
  EXPECT_THAT(prompt(excluding, R"(,"tool_choice":"none")"), Not(HasSubstr("[tools]")));
  EXPECT_THAT(prompt(excluding, ""), HasSubstr("[tools]"));
}

TEST(ToolAnswers, KimiIdsAreVerbatim) {
  const std::string answer =
      "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:7<|tool_call_argument_begin|>{}<|tool_call_end|>";
  const TestServer s(answer, with_tool_parser("kimi_k2"));
  const std::string body = kHello + kTools;
  const Json message = s.post("/v1/chat/completions", "{" + body + "}").json()["choices"][0]["message"];
  EXPECT_EQ(message["tool_calls"][0]["id"], "functions.f:7");
  EXPECT_EQ(join(s.post("/v1/chat/completions", "{" + body + R"(,"stream":true})").events()).calls,
            message["tool_calls"]);
}

TEST(ToolAnswers, ReasoningThenCalls) {
  check({"<think>hm</think>" + kBegin + call("f", "{}") + kEnd, "", nullptr, {{"f", "{}"}}, "tool_calls"},
        "deepseek_v31");
  const TestServer s("hm" + kBegin + call("f", "{}"), with_tool_parser("deepseek_v31"));
  const Json message =
      s.post("/v1/chat/completions", "{" + kHello + kTools + R"(,"chat_template_kwargs":{"thinking":true}})")
          .json()["choices"][0]["message"];
  EXPECT_EQ(message["reasoning"], "hm");
  EXPECT_TRUE(message["content"].is_null());
  EXPECT_EQ(message["tool_calls"][0]["function"]["name"], "f");
}

TEST(ToolAnswers, NamedToolGetsTheArgumentsItMust) {
  // The engine wishes for the script; what the grammar forbids is replaced.
  check({R"({"x":12} and so on)",
         R"(,"tool_choice":{"type":"function","function":{"name":"f"}})",
         "",
         {{"f", R"({"x":12})"}},
         "stop"},
        "deepseek_v31");
  // Without an auto parser too.
  check({R"({"x":12})",
         R"(,"tool_choice":{"type":"function","function":{"name":"f"}})",
         "",
         {{"f", R"({"x":12})"}},
         "stop"},
        "none");
}

TEST(ToolAnswers, RequiredToolsAreCalled) {
  check({R"([{"name":"g","parameters":{"any":[1]}},{"name":"f","parameters":{"x":3}}] etc)",
         R"(,"tool_choice":"required")",
         nullptr,
         {{"g", R"({"any":[1]})"}, {"f", R"({"x":3})"}},
         "tool_calls"},
        "deepseek_v31");
}

TEST(ToolAnswers, ErrorsOfTheRequest) {
  const TestServer none("x");  // the model has no tool language
  const auto post = [](const TestServer& s, const std::string& fields) {
    return s.post("/v1/chat/completions", "{" + kHello + fields + "}");
  };
  expect_error(post(none, kTools), 400, "--enable-auto-tool-choice");
  expect_error(post(none, kTools), 400, "--tool-call-parser");
  EXPECT_EQ(post(none, kTools + R"(,"tool_choice":"none")").status, 200);
  EXPECT_EQ(post(none, R"(,"tools":[])").status, 200);
  ServerOptions off = with_tool_parser("deepseek_v31");
  off.enable_auto_tool_choice = false;
  expect_error(post(TestServer("x", off), kTools), 400, "--enable-auto-tool-choice");
  const TestServer s("x", with_tool_parser("deepseek_v31"));
  expect_error(post(s, kTools + R"(,"tool_choice":{"type":"function","function":{"name":"nope"}})"), 400,
               "does not match any of the specified");
  expect_error(post(s, R"(,"tool_choice":"required")"), 400, "`tools` must be set");
  expect_error(post(s, kTools + R"(,"tool_choice":"required","guided_regex":"a")"), 400,
               "You can only use one kind of guided decoding");
  expect_error(post(s, R"(,"guided_regex":"(")"), 400, "guided_regex");
  expect_error(post(s, R"(,"guided_json":{"type":"object","properties":{"a":{"type":"strin"}}},"stream":true)"), 400,
               "guided_json");
  expect_error(s.post("/v1/completions", R"({"prompt":"a","guided_grammar":"root ::= ("})"), 400, "guided_grammar");
  EXPECT_EQ(s.engine->seen().size(), 0u);
}

TEST(ToolAnswers, UnknownParserIsRefusedAtTheStart) {
  const auto started = Server::start({.port = 0, .served_model_names = {"m"}, .tool_call_parser = "deepseek_v32"});
  ASSERT_FALSE(started.has_value());
  EXPECT_THAT(started.error().message, HasSubstr("did you mean \"deepseek_v3"));
}

TEST(StructuredAnswers, KindsAndSpellings) {
  const struct {
    const char* fields;
    const char* wish;
    const char* expected;
  } kCases[] = {
      {R"("guided_choice":["yes","no"])", "nope", "no"},
      {R"("structured_outputs":{"choice":["yes","no"]})", "yep", "yes"},
      {R"("guided_regex":"[a-c]{3}[0-9]")", "abc7xyz", "abc7"},
      {R"("structured_outputs":{"regex":"ab+"})", "abb", "abb"},
      {R"~("guided_grammar":"root ::= \"a\" (\"b\" | \"c\")")~", "acid", "ac"},
      {R"("structured_outputs":{"grammar":"root ::= \"x\""})", "yyy", "x"},
      {R"("guided_json":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],)"
       R"("additionalProperties":false})",
       R"({"a":5} or so)", R"({"a":5})"},
      {R"("guided_json":"{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"maxItems\":1}")", "[true,false]",
       "[true]"},
      {R"("response_format":{"type":"json_object"})", R"({"k":[1]}})", R"({"k":[1]})"},
      {R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"const":7}}})", "78", "7"},
      {R"("structured_outputs":{"json_object":true})", "{}x", "{}"},
      {R"("response_format":{"type":"text"})", "free", "free"},
  };
  for (const auto& one : kCases) {
    const TestServer s(one.wish);
    const std::string fields = one.fields;
    Json reply = s.post("/v1/completions", R"({"prompt":"p","max_tokens":60,)" + fields + "}").json();
    ASSERT_TRUE(reply.contains("choices")) << reply;
    EXPECT_EQ(reply["choices"][0]["text"], one.expected) << fields;
    EXPECT_EQ(reply["choices"][0]["finish_reason"], "stop") << fields;
    EXPECT_TRUE(reply["choices"][0]["stop_reason"].is_null()) << fields;
    reply = s.post("/v1/chat/completions", "{" + kHello + "," + fields + "}").json();
    EXPECT_EQ(reply["choices"][0]["message"]["content"], one.expected) << fields;
    const auto streamed =
        join(s.post("/v1/chat/completions", "{" + kHello + R"(,"stream":true,)" + fields + "}").events());
    EXPECT_EQ(streamed.content, one.expected) << fields;
  }
}

TEST(StructuredAnswers, EachChoiceHasItsOwnState) {
  const TestServer s([](const Request& r) { return test_ids(r.sample_idx == 0 ? "yes" : "no"); });
  const Json choices =
      s.post("/v1/completions", R"({"prompt":["a","b"],"n":2,"guided_choice":["yes","no"]})").json()["choices"];
  std::vector<std::string> texts;
  for (const Json& choice : choices) texts.push_back(choice["text"]);
  EXPECT_EQ(texts, (std::vector<std::string>{"yes", "no", "yes", "no"}));
}

TEST(StructuredAnswers, BeginAfterReasoning) {
  const std::string format = R"(,"response_format":{"type":"json_object"})";
  {
    const TestServer s(R"(let me {see}</think>{"a":1})");
    const Json message = s.post("/v1/chat/completions", "{" + kHello + format + R"(,"reasoning_effort":"high"})")
                             .json()["choices"][0]["message"];
    EXPECT_EQ(message["reasoning"], "let me {see}");
    EXPECT_EQ(message["content"], R"({"a":1})");
  }
  {  // The model decides whether it thinks.
    const TestServer s(R"(<think>hm</think>{"a":1})");
    const Json message = s.post("/v1/chat/completions", "{" + kHello + format + "}").json()["choices"][0]["message"];
    EXPECT_EQ(message["reasoning"], "hm");
    EXPECT_EQ(message["content"], R"({"a":1})");
  }
}

TEST(StructuredAnswers, StrictToolInAutoHoldsArgumentsToItsSchema) {
  const std::string tools =
      R"(,"tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","properties":)"
      R"({"x":{"enum":[5]}},"required":["x"],"additionalProperties":false}}}])";
  const TestServer s("ok" + kBegin + kCall + "f" + kSep + R"({"x":6})" + kCallEnd + kEnd,
                     with_tool_parser("deepseek_v31"));
  const Json message = s.post("/v1/chat/completions", "{" + kHello + tools + "}").json()["choices"][0]["message"];
  EXPECT_EQ(message["content"], "ok");
  EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], R"({"x":5})");
}

}  // namespace
}  // namespace hadal
