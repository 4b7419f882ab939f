// Tool calls in streamed text: the golden transcripts and the tolerances, for every cut.
#include "text/tool_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/file.h"
#include "base/json.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using Kind = ToolEvent::Kind;

// One line per event, neighbours of one kind joined.
std::string show(const std::vector<ToolEvent>& events) {
  static constexpr const char* kNames[] = {"text ", "call ", "args ", "end", "broken "};
  std::string shown;
  const ToolEvent* last = nullptr;
  for (const ToolEvent& event : events) {
    const bool joins =
        last && last->kind == event.kind && (event.kind == Kind::kText || event.kind == Kind::kArguments);
    if (!joins) shown += std::string(shown.empty() ? "" : "\n") + kNames[static_cast<int>(event.kind)];
    shown += event.text + event.name + (event.id.empty() ? "" : " " + event.id);
    last = &event;
  }
  return shown;
}

std::string parse_pieces(const ToolFormat& format, const std::vector<std::string>& tools,
                         const std::vector<std::string_view>& pieces) {
  ToolParser parser(format, tools);
  std::vector<ToolEvent> events;
  const auto add = [&](std::vector<ToolEvent> more) {
    for (ToolEvent& event : more) events.push_back(std::move(event));
  };
  for (const std::string_view piece : pieces) add(parser.push(piece));
  add(parser.flush());
  return show(events);
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

// The events, after showing that every cut, every byte alone, and random cuts give the same.
std::string parse(std::string_view format_name, std::string_view text, const std::vector<std::string>& tools = {}) {
  const ToolFormat& format = *find_tool_format(format_name);
  const std::string expected = parse_pieces(format, tools, {text});
  for (size_t a = 0; a <= text.size(); ++a) {
    const std::string got = parse_pieces(format, tools, {text.substr(0, a), text.substr(a)});
    EXPECT_EQ(got, expected) << text << " cut at " << a;
  }
  std::vector<std::string_view> bytes;
  for (size_t i = 0; i < text.size(); ++i) bytes.push_back(text.substr(i, 1));
  EXPECT_EQ(parse_pieces(format, tools, bytes), expected) << text;
  std::mt19937 random(static_cast<uint32_t>(text.size()));
  for (int round = 0; round < 200; ++round) {
    EXPECT_EQ(parse_pieces(format, tools, cut_randomly(text, random)), expected) << text << " round " << round;
  }
  return expected;
}

// What a client that does not stream would read.
struct Whole {
  std::string content;
  Json calls = Json::array();
};

Whole assemble(const std::vector<ToolEvent>& events) {
  Whole whole;
  for (const ToolEvent& event : events) {
    if (event.kind == Kind::kText || event.kind == Kind::kCallBroken) whole.content += event.text;
    if (event.kind == Kind::kCallBegin) {
      whole.calls.push_back({{"name", event.name}, {"arguments", ""}});
      if (!event.id.empty()) whole.calls.back()["id"] = event.id;
    }
    if (event.kind == Kind::kArguments) {
      auto& arguments = whole.calls.back()["arguments"];
      arguments = arguments.get<std::string>() + event.text;
    }
    if (event.kind == Kind::kCallBroken) whole.calls.erase(whole.calls.size() - 1);
  }
  return whole;
}

TEST(ToolParser, AgreesWithGoldenTranscriptsForEveryCut) {
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_parsers.json");
  int num_cases = 0;
  const Json golden = load_json(path);
  for (const Json& row : golden["cases"]) {
    if (row["kind"] != "tool_calls") continue;
    ++num_cases;
    const auto name = row["parser"].get<std::string>();
    const auto output = row["output"].get<std::string>();
    std::vector<std::string> tools = {"my.tool"};
    parse(name, output, tools);
    ToolParser parser(*find_tool_format(name), tools);
    std::vector<ToolEvent> events = parser.push(output);
    for (ToolEvent& event : parser.flush()) events.push_back(std::move(event));
    const Whole whole = assemble(events);
    EXPECT_EQ(whole.calls, row["tool_calls"]) << output;
    // A call that is cut comes back as text; the reference drops it.
    const bool is_cut = output.ends_with("{\"x\":");
    const std::string content = row["content"].is_null() ? "" : row["content"].get<std::string>();
    EXPECT_EQ(whole.content, is_cut ? output : content) << output;
  }
  EXPECT_EQ(num_cases, 16);
}

constexpr std::string_view kBegin = "<｜tool▁calls▁begin｜>", kEnd = "<｜tool▁calls▁end｜>",
                           kCall = "<｜tool▁call▁begin｜>", kSep = "<｜tool▁sep｜>", kCallEnd = "<｜tool▁call▁end｜>";

// $ section, % its end, [ call, | separator, ] call end: as DeepSeek's markers.
std::string deepseek(std::string_view text) {
  std::string spelled;
  for (const char c : text) {
    switch (c) {
      case '$':
        spelled += kBegin;
        break;
      case '%':
        spelled += kEnd;
        break;
      case '<':
        spelled += kCall;
        break;
      case '|':
        spelled += kSep;
        break;
      case '>':
        spelled += kCallEnd;
        break;
      default:
        spelled += c;
    }
  }
  return spelled;
}

// The same for Kimi's.
std::string kimi(std::string_view text) {
  std::string spelled;
  for (const char c : text) {
    switch (c) {
      case '$':
        spelled += "<|tool_calls_section_begin|>";
        break;
      case '%':
        spelled += "<|tool_calls_section_end|>";
        break;
      case '<':
        spelled += "<|tool_call_begin|>";
        break;
      case '|':
        spelled += "<|tool_call_argument_begin|>";
        break;
      case '>':
        spelled += "<|tool_call_end|>";
        break;
      default:
        spelled += c;
    }
  }
  return spelled;
}

struct Case {
  const char* format;
  const char* text;      // $ section begin, % section end, < call begin, | separator, > call end
  const char* expected;  // the same signs for markers in text
};

TEST(ToolParser, ToleratesWhatModelsDo) {
  const Case cases[] = {
      // No section markers.
      {"deepseek_v31", "a<f|{}>", "text a\ncall f\nargs {}\nend"},
      {"deepseek_v3", "<function|f\n```json\n{}\n```>", "call f\nargs {}\nend"},
      {"kimi_k2", "<functions.f:0|{}>", "call f functions.f:0\nargs {}\nend"},
      // The other DeepSeek body.
      {"deepseek_v31", "$<function|f\n```json\n{\"a\":\n1}\n```>%", "call f\nargs {\"a\":\n1}\nend"},
      {"deepseek_v3", "$<f|{\"a\":1}>%", "call f\nargs {\"a\":1}\nend"},
      {"deepseek_v31", "$<function|{\"a\":1}>%", "call function\nargs {\"a\":1}\nend"},
      // Blanks.
      {"deepseek_v31", "$\n< f | {\"a\": 1}\n>\n\n<g|{}> \n%", "call f\nargs {\"a\": 1}\nend\ncall g\nargs {}\nend"},
      {"deepseek_v3", "$<function|f\n```json\n{} \n```\n>%", "call f\nargs {}\nend"},
      // No arguments at all.
      {"deepseek_v31", "$<f|>%", "call f\nargs {}\nend"},
      {"deepseek_v3", "$<function|f\n```json\n\n```>%", "call f\nargs {}\nend"},
      {"deepseek_v3", "$<function|f\n```json\n```>%", "call f\nargs {}\nend"},
      // Ends that are missing.
      {"deepseek_v31", "$<f|{\"a\":1}", "call f\nargs {\"a\":1}\nend"},
      {"deepseek_v31", "$<f|{}%", "call f\nargs {}\nend"},
      {"kimi_k2", "$<functions.f:0|{}<functions.g:1|{}>",
       "call f functions.f:0\nargs {}\nend\ncall g functions.g:1\nargs {}\nend"},
      // Arguments that hold fences.
      {"deepseek_v3", "$<function|f\n```json\n{\"a\":\"\\n```\\n\"}\n```>%", "call f\nargs {\"a\":\"\\n```\\n\"}\nend"},
      // Several sections are one list; text behind and between is dropped.
      {"kimi_k2", "a$<f:0|{}>%b$<g:1|{}>%c", "text a\ncall f f:0\nargs {}\nend\ncall g g:1\nargs {}\nend"},
      {"deepseek_v31", "$<f|{}>and more", "call f\nargs {}\nend"},
      // Scalars are JSON too.
      {"deepseek_v31", "$<f|12>%", "call f\nargs 12\nend"},
  };
  for (const Case& row : cases) {
    const bool is_kimi = std::string_view(row.format) == "kimi_k2";
    EXPECT_EQ(parse(row.format, is_kimi ? kimi(row.text) : deepseek(row.text)), row.expected) << row.text;
  }
}

TEST(ToolParser, NothingThatIsNoCallIsLost) {
  const Case cases[] = {
      {"deepseek_v31", "$", "text $"},
      {"deepseek_v31", "a$ %b", "text a$ %b"},
      {"deepseek_v31", "a$ b", "text a$ b"},
      {"deepseek_v31", "$$<f|{}>", "text $\ncall f\nargs {}\nend"},
      // Headers that are none.
      {"deepseek_v31", "$<f", "text $<f"},
      {"deepseek_v31", "$<f>%", "text $<f>%"},
      {"deepseek_v31", "$<|{}>%", "text $<|{}>%"},
      {"deepseek_v3", "$<function|f\n```yaml\na: 1\n```>%x", "text $<function|f\n```yaml\na: 1\n```>%x"},
      {"kimi_k2", "$<functions.:0|{}>%", "text $<functions.:0|{}>%"},
      {"deepseek_v31", "$<f><g|{}>%", "text $<f>\ncall g\nargs {}\nend"},
      // Arguments that are cut or no JSON.
      {"deepseek_v31", "a$<f|{\"x\":", "text a\ncall f\nargs {\"x\":\nbroken $<f|{\"x\":"},
      {"deepseek_v31", "$<f|{\"x\" 1}>%b", "call f\nargs {\"x\" 1}\nbroken $<f|{\"x\" 1}>\ntext %b"},
      {"deepseek_v31", "$<f|12", "call f\nargs 12\nbroken $<f|12"},
      {"deepseek_v3", "$<function|f\n```json\n{}\n```x>",
       "call f\nargs {}\n```x\nbroken $<function|f\n```json\n{}\n```x>"},
      {"deepseek_v31", "$<f|{}><g|{>%c", "call f\nargs {}\nend\ncall g\nargs {\nbroken <g|{>"},
      {"kimi_k2", "$<f:0|{\"a\":<g:1|{}>%", "call f f:0\nargs {\"a\":\nbroken $<f:0|{\"a\":\ncall g g:1\nargs {}\nend"},
      {"kimi_k2", "$<f:0|", "call f f:0\nbroken $<f:0|"},
  };
  for (const Case& row : cases) {
    const bool is_kimi = std::string_view(row.format) == "kimi_k2";
    const auto spell = is_kimi ? kimi : deepseek;
    EXPECT_EQ(parse(row.format, spell(row.text)), spell(row.expected)) << row.text;
  }
}

TEST(ToolParser, TextThatOnlyBeginsLikeAMarkerIsPassedOn) {
  for (const std::string_view text : {"a <", "<｜tool", "1 < 2 <｜tool▁call▁", "<|tool_calls_section_begi x", "｜>"}) {
    for (const ToolFormat& format : tool_formats()) EXPECT_EQ(parse(format.name, text), "text " + std::string(text));
  }
}

TEST(ToolParser, KimiNamesFollowTheDeclaredTools) {
  const auto name = [](const std::string& id, const std::vector<std::string>& tools) {
    return parse("kimi_k2", kimi("$<" + id + "|{}>%"), tools);
  };
  EXPECT_EQ(name("functions.my.tool:0", {"my.tool"}), "call my.tool functions.my.tool:0\nargs {}\nend");
  EXPECT_EQ(name("functions.my.tool:0", {"tool"}), "call tool functions.my.tool:0\nargs {}\nend");
  EXPECT_EQ(name("functions.my.tool:0", {"other"}), "call my.tool functions.my.tool:0\nargs {}\nend");
  EXPECT_EQ(name("multi_tool.f:12", {"f"}), "call f multi_tool.f:12\nargs {}\nend");
  EXPECT_EQ(name("f", {}), "call f f\nargs {}\nend");
  EXPECT_EQ(name("a:b", {}), "call a:b a:b\nargs {}\nend");
}

TEST(ToolParser, HoldsBackNoMoreThanAMarker) {
  ToolParser parser(*find_tool_format("deepseek_v31"), {});
  EXPECT_EQ(show(parser.push("hello <")), "text hello ");
  EXPECT_EQ(show(parser.push("b")), "text <b");
  EXPECT_EQ(show(parser.push(std::string(kBegin) + std::string(kCall) + "f" + std::string(kSep))), "call f");
  EXPECT_EQ(show(parser.push("{\"a\": ")), "args {\"a\":");
  EXPECT_EQ(show(parser.push("1")), "args  1");
  EXPECT_EQ(show(parser.push("}" + std::string(kCallEnd))), "args }\nend");
}

TEST(ToolParser, AHeaderHasABound) {
  const std::string text = deepseek("$<" + std::string(5000, 'x'));
  ToolParser parser(*find_tool_format("deepseek_v31"), {});
  size_t num_bytes = 0;
  for (const ToolEvent& event : parser.push(text)) num_bytes += event.text.size();
  EXPECT_EQ(num_bytes, text.size());
  const std::string late = deepseek("$<" + std::string(2000, 'x') + "|{}>");
  EXPECT_EQ(parse_pieces(*find_tool_format("deepseek_v31"), {}, {late}), "text " + late);
}

// A tokenizer of single bytes that knows these added tokens.
std::unique_ptr<Tokenizer> tokenizer_with(const std::vector<std::string_view>& added) {
  std::string ranks;
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int byte = 0; byte < 256; ++byte) {
    ranks += {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '=', ' '};
    ranks += std::to_string(byte) + '\n';
  }
  Json config = {{"added_tokens_decoder", Json::object()}};
  for (size_t i = 0; i < added.size(); ++i) {
    config["added_tokens_decoder"][std::to_string(256 + i)] = {{"content", added[i]}, {"special", false}};
  }
  const TempDir dir;
  EXPECT_TRUE(write_file_atomically(dir.path() / "tiktoken.model", ranks));
  EXPECT_TRUE(write_file_atomically(dir.path() / "tokenizer_config.json", dump_json(config)));
  auto loaded = Tokenizer::load(dir.path());
  EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
  return std::move(*loaded);
}

