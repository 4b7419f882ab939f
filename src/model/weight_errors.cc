#include "model/weight_errors.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "formats/hf_config.h"
#include "model/config.h"
#include "model/weight_plan.h"
#include "model/weights.h"

namespace hadal {
namespace {

// Sums over one checkpoint tensor, which may be several matrices (kv_b_proj by heads).
struct ErrorSums {
  double signal = 0, noise = 0, product = 0;

  void add(double expected, double found) {
    signal += expected * expected;
    noise += (expected - found) * (expected - found);
    product += expected * found;
  }
};

float element(const PackedMatrix& w, int64_t row, int64_t col) {
  float value = packed_element(w, row, col);
  if (w.scales != nullptr) value *= w.scales[row / kPanelRows * w.num_scale_cols() + col / kScaleBlock];
  return w.row_scales != nullptr ? value * w.row_scales[row] : value;
}

void compare(const PackedMatrix& expected, const PackedMatrix& found, ErrorSums& sums) {
  for (int64_t row = 0; row < expected.rows; ++row) {
    for (int64_t col = 0; col < expected.cols; ++col) sums.add(element(expected, row, col), element(found, row, col));
  }
}

const PackedMatrix* matrix_of(const LayerWeights& layer, const PlannedTensor& tensor) {
  const MlpWeights& mlp = tensor.expert >= 0 ? layer.experts[static_cast<size_t>(tensor.expert)] : layer.mlp;
  switch (tensor.role) {
    case WeightRole::kQ:
    case WeightRole::kQB:
      return &layer.q;
    case WeightRole::kQA:
      return &layer.q_a;
    case WeightRole::kKvA:
      return &layer.kv_a;
    case WeightRole::kO:
      return &layer.o;
    case WeightRole::kDenseGate:
    case WeightRole::kSharedGate:
    case WeightRole::kExpertGate:
      return &mlp.gate;
    case WeightRole::kDenseUp:
    case WeightRole::kSharedUp:
    case WeightRole::kExpertUp:
      return &mlp.up;
    case WeightRole::kDenseDown:
    case WeightRole::kSharedDown:
    case WeightRole::kExpertDown:
      return &mlp.down;
    default:
      return nullptr;
  }
}

// What prefill multiplies with: the FP8 copies where there are some.
void compare_heads(const LayerWeights& expected, const LayerWeights& found, ErrorSums& sums) {
  for (size_t i = 0; i < expected.heads.size(); ++i) {
    const HeadWeights& head = found.heads[i];
    compare(expected.heads[i].w_uk, head.w_uk_f8.rows > 0 ? head.w_uk_f8 : head.w_uk, sums);
    compare(expected.heads[i].w_uv, head.w_uv_f8.rows > 0 ? head.w_uv_f8 : head.w_uv, sums);
  }
}

std::vector<PlannedTensor> layer_plan(const ModelConfig& config, const std::vector<PlannedTensor>& plan, int64_t layer,
                                      int64_t max_experts) {
  const int64_t step = std::max<int64_t>(1, config.router.n_routed_experts / std::max<int64_t>(1, max_experts));
  std::vector<PlannedTensor> part;
  for (const PlannedTensor& tensor : plan) {
    if (tensor.layer == layer && (tensor.expert < 0 || tensor.expert % step == 0)) part.push_back(tensor);
  }
  return part;
}

void collect(const LayerWeights& expected, const LayerWeights& found, const std::vector<PlannedTensor>& part,
             std::vector<WeightError>& errors) {
  for (const PlannedTensor& tensor : part) {
    ErrorSums sums;
    if (tensor.role == WeightRole::kKvB) {
      compare_heads(expected, found, sums);
    } else if (const PackedMatrix* matrix = matrix_of(expected, tensor)) {
      compare(*matrix, *matrix_of(found, tensor), sums);
    }
    if (sums.noise == 0) continue;
    errors.push_back({.name = tensor.name,
                      .sqnr_db = 10 * std::log10(sums.signal / sums.noise),
                      .gain = sums.signal > 0 ? sums.product / sums.signal : 1});
  }
}

}  // namespace

Expected<std::vector<WeightError>> measure_weight_errors(const std::filesystem::path& dir,
                                                         const WeightErrorOptions& options) {
  std::vector<WeightError> errors;
  if (options.numerics.layers.empty() && options.act_dtype == DType::kF32) return errors;
  HADAL_ASSIGN_OR_RETURN(const HfConfig hf, load_hf_config(dir));
  HADAL_ASSIGN_OR_RETURN(const ModelConfig config, make_model_config(hf));
  HADAL_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir));
  const std::vector<PlannedTensor> plan = weight_plan(config);
  std::vector<Error> problems;
  check_checkpoint(config, plan, checkpoint, CheckpointState::kComplete, problems);
  if (!problems.empty()) return tl::unexpected<Error>(std::move(problems.front()).in(dir.string()));
  const NodeShares shares = make_node_shares({}, {}, options.num_threads);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::vector<PlannedTensor> part = layer_plan(config, plan, layer, options.max_experts);
    HADAL_ASSIGN_OR_RETURN(const ModelWeights expected, load_weights(config, part, checkpoint, DType::kF32, shares));
    HADAL_ASSIGN_OR_RETURN(const ModelWeights found,
                           load_weights(config, part, checkpoint, options.act_dtype, shares, {}, options.numerics));
    collect(expected.layers[static_cast<size_t>(layer)], found.layers[static_cast<size_t>(layer)], part, errors);
    if (options.progress) {
      options.progress(static_cast<uint64_t>(layer + 1), static_cast<uint64_t>(config.num_hidden_layers));
    }
  }
  std::sort(errors.begin(), errors.end(),
            [](const WeightError& a, const WeightError& b) { return a.sqnr_db < b.sqnr_db; });
  return errors;
}

}  // namespace hadal
