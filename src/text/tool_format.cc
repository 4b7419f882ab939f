#include "text/tool_format.h"

#include "base/names.h"

namespace hadal {

const std::vector<ToolFormat>& tool_formats() {
  constexpr std::string_view kSectionBegin = "<｜tool▁calls▁begin｜>", kSectionEnd = "<｜tool▁calls▁end｜>";
  constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>", kCallEnd = "<｜tool▁call▁end｜>";
  static const std::vector<ToolFormat> formats = {
      {.name = "deepseek_v3",
       .section_begin = kSectionBegin,
       .section_end = kSectionEnd,
       .call_begin = kCallBegin,
       .call_end = kCallEnd,
       .name_prefix = "function<｜tool▁sep｜>",
       .args_begin = "\n```json\n",
       .args_end = "\n```",
       .between_calls = "\n"},
      {.name = "deepseek_v31",
       .section_begin = kSectionBegin,
       .section_end = kSectionEnd,
       .call_begin = kCallBegin,
       .call_end = kCallEnd,
       .name_prefix = "",
       .args_begin = "<｜tool▁sep｜>",
       .args_end = "",
       .between_calls = ""},
      {.name = "kimi_k2",
       .section_begin = "<|tool_calls_section_begin|>",
       .section_end = "<|tool_calls_section_end|>",
       .call_begin = "<|tool_call_begin|>",
       .call_end = "<|tool_call_end|>",
       .name_prefix = "functions.",
       .numbered_names = true,
       .args_begin = "<|tool_call_argument_begin|>",
       .args_end = "",
       .between_calls = ""},
  };
  return formats;
}

const ToolFormat* find_tool_format(std::string_view name) {
  for (const ToolFormat& format : tool_formats()) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

std::vector<std::string_view> tool_markers(const ToolFormat& format) {
  std::vector<std::string_view> markers = {format.section_begin, format.section_end, format.call_begin,
                                           format.call_end};
  for (const ToolFormat& other : tool_formats()) {
    if (other.call_begin == format.call_begin && other.args_end.empty()) markers.push_back(other.args_begin);
  }
  return markers;
}

Expected<const ToolFormat*> choose_tool_format(std::string_view parser_name, const Tokenizer* tokenizer,
                                               std::string_view template_source) {
  if (parser_name == "none") return nullptr;
  if (parser_name != "auto") {
    if (const ToolFormat* format = find_tool_format(parser_name)) return format;
    std::vector<std::string> names = {"none", "auto"};
    for (const ToolFormat& format : tool_formats()) names.emplace_back(format.name);
    const std::string near = closest_name(parser_name, names);
    return make_error(ErrorCode::kInvalidArgument, "unknown tool call parser \"{}\"{}; known: {}", parser_name,
                      near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near), fmt::join(names, ", "));
  }
  const auto knows = [&](const ToolFormat& format) {
    return tokenizer != nullptr && tokenizer->token_id(format.section_begin) && tokenizer->token_id(format.call_begin);
  };
  for (const ToolFormat& format : tool_formats()) {
    const bool is_fenced = format.args_begin.find("```json") != std::string_view::npos;
    if (is_fenced && template_source.find("```json") == std::string_view::npos) continue;
    if (knows(format)) return &format;
  }
  return nullptr;
}

}  // namespace hadal
