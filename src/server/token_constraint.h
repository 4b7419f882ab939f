// Holds an answer to a grammar while the engine samples it: text/grammar.h's masks behind the engine's TokenConstraint.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "text/grammar.h"
#include "text/reasoning_parser.h"
#include "text/tokenizer.h"

namespace hadal {

// Of a request; its choices share the grammar and its masks.
struct ConstraintPlan {
  Grammar grammar;
  std::shared_ptr<const GrammarVocabulary> vocabulary;
  std::shared_ptr<const Tokenizer> tokenizer;
  ReasoningOptions reasoning{.mode = ReasoningMode::kNone, .ending_markers = {}};
  std::vector<int32_t> eos_token_ids;
};

// The grammar begins where the reasoning ends, in the middle of a token if need be. Where an answer may or may not
// begin with reasoning, "<think>" is allowed as its first token, if it is one token. EOS and stop tokens are allowed
// where the answer may end, and where nothing else is. Used on the engine thread.
std::shared_ptr<TokenConstraint> make_token_constraint(const ConstraintPlan& plan, std::string_view prompt_tail,
                                                       std::span<const int32_t> stop_token_ids);

// logits[i] = -infinity where bit i of the mask is clear. logits: f32 [size]; bits beyond the mask are clear.
void mask_logits(std::span<const uint64_t> mask, std::span<float> logits);

}  // namespace hadal