TEST(ToolFormat, FollowsTheModel) {
  const auto choose = [](const Tokenizer& tokenizer, std::string_view source) {
    const ToolFormat* format = choose_tool_format("auto", &tokenizer, source).value();
    return format ? std::string(format->name) : "";
  };
  const auto deepseek_model = tokenizer_with({kBegin, kEnd, kCall, kSep, kCallEnd});
  const auto kimi_model = tokenizer_with({"<|tool_calls_section_begin|>", "<|tool_call_begin|>"});
  EXPECT_EQ(choose(*tokenizer_with({}), "```json"), "");
  EXPECT_EQ(choose(*kimi_model, "x"), "kimi_k2");
  const std::pair<const char*, const char*> templates[] = {
      {"chat_template_deepseek-v3.jinja", "deepseek_v3"},
      {"chat_template_deepseek-r1.jinja", "deepseek_v3"},
      {"chat_template_deepseek-r1-0528.jinja", "deepseek_v3"},
      {"chat_template_deepseek-r1_vllm-tools.jinja", "deepseek_v3"},
      {"chat_template_deepseek-v3.1.jinja", "deepseek_v31"},
      {"chat_template_deepseek-v3.1_vllm-tools.jinja", "deepseek_v31"},
  };
  for (const auto& [file, expected] : templates) {
    HADAL_SPEC_DATA_OR_SKIP(path, file);
    EXPECT_EQ(choose(*deepseek_model, read_file(path, 1 << 20).value()), expected) << file;
  }
}

TEST(ToolFormat, UnknownNamesGetAHint) {
  const auto chosen = choose_tool_format("kimi-k2", nullptr, "");
  ASSERT_FALSE(chosen.has_value());
  EXPECT_THAT(chosen.error().message, testing::HasSubstr("did you mean \"kimi_k2\""));
  EXPECT_EQ(choose_tool_format("none", nullptr, "").value(), nullptr);
  EXPECT_EQ(choose_tool_format("auto", nullptr, "").value(), nullptr);
  EXPECT_EQ(choose_tool_format("deepseek_v31", nullptr, "").value()->name, "deepseek_v31");
}

}  // namespace
}  // namespace hadal
