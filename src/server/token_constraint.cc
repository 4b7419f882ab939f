#include "server/token_constraint.h"

#include <algorithm>
#include <limits>

#include "text/detokenizer.h"

namespace hadal {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();
constexpr int32_t kNoToken = -1;

void set_bit(std::span<uint64_t> mask, int32_t id, bool value) {
  const auto word = static_cast<size_t>(id) / 64;
  if (id < 0 || word >= mask.size()) return;
  const uint64_t bit = uint64_t{1} << (id % 64);
  mask[word] = value ? mask[word] | bit : mask[word] & ~bit;
}

class GrammarConstraint : public TokenConstraint {
 public:
  GrammarConstraint(const ConstraintPlan& plan, std::string_view prompt_tail, std::span<const int32_t> stop_token_ids)
      : tokenizer_(plan.tokenizer),
        matcher_(plan.grammar, plan.vocabulary),
        reasoning_(prompt_tail, plan.reasoning),
        detokenizer_(*tokenizer_, false),
        end_ids_(stop_token_ids.begin(), stop_token_ids.end()),
        mask_((static_cast<size_t>(plan.vocabulary->size()) + 63) / 64) {
    end_ids_.insert(end_ids_.end(), plan.eos_token_ids.begin(), plan.eos_token_ids.end());
    if (reasoning_.in_reasoning()) {
      phase_ = Phase::kReasoning;
    } else if (reasoning_.is_undecided()) {
      phase_ = Phase::kFirstToken;
      think_id_ = tokenizer_->token_id("<think>").value_or(kNoToken);
    }
  }

  void apply(float* logits, int64_t vocab_size) override {
    if (phase_ == Phase::kReasoning) return;
    matcher_.fill_mask(mask_);
    const bool may_end = matcher_.can_end();
    for (const int32_t id : end_ids_) set_bit(mask_, id, may_end);
    if (phase_ == Phase::kFirstToken) set_bit(mask_, think_id_, true);
    const auto is_zero = [](uint64_t word) { return word == 0; };
    if (std::all_of(mask_.begin(), mask_.end(), is_zero)) {
      for (const int32_t id : end_ids_) set_bit(mask_, id, true);
      if (std::all_of(mask_.begin(), mask_.end(), is_zero)) return;  // a model without EOS
    }
    mask_logits(mask_, {logits, static_cast<size_t>(vocab_size)});
  }

  void accept(int32_t token_id) override {
    if (phase_ == Phase::kFirstToken) phase_ = token_id == think_id_ ? Phase::kReasoning : Phase::kContent;
    if (phase_ == Phase::kContent) {
      matcher_.accept(token_id);  // false for the token that ends the answer
      return;
    }
    const ReasoningDelta delta = reasoning_.push(detokenizer_.push(token_id));
    if (reasoning_.in_reasoning()) return;
    phase_ = Phase::kContent;
    begin_content(delta.content);
  }

 private:
  enum class Phase { kReasoning, kFirstToken, kContent };

  // What the token that ended the reasoning holds beyond it was sampled freely: blanks may be no part of the grammar.
  void begin_content(std::string_view text) {
    if (text.empty() || matcher_.accept_bytes(text)) return;
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    if (!text.empty()) matcher_.accept_bytes(text);
  }

  const std::shared_ptr<const Tokenizer> tokenizer_;
  GrammarMatcher matcher_;
  ReasoningParser reasoning_;
  StreamingDetokenizer detokenizer_;
  std::vector<int32_t> end_ids_;
  std::vector<uint64_t> mask_;  // of the vocabulary
  Phase phase_ = Phase::kContent;
  int32_t think_id_ = kNoToken;
};

}  // namespace

std::shared_ptr<TokenConstraint> make_token_constraint(const ConstraintPlan& plan, std::string_view prompt_tail,
                                                       std::span<const int32_t> stop_token_ids) {
  return std::make_shared<GrammarConstraint>(plan, prompt_tail, stop_token_ids);
}

void mask_logits(std::span<const uint64_t> mask, std::span<float> logits) {
  constexpr size_t kBits = 64;
  const size_t num_masked = std::min(mask.size() * kBits, logits.size());
  for (size_t begin = 0; begin < num_masked; begin += kBits) {
    const uint64_t word = mask[begin / kBits];
    if (word == ~uint64_t{0}) continue;
    float* const block = logits.data() + begin;
    const size_t size = std::min(kBits, num_masked - begin);
    if (word == 0) {
      std::fill_n(block, size, kForbidden);
      continue;
    }
    for (size_t i = 0; i < size; ++i) block[i] = (word >> i) & 1 ? block[i] : kForbidden;
  }
  std::fill(logits.begin() + static_cast<std::ptrdiff_t>(num_masked), logits.end(), kForbidden);
}

}  // namespace hadal
