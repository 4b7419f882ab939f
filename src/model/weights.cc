#include "model/weights.h"

#include <numeric>

#include "base/check.h"
#include "model/weight_form.h"

namespace hadal {
namespace {

constexpr uint64_t kAlignment = 64;
const LayerQuant kUnquantised;

// Hands out aligned pieces of an arena; with base == nullptr it only counts.
class Arena {
 public:
  explicit Arena(std::byte* base = nullptr) : base_(base) {}
  std::byte* take(int64_t bytes) {
    std::byte* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (static_cast<uint64_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
    return piece;
  }
  uint64_t used_bytes() const { return used_; }

 private:
  std::byte* base_;
  uint64_t used_ = 0;
};

class Placer {
 public:
  Placer(const ModelConfig& config, const RankSlice& slice, const NumericsPlan& numerics,
         const StoredDType& stored_dtype, DType act_dtype, std::vector<Arena>& arenas, ModelWeights& weights)
      : config_(config),
        slice_(slice),
        numerics_(numerics),
        stored_dtype_(stored_dtype),
        act_dtype_(act_dtype),
        arenas_(arenas),
        weights_(weights) {
    weights_.layers.resize(static_cast<size_t>(config.num_hidden_layers));
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      LayerWeights& layer = weights_.layers[static_cast<size_t>(i)];
      layer.quant = numerics.layers.empty() ? &kUnquantised : &numerics.layers[static_cast<size_t>(i)];
      layer.is_moe = config.is_moe_layer(i);
      layer.heads.resize(static_cast<size_t>(config.num_attention_heads / slice.world_size));
      layer.experts.resize(static_cast<size_t>(layer.is_moe ? config.router.n_routed_experts : 0));
    }
  }

  std::vector<WeightDestination> place(const std::vector<PlannedTensor>& plan) {
    for (const PlannedTensor& tensor : plan) {
      if (tensor.layer >= config_.num_hidden_layers) continue;
      if (tensor.layer < 0) {
        place_top_level(tensor);
      } else {
        place_in_layer(tensor, weights_.layers[static_cast<size_t>(tensor.layer)]);
      }
    }
    return std::move(destinations_);
  }

 private:
  Arena& arena_of(const PlannedTensor& tensor) {
    return tensor.layer < 0 ? arenas_.back() : arenas_[static_cast<size_t>(tensor.layer)];
  }

  // role: as part_of_tensor().
  void place_matrix(const PlannedTensor& tensor, PackedMatrix& matrix, WeightRole role) {
    const TensorPart part = part_of_tensor(config_, slice_, tensor, role);
    if (part.rows.size() == 0 || part.cols.size() == 0) return;
    const WeightForm form = weight_form(numerics_, tensor, stored_dtype_(tensor), config_.fp8_row_scales, act_dtype_);
    matrix = {.dtype = form.dtype,
              .rows = part.rows.size(),
              .cols = part.cols.size(),
              .col_offset = part.cols.begin % kScaleBlock};
    if (form.dtype == DType::kF8E4M3 && !form.row_scales) {
      matrix.row_offset = row_offset_of_part(part.rows.begin, part.rows.size());
    }
    take_matrix(arena_of(tensor), form, matrix);
    destinations_.push_back({.tensor = &tensor, .part = part, .matrix = &matrix});
  }
  void place_matrix(const PlannedTensor& tensor, PackedMatrix& matrix) { place_matrix(tensor, matrix, tensor.role); }

  TensorPart whole(const PlannedTensor& tensor) const { return part_of_tensor(config_, {}, tensor, tensor.role); }

  static const float* take_floats(Arena& arena, int64_t count) {
    return reinterpret_cast<const float*>(arena.take(count * static_cast<int64_t>(sizeof(float))));
  }

  static PackedMatrix take_matrix(Arena& arena, WeightForm form, int64_t rows, int64_t cols) {
    PackedMatrix matrix{.dtype = form.dtype, .rows = rows, .cols = cols};
    take_matrix(arena, form, matrix);
    return matrix;
  }

  // Memory for a matrix whose shape is set.
  static void take_matrix(Arena& arena, WeightForm form, PackedMatrix& matrix) {
    matrix.panels = arena.take(matrix.panels_bytes());
    if (matrix.num_scales() > 0) matrix.scales = take_floats(arena, matrix.num_scales());
    if (form.row_scales) matrix.row_scales = take_floats(arena, matrix.num_panels() * kPanelRows);
  }

  void place_vector(const PlannedTensor& tensor, const float*& vector) {
    auto* memory = reinterpret_cast<float*>(
        arena_of(tensor).take(tensor.shape.num_elements() * static_cast<int64_t>(sizeof(float))));
    vector = memory;
    destinations_.push_back({.tensor = &tensor, .part = whole(tensor), .vector = memory});
  }

