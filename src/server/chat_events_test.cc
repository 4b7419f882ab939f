// One answer's text to reasoning, content and calls: golden transcripts and combinations, for every cut.
#include "server/chat_events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <regex>

#include "base/utf8.h"
#include "server/choice_text.h"
#include "server/server_test_support.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using Calls = ChatTextOptions::Calls;
using Kind = ChatEvent::Kind;

ChatTextOptions parsed(const std::string& tool_parser, const std::string& reasoning_parser = "auto") {
  return {.reasoning_parser = reasoning_parser, .tool_parser = tool_parser, .tool_names = {}, .calls = Calls::kParsed};
}

// One line per event, neighbours of one kind joined; made ids are ID.
std::string show(const std::vector<ChatEvent>& events) {
  static constexpr const char* kNames[] = {"think ", "text ", "call ", "args ", "end", "broken "};
  std::string shown;
  const ChatEvent* last = nullptr;
  for (const ChatEvent& event : events) {
    const bool joins = last && last->kind == event.kind && last->call_index == event.call_index &&
                       event.kind != Kind::kCallBegin && event.kind != Kind::kCallEnd;
    if (!joins) {
      shown += std::string(shown.empty() ? "" : "\n") + kNames[static_cast<int>(event.kind)];
      if (event.call_index >= 0) shown += fmt::format("{}:", event.call_index);
    }
    shown += event.text + event.call_name;
    if (event.kind == Kind::kCallBegin) shown += " " + event.call_id;
    last = &event;
  }
  return std::regex_replace(shown, std::regex("chatcmpl-tool-[0-9a-f]{32}"), "ID");
}

std::string split_pieces(const ChatTextOptions& options, std::string_view prompt,
                         const std::vector<std::string_view>& pieces) {
  auto splitter = ChatTextSplitter::make(options, prompt);
  if (!splitter) return splitter.error().message;
  std::vector<ChatEvent> events;
  const auto add = [&](std::vector<ChatEvent> more) {
    for (ChatEvent& event : more) events.push_back(std::move(event));
  };
  for (const std::string_view piece : pieces) add((*splitter)->push(piece));
  add((*splitter)->flush());
  return show(events);
}

