#include "text/reasoning_parser.h"

#include "base/names.h"
#include "text/marker_search.h"
#include "text/python_text.h"

namespace hadal {
namespace {

constexpr std::string_view kThinkBegin = "<think>";
constexpr std::string_view kThinkEnd = "</think>";

}  // namespace

Expected<ReasoningMode> reasoning_mode(std::string_view parser_name, bool thinking) {
  static const std::vector<std::string> names = {"none", "auto", "deepseek_r1", "deepseek_v3"};
  if (parser_name == "none") return ReasoningMode::kNone;
  if (parser_name == "auto") return ReasoningMode::kAuto;
  if (parser_name == "deepseek_r1") return ReasoningMode::kDeepSeekR1;
  if (parser_name == "deepseek_v3") return thinking ? ReasoningMode::kDeepSeekR1 : ReasoningMode::kNone;
  const std::string near = closest_name(parser_name, names);
  return make_error(ErrorCode::kInvalidArgument, "unknown reasoning parser \"{}\"{}; known: {}", parser_name,
                    near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near), fmt::join(names, ", "));
}

ReasoningParser::ReasoningParser(std::string_view prompt_tail, ReasoningOptions options)
    : options_(std::move(options)), end_markers_{std::string(kThinkEnd)}, state_(State::kContent) {
  for (const std::string& marker : options_.ending_markers) {
    if (!marker.empty()) end_markers_.push_back(marker);
  }
  if (options_.mode == ReasoningMode::kNone) return;
  const std::string_view prompt = python_rstrip(prompt_tail);
  if (prompt.ends_with(kThinkEnd)) return;
  const bool is_open = prompt.ends_with(kThinkBegin);
  state_ = is_open || options_.mode == ReasoningMode::kDeepSeekR1 ? State::kStartOfReasoning : State::kStartOfAnswer;
  saw_reasoning_ = state_ == State::kStartOfReasoning;
}

ReasoningDelta ReasoningParser::push(std::string_view text) {
  held_ += text;
  ReasoningDelta delta;
  step(delta, false);
  return delta;
}

ReasoningDelta ReasoningParser::flush() {
  ReasoningDelta delta;
  step(delta, true);
  return delta;
}

void ReasoningParser::step(ReasoningDelta& delta, bool at_end) {
  if (state_ == State::kStartOfAnswer || state_ == State::kStartOfReasoning) {
    if (!step_start(delta, at_end)) return;
  }
  if (state_ == State::kReasoning && !step_reasoning(delta, at_end)) return;
  delta.content += held_;
  held_.clear();
}

// Returns true when the state is decided.
bool ReasoningParser::step_start(ReasoningDelta&, bool at_end) {
  const std::string_view answer = python_lstrip(held_);
  if (answer.starts_with(kThinkBegin)) {
    held_ = std::string(answer.substr(kThinkBegin.size()));
    enter_reasoning();
    return true;
  }
  if (kThinkBegin.starts_with(answer) && !at_end) return false;
  if (state_ == State::kStartOfReasoning) {
    enter_reasoning();
  } else {
    state_ = State::kContent;
  }
  return true;
}

// Returns true when the reasoning is over and held_ is content.
bool ReasoningParser::step_reasoning(ReasoningDelta& delta, bool at_end) {
  const std::span<const std::string> markers(end_markers_);
  if (const MarkerMatch end = find_marker(held_, markers); end.found()) {
    delta.reasoning += held_.substr(0, end.begin);
    held_.erase(0, end.begin + (end.which == 0 ? kThinkEnd.size() : 0));
    state_ = State::kContent;
    return true;
  }
  const size_t keep = at_end ? 0 : partial_marker_bytes(held_, markers);
  delta.reasoning += held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return false;
}

void ReasoningParser::enter_reasoning() {
  state_ = State::kReasoning;
  saw_reasoning_ = true;
}

ReasoningDelta parse_reasoning(std::string_view answer, std::string_view prompt_tail, ReasoningOptions options) {
  ReasoningParser parser(prompt_tail, std::move(options));
  ReasoningDelta delta = parser.push(answer);
  const ReasoningDelta rest = parser.flush();
  delta.reasoning += rest.reasoning;
  delta.content += rest.content;
  return delta;
}

}  // namespace hadal