  void place_heads(const PlannedTensor& tensor, std::vector<HeadWeights>& heads) {
    Arena& arena = arena_of(tensor);
    const int64_t rank = config_.kv_lora_rank, nope = config_.qk_nope_head_dim, v = config_.v_head_dim;
    const bool in_f32 = act_dtype_ == DType::kF32 && numerics_.layers.empty();
    const WeightForm plain = {in_f32 ? DType::kF32 : DType::kBF16, false}, in_f8 = {DType::kF8E4M3, true};
    const bool quantised = module_quant(numerics_, tensor).weight == WeightFormat::kRowF8;
    for (HeadWeights& head : heads) {
      head.w_uk = take_matrix(arena, plain, nope, rank);
      head.w_uv = take_matrix(arena, plain, v, rank);
      head.w_uk_t = take_matrix(arena, plain, rank, nope);
      if (!quantised) continue;
      head.w_uk_f8 = take_matrix(arena, in_f8, nope, rank);
      head.w_uv_f8 = take_matrix(arena, in_f8, v, rank);
    }
    destinations_.push_back(
        {.tensor = &tensor, .part = part_of_tensor(config_, slice_, tensor, tensor.role), .heads = &heads});
  }

  void place_top_level(const PlannedTensor& tensor) {
    if (tensor.role == WeightRole::kFinalNorm) return place_vector(tensor, weights_.final_norm);
    if (tensor.role == WeightRole::kLmHead) return place_matrix(tensor, weights_.lm_head);
    HADAL_CHECK(tensor.role == WeightRole::kEmbedTokens, "unexpected {}", tensor.name);
    std::byte* rows =
        arenas_.back().take(tensor.shape.num_elements() * static_cast<int64_t>(dtype_size_bytes(DType::kBF16)));
    weights_.embed_tokens = rows;
    destinations_.push_back({.tensor = &tensor, .part = whole(tensor), .rows = rows});
    if (config_.tie_word_embeddings) place_matrix(tensor, weights_.lm_head, WeightRole::kLmHead);
  }

  void place_in_layer(const PlannedTensor& tensor, LayerWeights& layer) {
    switch (tensor.role) {
      case WeightRole::kInputNorm:
        return place_vector(tensor, layer.input_norm);
      case WeightRole::kPostAttentionNorm:
        return place_vector(tensor, layer.post_attention_norm);
      case WeightRole::kQ:
      case WeightRole::kQB:
        return place_matrix(tensor, layer.q);
      case WeightRole::kQA:
        return place_matrix(tensor, layer.q_a);
      case WeightRole::kQANorm:
        return place_vector(tensor, layer.q_a_norm);
      case WeightRole::kKvA:
        return place_matrix(tensor, layer.kv_a);
      case WeightRole::kKvANorm:
        return place_vector(tensor, layer.kv_a_norm);
      case WeightRole::kKvB:
        return place_heads(tensor, layer.heads);
      case WeightRole::kO:
        return place_matrix(tensor, layer.o);
      case WeightRole::kRouter:
        return place_matrix(tensor, layer.router);
      case WeightRole::kRouterBias:
        return place_vector(tensor, layer.router_bias);
      case WeightRole::kDenseGate:
      case WeightRole::kSharedGate:
        return place_matrix(tensor, layer.mlp.gate);
      case WeightRole::kDenseUp:
      case WeightRole::kSharedUp:
        return place_matrix(tensor, layer.mlp.up);
      case WeightRole::kDenseDown:
      case WeightRole::kSharedDown:
        return place_matrix(tensor, layer.mlp.down);
      case WeightRole::kExpertGate:
        return place_matrix(tensor, layer.experts[static_cast<size_t>(tensor.expert)].gate);
      case WeightRole::kExpertUp:
        return place_matrix(tensor, layer.experts[static_cast<size_t>(tensor.expert)].up);
      case WeightRole::kExpertDown:
        return place_matrix(tensor, layer.experts[static_cast<size_t>(tensor.expert)].down);
      default:
        HADAL_CHECK(false, "{} has no place in a main layer", tensor.name);
    }
  }

  const ModelConfig& config_;
  const RankSlice slice_;
  const NumericsPlan& numerics_;
  const StoredDType& stored_dtype_;
  const DType act_dtype_;
  std::vector<Arena>& arenas_;
  ModelWeights& weights_;
  std::vector<WeightDestination> destinations_;
};

}  // namespace

std::vector<uint64_t> weight_arena_bytes(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                                         const NumericsPlan& numerics, const StoredDType& stored_dtype, DType act_dtype,
                                         const RankSlice& slice) {
  std::vector<Arena> arenas(static_cast<size_t>(config.num_hidden_layers) + 1);
  ModelWeights scratch;
  Placer(config, slice, numerics, stored_dtype, act_dtype, arenas, scratch).place(plan);
  std::vector<uint64_t> bytes;
  for (const Arena& arena : arenas) bytes.push_back(arena.used_bytes());
  return bytes;
}

Expected<std::vector<WeightDestination>> place_weights(const ModelConfig& config,
                                                       const std::vector<PlannedTensor>& plan,
                                                       const StoredDType& stored_dtype, DType act_dtype,
                                                       ModelWeights& weights, const RankSlice& slice) {
  const std::vector<uint64_t> arena_bytes =
      weight_arena_bytes(config, plan, weights.numerics, stored_dtype, act_dtype, slice);
  const uint64_t total = std::accumulate(arena_bytes.begin(), arena_bytes.end(), uint64_t{0});
  HADAL_RETURN_IF_ERROR(check_memory_available(total, "the model's weights"));
  std::vector<Arena> arenas;
  for (const uint64_t bytes : arena_bytes) {
    HADAL_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::create(bytes, "the model's weights"));
    arenas.emplace_back(buffer.data());
    weights.arenas.push_back(std::move(buffer));
  }
  return Placer(config, slice, weights.numerics, stored_dtype, act_dtype, arenas, weights).place(plan);
}

}  // namespace hadal
