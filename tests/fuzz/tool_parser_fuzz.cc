// Answers with tool calls, cut anywhere: the events must be those of the whole, nothing is lost, and a call that is
// whole has JSON for arguments. Input: a byte for format and kind of answer, a byte of seed for the cuts, then text in
// which the bytes 1 to 8 stand for markers.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "server/chat_events.h"
#include "text/tool_format.h"

namespace {

using namespace hadal;

void require(bool condition) {
  if (!condition) std::abort();
}

std::string spell(const ToolFormat& format, const uint8_t* data, size_t size) {
  const std::string_view markers[] = {format.section_begin, format.section_end, format.call_begin, format.call_end,
                                      format.name_prefix,   format.args_begin,  format.args_end,   "</think>"};
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    const bool is_marker = data[i] >= 1 && data[i] <= std::size(markers);
    if (is_marker) {
      text += markers[data[i] - 1];
    } else {
      text += static_cast<char>(data[i]);
    }
  }
  return to_valid_utf8(text);
}

using Kind = ChatEvent::Kind;

// Ids are random: left out.
void add(const std::vector<ChatEvent>& events, std::vector<ChatEvent>* joined) {
  for (const ChatEvent& event : events) {
    const bool is_text =
        event.kind == Kind::kReasoning || event.kind == Kind::kContent || event.kind == Kind::kCallArguments;
    if (is_text && !joined->empty() && joined->back().kind == event.kind &&
        joined->back().call_index == event.call_index) {
      joined->back().text += event.text;
    } else {
      joined->push_back(event);
    }
  }
}

void check_calls(const std::vector<ChatEvent>& events) {
  std::string arguments;
  for (const ChatEvent& event : events) {
    if (event.kind == Kind::kCallBegin) {
      arguments.clear();
      require(!event.call_name.empty() && !event.call_id.empty());
    }
    if (event.kind == Kind::kCallArguments) arguments += event.text;
    if (event.kind == Kind::kCallEnd) require(Json::accept(arguments));
    if (event.kind == Kind::kCallBroken) require(event.text.find(arguments) != std::string::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 16384) return 0;
  const ToolFormat& format = tool_formats()[data[0] % tool_formats().size()];
  constexpr ChatTextOptions::Calls kKinds[] = {ChatTextOptions::Calls::kParsed, ChatTextOptions::Calls::kParsed,
                                               ChatTextOptions::Calls::kNamed, ChatTextOptions::Calls::kRequired};
  ChatTextOptions options{.reasoning_parser = data[0] & 0x40 ? "auto" : "none",
                          .tool_parser = std::string(format.name),
                          .tool_names = {"f", "a.b"},
                          .calls = kKinds[(data[0] >> 4) % 4],
                          .named_tool = "f",
                          .single_call = (data[0] & 0x80) != 0};
  const std::string text = spell(format, data + 2, size - 2);
  auto whole = ChatTextSplitter::make(options, "<think>").value();
  auto streamed = ChatTextSplitter::make(options, "<think>").value();
  std::vector<ChatEvent> expected, got;
  add(whole->push(text), &expected);
  add(whole->flush(), &expected);
  check_calls(expected);
  uint32_t seed = data[1];
  for (size_t pos = 0; pos < text.size();) {
    seed = seed * 1664525 + 1013904223;
    const size_t length = 1 + (seed >> 16) % 9;
    add(streamed->push(std::string_view(text).substr(pos, length)), &got);
    pos += length;
  }
  add(streamed->flush(), &got);
  require(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    require(got[i].kind == expected[i].kind && got[i].text == expected[i].text &&
            got[i].call_name == expected[i].call_name && got[i].call_index == expected[i].call_index);
  }
  return 0;
}
