#include "model/piece_map.h"

#include <algorithm>

namespace hadal {
namespace {

// Reading a weight takes about as long as this many multiplications. Only a first guess for steps of few tokens: who
// asks for pieces corrects it by what he measures.
constexpr double kReadMultiplications = 8;

double linear_work(int64_t tokens, int64_t weights) {
  return static_cast<double>(weights) * (static_cast<double>(tokens) + kReadMultiplications);
}

double moe_work(const ModelConfig& config, int64_t tokens) {
  const int64_t experts = config.router.n_routed_experts, top_k = config.router.num_experts_per_tok;
  const auto expert_weights = static_cast<double>(2 * config.hidden_size * config.moe_intermediate_size);
  const auto touched = static_cast<double>(std::min(experts, tokens * top_k));
  return linear_work(tokens, config.hidden_size * (experts + 2 * config.shared_intermediate_size())) +
         expert_weights * (static_cast<double>(tokens * top_k) + kReadMultiplications * touched);
}

// One head's share of a span's segment: keys and values expanded, then met by the queries that see them.
double segment_work(const ModelConfig& config, const ExpandedSpan& span, int64_t segment) {
  const int64_t begin = segment * kAttentionSegment, positions = span.first_position + span.num_tokens;
  const int64_t keys = std::min(kAttentionSegment, positions - begin);
  if (keys <= 0) return 0;
  const int64_t seen_by = std::min(span.num_tokens, positions - begin);
  const int64_t widths = config.qk_nope_head_dim + config.v_head_dim;
  return static_cast<double>(keys * (widths * config.kv_lora_rank + seen_by * (widths + config.qk_rope_head_dim)));
}

}  // namespace

PieceMap::PieceMap(const StepContext& step, const ExpandedUnits& units, int64_t num_logits)
    : config_(&step.config), num_layers_(step.config.num_hidden_layers), units_(units) {
  const ModelConfig& config = step.config;
  const int64_t tokens = step.num_tokens, heads = config.num_attention_heads, hidden = config.hidden_size;
  const auto absorbed = static_cast<int64_t>(step.plan.absorbed_rows.size());
  int64_t end = 0;
  for (size_t part = 0; part < kNumLayerParts; ++part) {
    const auto kind = static_cast<LayerPart>(part);
    end += kind == LayerPart::kExpanded ? units.num_units() : kind == LayerPart::kAbsorbed ? absorbed : 1;
    ends_[part] = end;
  }
  const int64_t q_weights = config.q_lora_rank > 0 ? config.q_lora_rank * (hidden + heads * config.qk_head_dim())
                                                   : hidden * heads * config.qk_head_dim();
  input_work_ = linear_work(tokens, q_weights + hidden * (config.kv_lora_rank + config.qk_rope_head_dim));
  output_work_ = linear_work(tokens, hidden * heads * config.v_head_dim);
  dense_work_ = linear_work(tokens, 2 * hidden * config.intermediate_size);
  moe_work_ = moe_work(config, tokens);
  head_ = num_logits > 0 ? StepPiece{PieceKind::kHead, linear_work(num_logits, hidden * config.vocab_size)}
                         : StepPiece{PieceKind::kProjections, static_cast<double>(tokens * hidden)};
  segment_work_.assign(static_cast<size_t>(units.num_segments), 0);
  for (const ExpandedSpan& span : step.plan.expanded) {
    const int64_t segments = num_attention_segments(span.first_position + span.num_tokens);
    for (int64_t segment = 0; segment < segments; ++segment) {
      // Where a unit is all segments, it has the work of all.
      double& work = segment_work_[static_cast<size_t>(std::min(segment, units.num_segments - 1))];
      const double added = segment_work(config, span, segment);
      work = units.num_segments == 1 ? work + added : std::max(work, added);
    }
  }
  for (const int32_t row : step.plan.absorbed_rows) {
    const int64_t positions = step.plan.positions[static_cast<size_t>(row)] + 1;
    const int64_t per_head = positions * (2 * config.kv_lora_rank + config.qk_rope_head_dim) +
                             config.kv_lora_rank * (config.qk_nope_head_dim + config.v_head_dim);
    token_work_.push_back(static_cast<double>(heads * per_head));
  }
}

PieceRange PieceMap::range(int64_t begin, int64_t end) const {
  const int64_t per_layer = ends_.back();
  const int64_t layer = begin / per_layer, first = begin % per_layer;
  if (layer == num_layers_) return {.layer = layer, .part = LayerPart::kHead, .unit_begin = 0, .unit_end = 1};
  const auto part = std::upper_bound(ends_.begin(), ends_.end(), first) - ends_.begin();
  const int64_t part_begin = part == 0 ? 0 : ends_[static_cast<size_t>(part - 1)];
  const int64_t stop = std::min(first + end - begin, ends_[static_cast<size_t>(part)]);
  return {.layer = layer,
          .part = static_cast<LayerPart>(part),
          .unit_begin = first - part_begin,
          .unit_end = stop - part_begin};
}

StepPiece PieceMap::piece(int64_t idx) const {
  const PieceRange at = range(idx, idx + 1);
  const double mlp_work = config_->is_moe_layer(at.layer) ? moe_work_ : dense_work_;
  switch (at.part) {
    case LayerPart::kAttentionInput:
      return {PieceKind::kProjections, input_work_};
    case LayerPart::kExpanded:
      return {PieceKind::kExpandedAttention, segment_work_[static_cast<size_t>(at.unit_begin % units_.num_segments)]};
    case LayerPart::kAbsorbed:
      return {PieceKind::kAbsorbedAttention, token_work_[static_cast<size_t>(at.unit_begin)]};
    case LayerPart::kAttentionOutput:
      return {PieceKind::kProjections, output_work_};
    case LayerPart::kMlpInput:
      return {PieceKind::kMlp, mlp_work};
    case LayerPart::kMlpOutput:
      return {PieceKind::kMlp, mlp_work / 2};
    case LayerPart::kHead:
      return head_;
  }
  return {};
}

}  // namespace hadal
