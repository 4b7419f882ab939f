#include "quant/inc_modules.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace hadal {
namespace {

using R = LayerRanges;

constexpr std::string_view kLayerPrefix = "model.layers.";

struct RoleInfo {
  IncRole role;
  IncModuleKind kind;
  std::string_view suffix;
  std::string_view python_class;
};

// In the order of IncRole.
constexpr std::array kRoles = {
    RoleInfo{IncRole::kQA, IncModuleKind::kLinear, "self_attn.q_a_proj", "ReplicatedLinear"},
    RoleInfo{IncRole::kKvA, IncModuleKind::kLinear, "self_attn.kv_a_proj_with_mqa", "ReplicatedLinear"},
    RoleInfo{IncRole::kQB, IncModuleKind::kLinear, "self_attn.mla_attn.impl.q_proj", "ColumnParallelLinear"},
    RoleInfo{IncRole::kKvB, IncModuleKind::kLinear, "self_attn.mla_attn.impl.kv_b_proj", "ColumnParallelLinear"},
    RoleInfo{IncRole::kO, IncModuleKind::kLinear, "self_attn.mla_attn.impl.o_proj", "RowParallelLinear"},
    RoleInfo{IncRole::kMatmulQk, IncModuleKind::kMatmul, "self_attn.mla_attn.impl.matmul_qk", "Matmul"},
    RoleInfo{IncRole::kSoftmax, IncModuleKind::kUnmeasured, "self_attn.mla_attn.impl.softmax", "Softmax"},
    RoleInfo{IncRole::kMatmulAv, IncModuleKind::kMatmul, "self_attn.mla_attn.impl.matmul_av", "Matmul"},
    RoleInfo{IncRole::kBatch2Block, IncModuleKind::kMatmul, "self_attn.mla_attn.impl.batch2block_matmul", "Matmul"},
    RoleInfo{IncRole::kBlock2Batch, IncModuleKind::kMatmul, "self_attn.mla_attn.impl.block2batch_matmul", "Matmul"},
    RoleInfo{IncRole::kLatentCache, IncModuleKind::kKvCache, "self_attn.mla_attn.impl.latent_cache_k", "VLLMKVCache"},
    RoleInfo{IncRole::kSdpa, IncModuleKind::kFusedSdpa, "self_attn.mla_attn.impl.fused_scaled_dot_product_attention",
             "ModuleFusedSDPA"},
    RoleInfo{IncRole::kDenseGateUp, IncModuleKind::kLinear, "mlp.gate_up_proj", "MergedColumnParallelLinear"},
    RoleInfo{IncRole::kDenseDown, IncModuleKind::kLinear, "mlp.down_proj", "RowParallelLinear"},
    RoleInfo{IncRole::kFusedMoe, IncModuleKind::kUnmeasured, "mlp.experts", "FusedMoE"},
    RoleInfo{IncRole::kMoeOp, IncModuleKind::kDynamicMoe, "mlp.experts.moe_op", "VllmMixtureOfExpertsOpFP8"},
    RoleInfo{IncRole::kW13, IncModuleKind::kExpertLinear, "mlp.experts.moe_op.w13_list", "MoeFP8Matmul"},
    RoleInfo{IncRole::kW2, IncModuleKind::kExpertLinear, "mlp.experts.moe_op.w2_list", "MoeFP8Matmul"},
    RoleInfo{IncRole::kSharedGateUp, IncModuleKind::kLinear, "mlp.shared_experts.gate_up_proj",
             "MergedColumnParallelLinear"},
    RoleInfo{IncRole::kSharedDown, IncModuleKind::kLinear, "mlp.shared_experts.down_proj", "RowParallelLinear"},
};

const RoleInfo& info(IncRole role) { return kRoles[static_cast<size_t>(role)]; }

constexpr bool roles_are_in_order() {
  for (size_t i = 0; i < kRoles.size(); ++i) {
    if (static_cast<size_t>(kRoles[i].role) != i) return false;
  }
  return true;
}
static_assert(roles_are_in_order());

std::optional<int64_t> take_number(std::string_view& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0 || value > INT32_MAX) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

RangeSlot scalar(float R::*member) { return {.scalar = member}; }
RangeSlot constant(float value) { return {.constant = value}; }
RangeSlot part(std::vector<float> R::*member, int64_t begin, int64_t end) {
  return {.list = member, .begin = begin, .end = end};
}

class ModuleLister {
 public:
  ModuleLister(const RangeDims& dims, const RankShare& share) : dims_(dims), share_(share) {}

