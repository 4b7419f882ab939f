// Splits a model's answer into text and tool calls while it streams. One machine for all formats (tool_format.h):
// text -> section -> header -> arguments -> section ... Works on text, whatever tokens spell it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/argument_filter.h"
#include "text/tool_format.h"

namespace hadal {

struct ToolEvent {
  enum class Kind {
    kText,
    kCallBegin,   // name and id
    kArguments,   // text: the next piece
    kCallEnd,     // the arguments are whole and valid JSON
    kCallBroken,  // cut, or no JSON; text: the call as it was written, with the section's begin before its first call
  };
  Kind kind = Kind::kText;
  std::string text;
  std::string name;
  std::string id;  // as the model wrote it (kimi_k2), else ""
};

// Events, neighbours of one kind joined, are equal however the text is cut. Nothing is lost: what is no call becomes
// text, markers included; only blanks between calls, a section's markers, and text behind a section with a whole call
// are dropped.
// Also taken: calls without section markers; a missing section end; a missing call end where the arguments are a whole
// object; either DeepSeek body under either DeepSeek format; no arguments, which become "{}"; Kimi ids without
// "functions.". Single-owner.
class ToolParser {
 public:
  // `tool_names`: declared; they settle what the name in a Kimi id is ("functions.my.tool:0").
  ToolParser(const ToolFormat& format, std::vector<std::string> tool_names);

  // What is decided; text that may begin a marker, and headers, are held back.
  std::vector<ToolEvent> push(std::string_view text);
  // The rest, at the end of the answer.
  std::vector<ToolEvent> flush();

 private:
  enum class State {
    kText,
    kSection,     // behind a section's begin or a call's end
    kHeader,      // behind a call's begin
    kArguments,   // behind a header
    kBrokenCall,  // behind a header that is none: text until the call ends
    kAfterCalls,  // text that is dropped
  };
  struct Header {
    enum { kIncomplete, kBroken, kWhole } kind = kIncomplete;
    size_t num_bytes = 0;
    bool is_fenced = false;
    std::string name;
    std::string id;
  };

  bool step(bool at_end);  // false: needs more text
  bool step_text(bool at_end);
  bool step_section(bool at_end);
  bool step_header(bool at_end);
  bool step_arguments(bool at_end);
  bool step_broken_call(bool at_end);
  Header read_header(bool at_end) const;
  Header read_deepseek_header(std::string_view text, bool is_final) const;
  Header read_numbered_header(std::string_view text, bool is_final) const;
  std::string name_in_id(std::string_view id) const;
  void add_arguments(std::string text);
  void end_call(bool has_end_marker);
  void leave_section();
  std::string take(size_t num_bytes);
  void add(ToolEvent::Kind kind, std::string text);

  const ToolFormat& format_;
  const ToolFormat* plain_ = nullptr;   // the format with these markers and arguments without a fence
  const ToolFormat* fenced_ = nullptr;  // and the one with a fence
  const std::vector<std::string> tool_names_;
  const std::vector<std::string_view> opening_;  // section_begin, call_begin
  const std::vector<std::string_view> closing_;  // call_end, call_begin, section_end, section_begin

  State state_ = State::kText;
  std::string held_;                          // not yet consumed
  std::string raw_;                           // consumed, and told by no event unless the call is broken
  std::string arguments_;                     // of the call
  ArgumentFilter filter_{false};              // of the call
  bool section_has_call_ = false;             // a whole one
  bool has_call_ = false;                     // a whole one, anywhere
  std::vector<ToolEvent>* events_ = nullptr;  // of the running push or flush
};

}  // namespace hadal
