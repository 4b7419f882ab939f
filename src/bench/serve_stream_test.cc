#include "bench/serve_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hadal {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

const HttpTime kSent = HttpTime{} + std::chrono::hours(1);

struct TimedBytes {
  int at_ms;
  std::string bytes;
};

std::string event(const std::string& json) { return "data: " + json + "\n\n"; }
std::string token(const std::string& text) { return event(R"({"choices":[{"index":0,"text":")" + text + R"("}]})"); }
std::string chat(const std::string& delta) { return event(R"({"choices":[{"index":0,"delta":)" + delta + "}]}"); }
const std::string kUsage = event(R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}})");
const std::string kDone = "data: [DONE]\n\n";

ServeRecord read(const std::vector<TimedBytes>& pieces, ServeRoute route = ServeRoute::kCompletions, int status = 200,
                 Status end = {}) {
  ServeStreamReader reader(route, kSent);
  reader.head({.status = status, .reason = "Words"});
  for (const auto& [at_ms, bytes] : pieces) reader.body(bytes, kSent + milliseconds(at_ms));
  ServeRecord record;
  reader.finish(end, record);
  return record;
}

TEST(ServeStream, OnlyChunksWithChoicesCountForTime) {
  const ServeRecord record = read({{100, token("a")},
                                   {130, token("")},
                                   {150, token("b") + token("c")},
                                   {180, event(R"({"choices":[]})")},
                                   {900, kUsage + kDone}});
  EXPECT_TRUE(record.success) << record.error;
  EXPECT_EQ(record.text, "abc");
  EXPECT_DOUBLE_EQ(record.ttft_s, 0.1);
  EXPECT_DOUBLE_EQ(record.latency_s, 0.15);
  ASSERT_EQ(record.itl_s.size(), 3u);
  EXPECT_DOUBLE_EQ(record.itl_s[0], 0.03);
  EXPECT_DOUBLE_EQ(record.itl_s[1], 0.02);
  EXPECT_DOUBLE_EQ(record.itl_s[2], 0);
  EXPECT_EQ(record.num_output_tokens, 3);
  EXPECT_EQ(record.num_server_prompt_tokens, 7);
}

TEST(ServeStream, UsageInsideAChunkWithChoicesIsIgnored) {
  const ServeRecord record =
      read({{1, event(R"({"choices":[{"text":"a"}],"usage":{"completion_tokens":9}})")}, {2, kDone}});
  EXPECT_TRUE(record.success);
  EXPECT_EQ(record.num_output_tokens, 0);
  EXPECT_FALSE(record.num_server_prompt_tokens);
}

TEST(ServeStream, AChatsRoleChunkIsTheFirstTokenAndItsUsageChunkEndsIt) {
  const ServeRecord record = read({{10, chat(R"({"role":"assistant","content":""})")},
                                   {20, chat(R"({"reasoning_content":"hm","reasoning":"hm"})")},
                                   {25, chat(R"({"reasoning":"m"})")},
                                   {30, chat(R"({"content":"yes"})")},
                                   {50, kUsage}},
                                  ServeRoute::kChat);
  EXPECT_TRUE(record.success);
  EXPECT_EQ(record.reasoning + "|" + record.text, "hmm|yes");
  EXPECT_DOUBLE_EQ(record.ttft_s, 0.01);
  EXPECT_EQ(record.itl_s.size(), 3u);
  EXPECT_DOUBLE_EQ(record.latency_s, 0.05);
}

TEST(ServeStream, WhatFailsARequest) {
  const auto fails = [](const ServeRecord& record, const char* message) {
    EXPECT_FALSE(record.success) << message;
    EXPECT_THAT(record.error, HasSubstr(message));
  };
  fails(read({{1, R"({"error":{"message":"too long"}})"}}, ServeRoute::kCompletions, 400), "400 too long");
  fails(read({{1, "<html>"}}, ServeRoute::kCompletions, 502), "502 Words");
  fails(read({{1, kUsage + kDone}}), "the answer has no choices");
  fails(read({}), "the answer has no choices");
  fails(read({{1, token("a")}, {2, event(R"({"error":{"message":"engine died"}})")}, {3, kDone}}), "engine died");
  fails(read({{1, token("a")}, {2, "data: nonsense\n\n"}}), "no JSON object");
  fails(read({{1, token("a")}}, ServeRoute::kCompletions, 200, make_error(ErrorCode::kCorrupt, "cut")), "cut");
  const ServeRecord cut =
      read({{5, token("a")}}, ServeRoute::kCompletions, 200, make_error(ErrorCode::kCorrupt, "cut"));
  EXPECT_DOUBLE_EQ(cut.ttft_s, 0.005);
}

}  // namespace
}  // namespace hadal
