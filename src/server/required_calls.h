// The answer under tool_choice "required": a JSON list of {"name": ..., "parameters": {...}}, read while it streams.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/tool_parser.h"

namespace hadal {

// Events as ToolParser's, calls without ids: kText: no such list, text from here on; kCallBroken: the list's entry as
// it was written. Joined events do not depend on how the text is cut. Single-owner.
class RequiredCallReader {
 public:
  std::vector<ToolEvent> push(std::string_view text);
  std::vector<ToolEvent> flush();

 private:
  enum class State { kListBegin, kHead, kValue, kEntryEnd, kNextEntry, kEnd, kText };
  bool step();  // false: needs more text
  bool step_punctuation(std::string_view expected);
  bool step_head();
  bool step_value();
  void give_up();
  std::string take(size_t num_bytes);
  void add(ToolEvent::Kind kind, std::string text);

  State state_ = State::kListBegin;
  std::string held_;
  std::string raw_;        // of the entry, not yet told
  std::string arguments_;  // of the entry
  int depth_ = 0;          // of the value's brackets
  bool in_string_ = false;
  bool escaped_ = false;
  std::vector<ToolEvent> events_;
};

}  // namespace hadal
