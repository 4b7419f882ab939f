#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"
#include "support/test_files.h"
#include "text/reasoning_parser.h"
#include "text/stop_matcher.h"

namespace hadal {
namespace {

struct StopOutcome {
  std::string text;
  std::string which;
  bool operator==(const StopOutcome&) const = default;
};

// The definition: the first position where a stop string is complete; of those, the longest.
StopOutcome match_naively(const std::string& text, const std::vector<std::string>& stops, bool include_stop) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string* longest = nullptr;
    for (const std::string& stop : stops) {
      if (stop.empty() || !std::string_view(text).substr(0, end).ends_with(stop)) continue;
      if (!longest || stop.size() > longest->size()) longest = &stop;
    }
    if (longest) return {text.substr(0, include_stop ? end : end - longest->size()), *longest};
  }
  return {text, ""};
}

TEST(StopMatcher, AgreesWithItsDefinitionHoweverTheTextIsCut) {
  std::mt19937 random(7);
  const auto random_text = [&](size_t max_size) {
    std::string text(random() % (max_size + 1), 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  int num_stopped = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) stop = random_text(5);
    const std::string text = random_text(30);
    const bool include_stop = random() % 2;
    StopMatcher matcher(stops, include_stop);
    StopOutcome got;
    for (size_t pos = 0; pos < text.size();) {
      const size_t length = 1 + random() % 6;
      const StopMatcher::Result result = matcher.push(std::string_view(text).substr(pos, length));
      got.text += result.emit;
      if (result.stopped) got.which = result.which;
      pos += length;
    }
    got.text += matcher.flush();
    EXPECT_EQ(got, match_naively(text, stops, include_stop)) << text << " " << testing::PrintToString(stops);
    num_stopped += !got.which.empty();
  }
  EXPECT_GT(num_stopped, 1000);
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"</s>", "\n\nUser"});
  EXPECT_EQ(matcher.push("hello").emit, "hello");
  EXPECT_EQ(matcher.push(" <").emit, " ");
  EXPECT_EQ(matcher.push("/b").emit, "</b");
  EXPECT_EQ(matcher.push("x\n\n\nUs").emit, "x\n");
  const auto result = matcher.push("er: more");
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.emit, "");
  EXPECT_EQ(result.which, "\n\nUser");
  EXPECT_EQ(matcher.push("ignored").emit, "");
}

ReasoningDelta parse_in_pieces(const std::vector<std::string_view>& pieces, std::string_view prompt,
                               const ReasoningOptions& options) {
  ReasoningParser parser(prompt, options);
  ReasoningDelta sum;
  const auto add = [&](const ReasoningDelta& delta) {
    sum.reasoning += delta.reasoning;
    sum.content += delta.content;
  };
  for (const std::string_view piece : pieces) add(parser.push(piece));
  add(parser.flush());
  return sum;
}

void expect_same_for_all_cuts(const std::string& answer, std::string_view prompt, const ReasoningOptions& options,
                              const ReasoningDelta& expected) {
  const std::string_view text = answer;
  for (size_t a = 0; a <= text.size(); ++a) {
    for (size_t b = a; b <= text.size(); ++b) {
      const ReasoningDelta got =
          parse_in_pieces({text.substr(0, a), text.substr(a, b - a), text.substr(b)}, prompt, options);
      ASSERT_EQ(got.reasoning, expected.reasoning) << answer << " cut at " << a << ", " << b;
      ASSERT_EQ(got.content, expected.content) << answer << " cut at " << a << ", " << b;
    }
  }
}

TEST(ReasoningParser, AgreesWithGoldenCasesForEveryCut) {
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_parsers.json");
  int num_cases = 0;
  const Json golden = load_json(path);
  for (const Json& row : golden["cases"]) {
    if (row["kind"] != "reasoning") continue;
    const auto mode = reasoning_mode(row["parser"].get<std::string>(), row["starts_in_reasoning"]);
    ASSERT_TRUE(mode.has_value()) << mode.error().message;
    const ReasoningDelta expected = {row["reasoning"], row["content"].is_null() ? "" : row["content"]};
    expect_same_for_all_cuts(row["output"], "<｜Assistant｜>", {.mode = *mode}, expected);
    ++num_cases;
  }
  EXPECT_EQ(num_cases, 12);
}

TEST(ReasoningParser, FollowsTheEndOfThePrompt) {
  const ReasoningOptions automatic = {.mode = ReasoningMode::kAuto};
  const ReasoningOptions r1 = {.mode = ReasoningMode::kDeepSeekR1};
  const std::string_view open = "<｜Assistant｜><think>\n", closed = "<｜Assistant｜></think>",
                         bare = "<｜Assistant｜>";
  expect_same_for_all_cuts("a</think>b", open, automatic, {"a", "b"});
  expect_same_for_all_cuts("<think>a</think>b", open, automatic, {"a", "b"});
  expect_same_for_all_cuts("a</think>b", closed, automatic, {"", "a</think>b"});
  expect_same_for_all_cuts("a</think>b", closed, r1, {"", "a</think>b"});
  expect_same_for_all_cuts("\n <think>a</think>b", bare, automatic, {"a", "b"});
  expect_same_for_all_cuts("\n <thin", bare, automatic, {"", "\n <thin"});
  expect_same_for_all_cuts("a <think>b</think>", bare, automatic, {"", "a <think>b</think>"});
  expect_same_for_all_cuts("a</think>b", bare, r1, {"a", "b"});
  expect_same_for_all_cuts("a</thi", open, automatic, {"a</thi", ""});
  expect_same_for_all_cuts("", open, automatic, {"", ""});
}

TEST(ReasoningParser, ToolSectionEndsReasoning) {
  const ReasoningOptions options = {.mode = ReasoningMode::kAuto, .ending_markers = {"<|calls|>"}};
  expect_same_for_all_cuts("why<|calls|>f", "<think>", options, {"why", "<|calls|>f"});
  expect_same_for_all_cuts("w<|ca</think>x<|calls|>", "<think>", options, {"w<|ca", "x<|calls|>"});
}

TEST(ReasoningParser, SaysWhetherThereWasReasoning) {
  ReasoningParser parser("<｜Assistant｜>", {.mode = ReasoningMode::kAuto});
  EXPECT_FALSE(parser.in_reasoning());
  parser.push("<think>x");
  EXPECT_TRUE(parser.in_reasoning());
  parser.push("</think>");
  EXPECT_FALSE(parser.in_reasoning());
  EXPECT_TRUE(parser.saw_reasoning());
}

TEST(ReasoningMode, UnknownNamesGetAHint) {
  const auto mode = reasoning_mode("deepseek-r1x", false);
  ASSERT_FALSE(mode.has_value());
  EXPECT_THAT(mode.error().message, testing::HasSubstr("deepseek_r1"));
}

}  // namespace
}  // namespace hadal