  std::vector<IncModule> run() {
    for (layer_ = 0; layer_ < dims_.num_hidden_layers; ++layer_) {
      add_attention();
      if (!dims_.is_moe_layer(layer_)) {
        add_mlp(IncRole::kDenseGateUp, IncRole::kDenseDown);
        continue;
      }
      add_experts();
      if (dims_.n_shared_experts > 0) add_mlp(IncRole::kSharedGateUp, IncRole::kSharedDown);
    }
    return std::move(modules_);
  }

 private:
  IncModule& add(IncRole role, std::vector<RangeSlot> inputs, std::optional<RangeSlot> weight = std::nullopt,
                 std::optional<int64_t> local_expert = std::nullopt) {
    modules_.push_back({.name = inc_module_name(layer_, role, local_expert),
                        .id = {layer_, role, local_expert},
                        .inputs = std::move(inputs),
                        .outputs = {},
                        .weight = weight});
    return modules_.back();
  }
  RangeSlot heads(std::vector<float> R::*member) const { return part(member, share_.head_begin, share_.head_end); }
  RangeSlot leaves(std::vector<float> R::*member) const {
    const int64_t num_leaves = dims_.leaves_of(layer_), w = share_.world_size;
    return part(member, share_.rank * num_leaves / w, ((share_.rank + 1) * num_leaves + w - 1) / w);
  }

  void add_attention() {
    if (dims_.q_lora_rank > 0) add(IncRole::kQA, {scalar(&R::attention_in)}, scalar(&R::q_a_weight));
    add(IncRole::kKvA, {scalar(&R::attention_in)}, scalar(&R::kv_a_weight));
    add(IncRole::kQB, {scalar(&R::q_b_in)}, heads(&R::q_b_weight));
    add(IncRole::kKvB, {scalar(&R::kv_b_in)}, heads(&R::kv_b_weight));
    add(IncRole::kO, {heads(&R::o_in)}, heads(&R::o_weight));
    add(IncRole::kMatmulQk, {heads(&R::absorbed_q), scalar(&R::latent_cache)});
    add(IncRole::kSoftmax, {});
    add(IncRole::kMatmulAv, {scalar(&R::softmax), scalar(&R::latent_value)});
    add(IncRole::kBatch2Block, {constant(1), heads(&R::batch2block)});
    add(IncRole::kBlock2Batch, {constant(1), heads(&R::block2batch)});
    add(IncRole::kLatentCache, {scalar(&R::latent_cache)});
    add(IncRole::kSdpa, {heads(&R::sdpa_q), heads(&R::sdpa_k), heads(&R::sdpa_v)}).outputs = {heads(&R::sdpa_out),
                                                                                              scalar(&R::softmax)};
  }

  void add_mlp(IncRole gate_up, IncRole down) {
    add(gate_up, {scalar(&R::mlp_in)}, leaves(&R::gate_up_weight));
    add(down, {leaves(&R::down_in)}, leaves(&R::down_weight));
  }

  void add_experts() {
    add(IncRole::kFusedMoe, {});
    std::vector<RangeSlot> outputs = {{.begin = share_.rank, .end = share_.rank + 1, .is_moe_out = true}};
    for (int64_t e = share_.expert_begin; e < share_.expert_end; ++e) {
      outputs.push_back(part(&R::expert_down_in, e, e + 1));
    }
    add(IncRole::kMoeOp, {scalar(&R::mlp_in)}).outputs = std::move(outputs);
    for (const auto& [role, weights] : {std::pair{IncRole::kW13, &R::w13_weight}, {IncRole::kW2, &R::w2_weight}}) {
      for (int64_t e = share_.expert_begin; e < share_.expert_end; ++e) {
        add(role, {constant(0)}, part(weights, e, e + 1), e - share_.expert_begin);
      }
    }
  }

  const RangeDims& dims_;
  const RankShare& share_;
  int64_t layer_ = 0;
  std::vector<IncModule> modules_;
};

}  // namespace

