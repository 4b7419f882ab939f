#include "model/inspect.h"

#include <algorithm>
#include <array>
#include <utility>

#include "formats/checkpoint.h"
#include "model/loader.h"
#include "model/weight_plan.h"

namespace hadal {
namespace {

// Order of the table.
constexpr std::array kGroups = {"embedding",      "attention", "dense MLP",       "router",   "routed experts",
                                "shared experts", "norms",     "prediction head", "MTP layer"};
enum Group { kEmbedding, kAttention, kDense, kRouterGroup, kRouted, kShared, kNorms, kHead, kMtp };

Group group_of(const ModelConfig& config, const PlannedTensor& tensor) {
  if (tensor.layer >= config.num_hidden_layers) return kMtp;
  switch (tensor.role) {
    case WeightRole::kEmbedTokens:
      return kEmbedding;
    case WeightRole::kLmHead:
      return kHead;
    case WeightRole::kDenseGate:
    case WeightRole::kDenseUp:
    case WeightRole::kDenseDown:
      return kDense;
    case WeightRole::kRouter:
    case WeightRole::kRouterBias:
      return kRouterGroup;
    case WeightRole::kExpertGate:
    case WeightRole::kExpertUp:
    case WeightRole::kExpertDown:
      return kRouted;
    case WeightRole::kSharedGate:
    case WeightRole::kSharedUp:
    case WeightRole::kSharedDown:
      return kShared;
    default:
      return tensor.shape.rank() == 1 ? kNorms : kAttention;
  }
}

std::vector<WeightGroupSize> group_sizes(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                                         const Checkpoint& checkpoint) {
  std::vector<WeightGroupSize> sizes;
  for (const char* name : kGroups) sizes.push_back({name, 0, 0});
  const auto count = [&](Group group, const Checkpoint::Entry* entry) {
    if (entry == nullptr) return;
    WeightGroupSize& size = sizes[static_cast<size_t>(group)];
    ++size.num_tensors;
    size.checkpoint_bytes += entry->info.size_bytes();
  };
  for (const PlannedTensor& tensor : plan) {
    const Group group = group_of(config, tensor);
    count(group, checkpoint.find(tensor.name));
    if (tensor.dtype == WeightDType::kQuantisable) count(group, checkpoint.find(tensor.scale_name()));
  }
  std::erase_if(sizes, [](const WeightGroupSize& size) { return size.num_tensors == 0; });
  return sizes;
}

}  // namespace

ModelInspection inspect_model(const std::filesystem::path& dir, const KernelTable& kernels) {
  ModelInspection result;
  result.hf = load_hf_config_collecting(dir, result.problems);
  if (result.problems.empty()) {
    std::vector<Error> found;
    ModelConfig config = make_model_config_collecting(result.hf, found);
    if (found.empty()) result.config = std::move(config);
    for (Error& problem : found) result.problems.push_back(std::move(problem).in((dir / "config.json").string()));
  }
  const size_t config_problems = result.problems.size();
  const Checkpoint checkpoint = Checkpoint::open_collecting(dir, result.problems);
  result.checkpoint_bytes = checkpoint.total_tensor_bytes();
  // Without a usable config.json nobody can say which tensors belong here.
  if (!result.config) return result;
  const std::vector<PlannedTensor> plan = weight_plan(*result.config);
  result.sizes = group_sizes(*result.config, plan, checkpoint);
  const bool complete = result.problems.size() == config_problems;
  check_checkpoint(*result.config, plan, checkpoint, complete ? CheckpointState::kComplete : CheckpointState::kDamaged,
                   result.problems);
  if (result.problems.empty()) {
    result.weight_memory_bytes = weight_memory_bytes(*result.config, plan, checkpoint, kernels.act_dtype);
  }
  return result;
}

Expected<uint64_t> weight_memory_bytes(const std::filesystem::path& dir, const KernelTable& kernels,
                                       const NumericsPlan& numerics, const RankSlice& slice) {
  HADAL_ASSIGN_OR_RETURN(const HfConfig hf, load_hf_config(dir));
  auto config = make_model_config(hf);
  if (!config) return forward_error(std::move(config), (dir / "config.json").string());
  HADAL_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir));
  HADAL_RETURN_IF_ERROR(check_rank_slice(*config, slice));
  return weight_memory_bytes(*config, weight_plan(*config), checkpoint, kernels.act_dtype, numerics, slice);
}

}  // namespace hadal
