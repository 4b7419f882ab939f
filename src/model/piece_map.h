// How a step falls into pieces (forward_model.h): for each layer the parts of layers.h, then the head. Internal to
// model/.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "model/forward_model.h"
#include "model/layers.h"

namespace hadal {

enum class LayerPart {
  kAttentionInput,   // one unit
  kExpanded,         // ExpandedUnits
  kAbsorbed,         // a unit is a token
  kAttentionOutput,  // one unit, like the rest
  kMlpInput,
  kMlpOutput,
  kHead,  // behind the last layer
};
inline constexpr size_t kNumLayerParts = 6;  // of a layer: without the head

// Consecutive units of one part.
struct PieceRange {
  int64_t layer = 0;  // num_hidden_layers: the head
  LayerPart part = LayerPart::kAttentionInput;
  int64_t unit_begin = 0, unit_end = 0;

  int64_t num_pieces() const { return unit_end - unit_begin; }
};

class PieceMap {
 public:
  PieceMap() = default;  // of no step
  // Of the step whose plan and sizes `step` has; `units` are the same in every layer. step.config outlives this.
  PieceMap(const StepContext& step, const ExpandedUnits& units, int64_t num_logits);

  int64_t num_pieces() const { return num_layers_ * ends_.back() + 1; }
  const ExpandedUnits& units() const { return units_; }
  // The longest range of one part in [begin, end). Requires begin < end <= num_pieces().
  PieceRange range(int64_t begin, int64_t end) const;
  // Work: multiplications, of the expanded form those of one worker; a weight that is read counts like a few of them.
  StepPiece piece(int64_t idx) const;

 private:
  const ModelConfig* config_ = nullptr;
  int64_t num_layers_ = 0;
  ExpandedUnits units_;
  std::array<int64_t, kNumLayerParts> ends_{};  // pieces of a layer up to and with each part
  double input_work_ = 0, output_work_ = 0, dense_work_ = 0, moe_work_ = 0;  // of an MLP: gate and up
  StepPiece head_;
  std::vector<double> segment_work_;  // [num_segments] of the expanded form
  std::vector<double> token_work_;    // [absorbed tokens]
};

}  // namespace hadal