const char* inc_module_kind_name(IncModuleKind kind) {
  switch (kind) {
    case IncModuleKind::kLinear:
      return "linear";
    case IncModuleKind::kMatmul:
      return "matmul";
    case IncModuleKind::kKvCache:
      return "kv_cache";
    case IncModuleKind::kFusedSdpa:
      return "fused_sdpa";
    case IncModuleKind::kDynamicMoe:
      return "dynamic_moe";
    case IncModuleKind::kExpertLinear:
      return "expert linear";
    case IncModuleKind::kUnmeasured:
      return "unmeasured";
  }
  return "unknown";
}

std::string_view inc_role_suffix(IncRole role) { return info(role).suffix; }
std::string_view inc_role_class(IncRole role) { return info(role).python_class; }
IncModuleKind inc_role_kind(IncRole role) { return info(role).kind; }

std::string inc_module_name(int64_t layer, IncRole role, std::optional<int64_t> local_expert) {
  std::string name = fmt::format("{}{}.{}", kLayerPrefix, layer, info(role).suffix);
  if (local_expert) name += fmt::format(".{}", *local_expert);
  return name;
}

std::optional<IncModuleId> parse_inc_module_name(std::string_view name) {
  std::string_view rest = name;
  if (!rest.starts_with(kLayerPrefix)) return std::nullopt;
  rest.remove_prefix(kLayerPrefix.size());
  const auto layer = take_number(rest);
  if (!layer || !rest.starts_with('.')) return std::nullopt;
  rest.remove_prefix(1);
  for (const RoleInfo& role : kRoles) {
    if (!rest.starts_with(role.suffix)) continue;
    std::string_view index = rest.substr(role.suffix.size());
    IncModuleId id = {*layer, role.role, std::nullopt};
    if (role.kind == IncModuleKind::kExpertLinear) {
      if (!index.starts_with('.')) continue;
      index.remove_prefix(1);
      id.local_expert = take_number(index);
      if (!id.local_expert) continue;
    }
    // Rebuilding refuses spellings such as "model.layers.03.".
    if (index.empty() && inc_module_name(id.layer, id.role, id.local_expert) == name) return id;
  }
  return std::nullopt;
}

Expected<RankShare> rank_share(const RangeDims& dims, int64_t rank, int64_t world_size) {
  if (world_size < 1 || rank < 0 || rank >= world_size) {
    return make_error(ErrorCode::kInvalidArgument, "rank {} of world size {}", rank, world_size);
  }
  if (dims.num_attention_heads % world_size != 0) {
    return make_error(ErrorCode::kInvalidArgument, "world size {} does not divide the model's {} attention heads",
                      world_size, dims.num_attention_heads);
  }
  if (dims.n_routed_experts > 0 && dims.n_routed_experts < world_size) {
    return make_error(ErrorCode::kInvalidArgument, "world size {} leaves ranks without any of the model's {} experts",
                      world_size, dims.n_routed_experts);
  }
  const int64_t heads = dims.num_attention_heads / world_size, experts = dims.n_routed_experts / world_size;
  return RankShare{.rank = rank,
                   .world_size = world_size,
                   .head_begin = rank * heads,
                   .head_end = (rank + 1) * heads,
                   .expert_begin = rank * experts,
                   .expert_end = rank + 1 == world_size ? dims.n_routed_experts : (rank + 1) * experts};
}

float range_slot_value(const LayerRanges& layer, const RangeSlot& slot, int64_t world_size) {
  if (slot.scalar == &LayerRanges::latent_value && layer.latent_value == kUnmeasured) return layer.kv_b_in;
  if (slot.scalar) return layer.*slot.scalar;
  if (slot.is_moe_out) {
    const auto found = layer.moe_out.find(world_size);
    return found == layer.moe_out.end() ? kUnmeasured : found->second[static_cast<size_t>(slot.begin)];
  }
  if (!slot.list) return slot.constant;
  const auto begin = (layer.*slot.list).begin();
  return *std::max_element(begin + slot.begin, begin + slot.end);
}

std::vector<IncModule> inc_modules(const RangeDims& dims, const RankShare& share) {
  return ModuleLister(dims, share).run();
}

}  // namespace hadal