std::vector<std::string_view> code_points(std::string_view text) {
  std::vector<std::string_view> pieces;
  while (!text.empty()) {
    const size_t size = std::max<size_t>(decode_utf8(text).num_bytes, 1);
    pieces.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return pieces;
}

std::vector<std::string_view> cut_randomly(std::string_view text, std::mt19937& random) {
  std::vector<std::string_view> pieces;
  const size_t longest = 1 + random() % 40;
  while (!text.empty()) {
    const size_t size = std::min<size_t>(text.size(), 1 + random() % longest);
    pieces.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return pieces;
}

// The events, after showing that all cuts give the same: each split point in bytes, single bytes, single code points,
// random pieces.
std::string split(const ChatTextOptions& options, std::string_view text, std::string_view prompt = "") {
  const std::string expected = split_pieces(options, prompt, {text});
  std::vector<std::string_view> bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    bytes.push_back(text.substr(i, 1));
    EXPECT_EQ(split_pieces(options, prompt, {text.substr(0, i), text.substr(i)}), expected) << text << " at " << i;
  }
  EXPECT_EQ(split_pieces(options, prompt, bytes), expected) << text;
  EXPECT_EQ(split_pieces(options, prompt, code_points(text)), expected) << text;
  std::mt19937 random(static_cast<uint32_t>(text.size()));
  for (int round = 0; round < 100; ++round) {
    EXPECT_EQ(split_pieces(options, prompt, cut_randomly(text, random)), expected) << text << " round " << round;
  }
  return expected;
}

// What the tool events of an output are without reasoning, as `show` prints them.
std::string of_row(const Json& row) {
  std::string shown;
  const auto line = [&](const std::string& text) { shown += (shown.empty() ? "" : "\n") + text; };
  const auto output = row["output"].get<std::string>();
  if (output.ends_with("{\"x\":")) {  // cut: the one call that is none
    return "call 0:foo ID\nargs 0:{\"x\":\nbroken 0:" + output;
  }
  if (!row["content"].is_null()) line("text " + row["content"].get<std::string>());
  int index = 0;
  for (const Json& call : row["tool_calls"]) {
    line(fmt::format("call {}:{} {}", index, call["name"].get<std::string>(), call.value("id", "ID")));
    line(fmt::format("args {}:{}", index, call["arguments"].get<std::string>()));
    line(fmt::format("end{}:", index++));
  }
  return shown;
}

TEST(ChatEvents, GoldenTranscriptsGiveTheSameEventsForEveryCut) {
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_parsers.json");
  const Json golden = load_json(path);
  int num_combined = 0;
  for (const Json& tools : golden["cases"]) {
    if (tools["kind"] != "tool_calls") continue;
    ChatTextOptions options = parsed(tools["parser"]);
    options.tool_names = {"my.tool"};
    const auto calls_text = tools["output"].get<std::string>();
    const std::string calls_shown = of_row(tools);
    EXPECT_EQ(split(options, calls_text), calls_shown);
    EXPECT_EQ(split(options, "why</think>" + calls_text, "<think>\n"), "think why\n" + calls_shown);
    // Every golden answer with reasoning that has come to its end, followed by every golden answer with calls.
    for (const Json& reasoning : golden["cases"]) {
      const auto output = reasoning["output"].get<std::string>();
      if (reasoning["kind"] != "reasoning" || !output.ends_with("</think>")) continue;
      const std::string thought = reasoning["reasoning"];
      options.reasoning_parser = reasoning["parser"];
      options.thinking = true;
      EXPECT_EQ(split(options, output + calls_text), "think " + thought + "\n" + calls_shown);
      ++num_combined;
    }
  }
  EXPECT_EQ(num_combined, 16);
  for (const Json& row : golden["cases"]) {
    if (row["kind"] != "reasoning") continue;
    ChatTextOptions options = parsed("", row["parser"]);
    options.thinking = row["starts_in_reasoning"];
    std::string expected;
    const auto thought = row["reasoning"].get<std::string>();
    if (!thought.empty()) expected = "think " + thought;
    if (!row["content"].is_null())
      expected += (expected.empty() ? "text " : "\ntext ") + row["content"].get<std::string>();
    EXPECT_EQ(split(options, row["output"].get<std::string>()), expected);
  }
}

TEST(ChatEvents, ToolSectionEndsUnfinishedReasoning) {
  const std::string call = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>";
  EXPECT_EQ(split(parsed("deepseek_v31"), "why 为什么" + call, "<think>"),
            "think why 为什么\ncall 0:f ID\nargs 0:{}\nend0:");
  // Not when calls are not parsed.
  EXPECT_EQ(split(parsed(""), "why" + call, "<think>"), "think why" + call);
}

TEST(ChatEvents, PromptTailDecidesWhereTheAnswerBegins) {
  EXPECT_EQ(split(parsed(""), "a</think>b", "<｜Assistant｜><think>\n"), "think a\ntext b");
  EXPECT_EQ(split(parsed(""), "a</think>b", "<｜Assistant｜></think>"), "text a</think>b");
  EXPECT_EQ(split(parsed(""), "<think>a</think>b", "<｜Assistant｜>"), "think a\ntext b");
}

TEST(ChatEvents, NamedToolTakesTheContentAsArguments) {
  ChatTextOptions options = parsed("deepseek_v31");
  options.calls = Calls::kNamed;
  options.named_tool = "f";
  EXPECT_EQ(split(options, "{\"a\":\n1}"), "call 0:f ID\nargs 0:{\"a\":\n1}\nend0:");
  EXPECT_EQ(split(options, "why</think>\n {}\n", "<think>"), "think why\ncall 0:f ID\nargs 0:{}\nend0:");
  EXPECT_EQ(split(options, "{\"a\":"), "call 0:f ID\nargs 0:{\"a\":\nbroken 0:{\"a\":");
  EXPECT_EQ(split(options, ""), "");
  options.tool_parser = "kimi_k2";
  options.first_call_number = 3;
  EXPECT_EQ(split(options, "{}"), "call 0:f functions.f:3\nargs 0:{}\nend0:");
}

TEST(ChatEvents, RequiredToolsAreAList) {
  ChatTextOptions options = parsed("deepseek_v31");
  options.calls = Calls::kRequired;
  const std::string first = R"( [ {"name": "f", "parameters": {"a": "}]\"\\", "b": [{}]}} )";
  const std::string f = "call 0:f ID\nargs 0:{\"a\": \"}]\\\"\\\\\", \"b\": [{}]}\nend0:";
  EXPECT_EQ(split(options, first + "]"), f);
  EXPECT_EQ(split(options, "why</think>" + first + R"(,{"name":"g\u00e9","parameters":{}}])", "<think>"),
            "think why\n" + f + "\ncall 1:gé ID\nargs 1:{}\nend1:");
  // Cut, or something else.
  EXPECT_EQ(split(options, R"([{"name":"f","parameters":{"a")"), R"(call 0:f ID)"
                                                                 "\n"
                                                                 R"(args 0:{"a")"
                                                                 "\n"
                                                                 R"(broken 0:[{"name":"f","parameters":{"a")");
  EXPECT_EQ(split(options, R"([{"name":"f","par)"), R"(text [{"name":"f","par)");
  EXPECT_EQ(split(options, "hello"), "text hello");
  EXPECT_EQ(split(options, R"([{"name":"f","parameters":{}}, 5])"), "call 0:f ID\nargs 0:{}\nend0:\ntext  5]");
  EXPECT_EQ(split(options, R"([{"name":"f","parameters":{]}}])"), R"(call 0:f ID)"
                                                                  "\n"
                                                                  R"(args 0:{])"
                                                                  "\n"
                                                                  R"(broken 0:[{"name":"f","parameters":{])"
                                                                  "\ntext }}]");
  options.single_call = true;
  EXPECT_EQ(split(options, first + R"(,{"name":"g","parameters":{}}])"), f);
}

TEST(ChatEvents, SingleCallKeepsTheFirst) {
  ChatTextOptions options = parsed("kimi_k2");
  options.single_call = true;
  EXPECT_EQ(split(options,
                  "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}"
                  "<|tool_call_end|><|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
                  "<|tool_calls_section_end|>"),
            "call 0:f functions.f:0\nargs 0:{}\nend0:");
}

TEST(ChatEvents, IdsAreUnique) {
  auto splitter = ChatTextSplitter::make(parsed("deepseek_v31"), "").value();
  std::string calls;
  for (int i = 0; i < 3; ++i) calls += "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>";
  std::vector<std::string> ids;
  for (const ChatEvent& event : splitter->push(calls)) {
    if (event.kind == Kind::kCallBegin) ids.push_back(event.call_id);
  }
  ASSERT_EQ(ids.size(), 3u);
  for (const std::string& id : ids) EXPECT_THAT(id, testing::MatchesRegex("chatcmpl-tool-[0-9a-f]+"));
  EXPECT_EQ(ids[0].size(), strlen("chatcmpl-tool-") + 32);
  EXPECT_NE(ids[0], ids[1]);
  EXPECT_NE(ids[1], ids[2]);
}

TEST(ChatEvents, SpecialMarkersStayVisible) {
  const auto text_of = [](std::vector<int32_t> shown) {
    GenerationParams params;
    params.shown_special_ids = std::move(shown);
    ChoiceText text(*test_tokenizer(), params, {});
    RequestOutput output;
    for (const int32_t id : {int32_t{'a'}, kTestBos, int32_t{'b'}, kTestEos}) output.tokens.push_back({.token_id = id});
    return text.push(std::move(output)).text;
  };
  EXPECT_EQ(text_of({}), "ab");
  EXPECT_EQ(text_of({kTestBos}), "a<BOS>b");
}

TEST(ChatEvents, UnknownParsersAreRefused) {
  EXPECT_THAT(ChatTextSplitter::make(parsed("deepsek_v3"), "").error().message, testing::HasSubstr("deepseek_v3"));
  EXPECT_THAT(ChatTextSplitter::make(parsed("", "r1"), "").error().message, testing::HasSubstr("reasoning parser"));
}

}  // namespace
}  // namespace hadal
