// Splits a model's answer into reasoning and content at `<think>` and `</think>`, while it streams.
// Rules: DeepSeek's and vLLM's deepseek_r1 parser, made independent of how the text is cut; where nothing is said by
// the user, the end of the rendered prompt decides. Works on text: it finds markers spelled with ordinary tokens too.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

enum class ReasoningMode {
  kNone,        // everything is content, markers included
  kDeepSeekR1,  // reasoning from the start, unless the prompt ends with "</think>"
  // Prompt ends with "<think>": reasoning. Otherwise reasoning only if the answer's first non-blank text is "<think>".
  kAuto,
};

// From `--reasoning-parser`: none, auto, deepseek_r1, deepseek_v3. `thinking` is chat_template_kwargs' switch: only
// deepseek_v3 (V3.1) looks at it, true = deepseek_r1, false = none. Errors: kInvalidArgument, with the nearest name.
Expected<ReasoningMode> reasoning_mode(std::string_view parser_name, bool thinking);

struct ReasoningOptions {
  ReasoningMode mode = ReasoningMode::kAuto;
  // Markers that end unfinished reasoning and belong to the content: the tool section's begin marker.
  std::vector<std::string> ending_markers;
};

struct ReasoningDelta {
  std::string reasoning;
  std::string content;
};

// Not trimmed: "<think>\nA\n</think>\n\nB" gives "\nA\n" and "\n\nB". Only the first "</think>" splits. The markers
// themselves never appear, apart from later ones inside the content. Wire form of a whole answer: content is null when
// empty; reasoning is null when !saw_reasoning(), else the string, "" included (streams send no empty delta: null).
// Single-owner.
class ReasoningParser {
 public:
  // `prompt_tail`: the rendered prompt or its end, trailing blanks do not matter.
  ReasoningParser(std::string_view prompt_tail, ReasoningOptions options);

  // What is decided; text that may begin a marker is held back.
  ReasoningDelta push(std::string_view text);
  // The rest, at the end of the stream.
  ReasoningDelta flush();

  // Where the next byte would go, as far as known: a grammar mask applies only once this is false.
  bool in_reasoning() const { return state_ == State::kReasoning || state_ == State::kStartOfReasoning; }
  // Whether the answer begins with reasoning is not known yet.
  bool is_undecided() const { return state_ == State::kStartOfAnswer; }
  // True once the answer is known to have a reasoning part, even an empty one.
  bool saw_reasoning() const { return saw_reasoning_; }

 private:
  enum class State {
    kStartOfAnswer,     // kAuto: blanks or a prefix of "<think>" so far
    kStartOfReasoning,  // the same, but without a marker it is reasoning
    kReasoning,
    kContent,
  };
  void step(ReasoningDelta& delta, bool at_end);
  bool step_start(ReasoningDelta& delta, bool at_end);
  bool step_reasoning(ReasoningDelta& delta, bool at_end);
  void enter_reasoning();

  ReasoningOptions options_;
  std::vector<std::string> end_markers_;  // "</think>" first, then options_.ending_markers
  State state_;
  bool saw_reasoning_ = false;
  std::string held_;
};

// A whole answer at once: the same as one push and a flush.
ReasoningDelta parse_reasoning(std::string_view answer, std::string_view prompt_tail, ReasoningOptions options);

}  // namespace hadal
