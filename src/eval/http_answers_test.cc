#include "eval/http_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/testing/scripted_server.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

std::string ok(const std::string& body) {
  return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
}

constexpr const char* kModels = R"({"object":"list","data":[{"id":"m1","root":"/m"},{"id":"m2","root":"/m"}]})";

TEST(HttpAnswers, AsksTheCompletionsRouteWithoutBos) {
  ScriptedServer server({ok(kModels), ok(R"({"choices":[{"text":" #### 4","finish_reason":"length"}],
      "usage":{"prompt_tokens":7,"completion_tokens":3}})")});
  auto source = make_http_answers({.base_url = server.url + "/v1/completions"},
                                  {.max_gen_toks = 9, .stop = {"Q:"}, .add_bos_token = false});
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(dump_json((*source)->identity()), R"({"model":"m1","root":"/m"})");
  const auto answer = (*source)->answer({.text = "2+2="});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->text + "|" + answer->finish_reason, " #### 4|length");
  EXPECT_EQ(answer->num_prompt_tokens + answer->num_tokens, 10);
  EXPECT_THAT(server.requests.at(0), HasSubstr("GET /v1/models "));
  EXPECT_THAT(server.requests.at(1), HasSubstr("POST /v1/completions "));
  EXPECT_THAT(server.requests.at(1),
              ::testing::EndsWith(R"({"model":"m1","temperature":0,"max_tokens":9,"stop":["Q:"],)"
                                  R"("prompt":"2+2=","add_special_tokens":false})"));
}

TEST(HttpAnswers, TriesAgainWhenBusyAndPassesTheServersWordsOn) {
  ScriptedServer server({ok(kModels), "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
                         "HTTP/1.1 400 Bad\r\n\r\n{\"error\":{\"message\":\"prompt too long\"}}"});
  auto source = make_http_answers({.base_url = server.url + "/v1/", .model = "m2"}, {});
  ASSERT_TRUE(source) << source.error().message;
  const auto answer = (*source)->answer({.text = "x"});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(answer.error().message, HasSubstr("400 prompt too long"));
}

TEST(HttpAnswers, UnknownModelsAndWrongRoutesAreRefused) {
  ScriptedServer server({ok(kModels), ok("[]")});
  const auto unknown = make_http_answers({.base_url = server.url + "/v1", .model = "m3"}, {});
  EXPECT_THAT(unknown.error().message, HasSubstr("has no model 'm3'"));
  const auto none = make_http_answers({.base_url = server.url + "/v1"}, {});
  EXPECT_THAT(none.error().message, HasSubstr("no list of models"));
  EXPECT_THAT(make_http_answers({.base_url = "http://h/v1/completions", .chat = true}, {}).error().message,
              HasSubstr("--chat"));
  EXPECT_THAT(make_http_answers({.base_url = "http://h/v1/chat/completions"}, {}).error().message, HasSubstr("--chat"));
}

TEST(HttpAnswers, ChatAnswersAreSplit) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"choices":[{"message":{"content":"B","reasoning_content":"A"},"finish_reason":"stop"}]})", "A|B"},
      {R"({"choices":[{"message":{"content":"B","reasoning":"A"},"finish_reason":"stop"}]})", "A|B"},
      {R"({"choices":[{"message":{"content":"<think>A</think>B"}}]})", "A|B"},
      {R"({"choices":[{"message":{"content":"A</think>B"}}]})", "A|B"},
      {R"({"choices":[{"message":{"content":null,"reasoning_content":"A"}}]})", "A|"},
  };
  for (const auto& [body, expected] : cases) {
    const auto answer = parse_completion(body, true);
    ASSERT_TRUE(answer) << body;
    EXPECT_EQ(answer->reasoning + "|" + answer->text, expected);
  }
}

TEST(HttpAnswers, BrokenBodiesAreErrors) {
  for (const char* body : {"", "[]", "{}", R"({"choices":[]})", R"({"choices":[3]})", R"({"choices":[{"text":1}]})",
                           R"({"choices":{"text":"x"}})"}) {
    EXPECT_EQ(parse_completion(body, false).error().code, ErrorCode::kCorrupt) << body;
    EXPECT_EQ(parse_completion(body, true).error().code, ErrorCode::kCorrupt) << body;
  }
}

}  // namespace
}  // namespace hadal
