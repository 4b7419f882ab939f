// How each model family writes tool calls (DeepSeek's and Moonshot's chat templates; vLLM's parser names). One table
// for the parser, which reads such text, and for the grammar, which forces it.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace hadal {

// section_begin {call_begin [type_prefix] name_prefix NAME [name_suffix] args_begin ARGS args_end call_end}*
// section_end Blanks between calls are allowed; `between_calls` is what the template writes there.
struct ToolFormat {
  std::string_view name;  // of --tool-call-parser
  std::string_view section_begin, section_end;
  std::string_view call_begin, call_end;
  std::string_view name_prefix;  // "function<｜tool▁sep｜>" or "functions."
  bool numbered_names = false;   // NAME is followed by ":" and the call's number (kimi_k2)
  std::string_view args_begin;   // "\n```json\n", "<｜tool▁sep｜>", "<|tool_call_argument_begin|>"
  std::string_view args_end;     // "\n```" or ""
  std::string_view between_calls;
};

// deepseek_v3 (V3, R1), deepseek_v31, kimi_k2.
const std::vector<ToolFormat>& tool_formats();
// Null for an unknown name.
const ToolFormat* find_tool_format(std::string_view name);

// The markers that text in this format, or in one that shares its markers, may hold.
std::vector<std::string_view> tool_markers(const ToolFormat& format);

// From `--tool-call-parser`: none (null), a format's name, or auto: the format whose markers the tokenizer knows as
// tokens; DeepSeek's two differ in whether the chat template writes history calls with a "```json" fence. Null: the
// model has no tool language. `tokenizer` may be null. Errors: kInvalidArgument, with the nearest name.
Expected<const ToolFormat*> choose_tool_format(std::string_view parser_name, const Tokenizer* tokenizer,
                                               std::string_view template_source);

}  // namespace hadal
