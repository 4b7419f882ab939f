#include "quant/inc_ranges.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/names.h"
#include "formats/message_text.h"
#include "quant/inc_modules.h"

namespace hadal {
namespace fs = std::filesystem;
namespace {

template <typename... Args>
tl::unexpected<Error> invalid(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

// --- RangeSet to files ---

// Whether the node has all its values; experts' intermediates may be missing.
bool fill_node(const LayerRanges& layer, const IncModule& module, int64_t world_size, IncNode& node) {
  for (const RangeSlot& slot : module.inputs) node.inputs.push_back(range_slot_value(layer, slot, world_size));
  for (const RangeSlot& slot : module.outputs) {
    float value = range_slot_value(layer, slot, world_size);
    if (slot.list == &LayerRanges::expert_down_in) value = std::max(value, 0.0f);
    node.outputs.push_back(value);
  }
  if (module.weight) node.weight = range_slot_value(layer, *module.weight, world_size);
  const auto is_missing = [](float value) { return value == kUnmeasured; };
  return std::none_of(node.inputs.begin(), node.inputs.end(), is_missing) &&
         std::none_of(node.outputs.begin(), node.outputs.end(), is_missing) && node.weight != kUnmeasured;
}

// --- files to RangeSet ---

using NodeIndex = std::unordered_map<std::string_view, const IncNode*>;

std::string at_rank(const IncModule& module, int64_t rank) { return fmt::format("{} of rank {}", module.name, rank); }

// Modules that a differently configured or older calibration measures too, and that never run in FP8.
bool is_without_meaning(std::string_view name) {
  if (const auto id = parse_inc_module_name(name)) return inc_role_kind(id->role) == IncModuleKind::kUnmeasured;
  return name == "lm_head" || name.ends_with(".mlp.gate") || name.ends_with(".latent_cache_v");
}

class Gatherer {
 public:
  Gatherer(const RangeDims& dims, const std::vector<IncMeasurement>& ranks)
      : ranks_(ranks), set_(make_range_set(dims)) {}

  Expected<RangeSet> run() {
    for (size_t r = 0; r < ranks_.size(); ++r) HADAL_RETURN_IF_ERROR(add_rank(static_cast<int64_t>(r)));
    set_.provenance.method = fmt::format("INC files of world size {}", ranks_.size());
    set_.provenance.source_world_size = static_cast<int64_t>(ranks_.size());
    return std::move(set_);
  }

 private:
  Status add_rank(int64_t rank) {
    HADAL_ASSIGN_OR_RETURN(const RankShare share, rank_share(set_.dims, rank, world_size()));
    const std::vector<IncModule> modules = inc_modules(set_.dims, share);
    NodeIndex nodes;
    for (const IncNode& node : ranks_[static_cast<size_t>(rank)].nodes) nodes[node.name] = &node;
    for (const IncModule& module : modules) {
      const auto found = nodes.find(module.name);
      const bool is_present = found != nodes.end();
      HADAL_RETURN_IF_ERROR(check_presence(module, rank, is_present));
      if (!is_present) continue;
      HADAL_RETURN_IF_ERROR(add_node(module, rank, *found->second));
      nodes.erase(found);
    }
    for (const IncNode& node : ranks_[static_cast<size_t>(rank)].nodes) {
      if (nodes.contains(node.name) && !is_without_meaning(node.name)) return unknown_node(node.name, rank, modules);
    }
    return {};
  }

  // A module is in the files of all ranks, or of none. Of an expert's lists the last rank may have more.
  Status check_presence(const IncModule& module, int64_t rank, bool is_present) {
    if (rank == 0) {
      if (is_present) in_rank0_.insert(module.name);
      return {};
    }
    const bool is_in_rank0 = in_rank0_.contains(module.name);
    const bool is_extra_expert = module.id.local_expert && *module.id.local_expert >= experts_of_rank0();
    if (is_present == is_in_rank0 || is_extra_expert) return {};
    return invalid("{} is measured at rank {} but not at rank {}", module.name, is_present ? rank : 0,
                   is_present ? 0 : rank);
  }
  int64_t experts_of_rank0() const { return set_.dims.n_routed_experts / world_size(); }
  int64_t world_size() const { return static_cast<int64_t>(ranks_.size()); }

  Status add_node(const IncModule& module, int64_t rank, const IncNode& node) {
    if (node.inputs.size() != module.inputs.size()) {
      return invalid("{} has {} inputs, expected {}", at_rank(module, rank), node.inputs.size(), module.inputs.size());
    }
    if (node.outputs.size() != module.outputs.size()) {
      const bool is_moe = module.id.role == IncRole::kMoeOp;
      return invalid("{} has {} outputs, expected {}{}", at_rank(module, rank), node.outputs.size(),
                     module.outputs.size(),
                     is_moe ? fmt::format(": 1 + the rank's share of {} experts at world size {}",
                                          set_.dims.n_routed_experts, world_size())
                            : "");
    }
    if (node.weight.has_value() != module.weight.has_value()) {
      return invalid("{} has {} weight", at_rank(module, rank), node.weight ? "a" : "no");
    }
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      HADAL_RETURN_IF_ERROR(add_value(module, rank, fmt::format("inputs[{}]", i), module.inputs[i], node.inputs[i]));
    }
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      HADAL_RETURN_IF_ERROR(add_value(module, rank, fmt::format("outputs[{}]", i), module.outputs[i], node.outputs[i]));
    }
    if (!node.weight) return {};
    return add_value(module, rank, "params.weight", *module.weight, *node.weight);
  }

  Status add_value(const IncModule& module, int64_t rank, const std::string& field, const RangeSlot& slot,
                   float value) {
    LayerRanges& layer = set_.layers[static_cast<size_t>(module.id.layer)];
    if (slot.scalar == &LayerRanges::softmax) {
      raise_range(layer.softmax, value);  // of prefill and of decode: not the same tensor
    } else if (slot.scalar) {
      float& known = layer.*slot.scalar;
      if (known != kUnmeasured && known != value) {
        return invalid("{}, {} is {}, but {} elsewhere: ranks and modules that see the same tensor must agree",
                       at_rank(module, rank), field, value, known);
      }
      known = value;
    } else if (slot.is_moe_out) {
      auto& values = layer.moe_out[world_size()];
      values.resize(ranks_.size(), kUnmeasured);
      values[static_cast<size_t>(slot.begin)] = value;
    } else if (slot.list) {
      for (int64_t i = slot.begin; i < slot.end; ++i) raise_range((layer.*slot.list)[static_cast<size_t>(i)], value);
    } else if (slot.constant != value) {
      return invalid("{}, {} is {}, expected {}", at_rank(module, rank), field, value, slot.constant);
    }
    return {};
  }

  tl::unexpected<Error> unknown_node(const std::string& name, int64_t rank, const std::vector<IncModule>& modules) {
    const auto id = parse_inc_module_name(name);
    std::string why;
    if (id && id->layer >= set_.dims.num_hidden_layers) {
      why = fmt::format(": the model has {} layers", set_.dims.num_hidden_layers);
    } else if (id && id->local_expert) {
      why = fmt::format(": {} experts at world size {} are {} for this rank", set_.dims.n_routed_experts, world_size(),
                        experts_of_rank0());
    } else {
      std::vector<std::string> names;
      for (const IncModule& module : modules) names.push_back(module.name);
      const std::string near = closest_name(name, names);
      if (!near.empty()) why = fmt::format(", nearest is {}", near);
    }
    return invalid("node {} of rank {} is no module of this model{}", quote_name(name), rank, why);
  }

  const std::vector<IncMeasurement>& ranks_;
  RangeSet set_;
  std::unordered_set<std::string> in_rank0_;
};

}  // namespace

Expected<IncRankFile> inc_rank_file(const RangeSet& ranges, int64_t rank, int64_t world_size) {
  HADAL_ASSIGN_OR_RETURN(const RankShare share, rank_share(ranges.dims, rank, world_size));
  IncRankFile out;
  out.measurement.local_rank = rank;
  for (const IncModule& module : inc_modules(ranges.dims, share)) {
    out.module_names.push_back(module.name);
    if (inc_role_kind(module.id.role) == IncModuleKind::kUnmeasured) continue;
    const LayerRanges& layer = ranges.layers[static_cast<size_t>(module.id.layer)];
    if (module.id.role == IncRole::kMoeOp && layer.mlp_in != kUnmeasured && !layer.moe_out.contains(world_size)) {
      return invalid("{}: outputs[0] was not measured for world size {}; calibrate with --wd {}", module.name,
                     world_size, world_size);
    }
    IncNode node{.name = module.name};
    if (fill_node(layer, module, world_size, node)) out.measurement.nodes.push_back(std::move(node));
  }
  return out;
}

Status write_inc_files(const fs::path& base, int64_t world_size, const RangeSet& ranges) {
  for (int64_t rank = 0; rank < world_size; ++rank) {
    HADAL_ASSIGN_OR_RETURN(const IncRankFile file, inc_rank_file(ranges, rank, world_size));
    HADAL_RETURN_IF_ERROR(write_inc_measurement(base, rank, world_size, file.measurement, file.module_names));
  }
  return {};
}

Expected<RangeSet> ranges_from_inc(const RangeDims& dims, const std::vector<IncMeasurement>& ranks) {
  HADAL_RETURN_IF_ERROR(check_range_dims(dims));
  if (ranks.empty()) return invalid("no measurement files");
  HADAL_ASSIGN_OR_RETURN(RangeSet set, Gatherer(dims, ranks).run());
  HADAL_RETURN_IF_ERROR(check_range_set(set));
  return set;
}

Expected<RangeSet> load_ranges(const RangeDims& dims, const fs::path& path, int64_t world_size) {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) {
    HADAL_ASSIGN_OR_RETURN(RangeSet set, read_range_set(path));
    if (const std::string difference = dims_difference(set.dims, dims); !difference.empty()) {
      return invalid("{}: measured on another model: {}", path.string(), difference);
    }
    return set;
  }
  HADAL_ASSIGN_OR_RETURN(const std::vector<int64_t> sizes, list_inc_world_sizes(path));
  if (sizes.empty()) {
    return make_error(ErrorCode::kNotFound, "{}: no measurement files named {}_hooks_maxabs_<rank>_<world size>.npz",
                      path.parent_path().string(), path.filename().string());
  }
  if (world_size == 0 && sizes.size() > 1) {
    return invalid(
        "{}: measurement files of several world sizes ({}): keep one set, or give the ranges file that hadal "
        "calibrate wrote beside them",
        path.string(), fmt::join(sizes, ", "));
  }
  const int64_t wanted = world_size == 0 ? sizes.front() : world_size;
  if (std::find(sizes.begin(), sizes.end(), wanted) == sizes.end()) {
    return make_error(ErrorCode::kNotFound, "{}: no measurement files of world size {}, only of {}", path.string(),
                      wanted, fmt::join(sizes, ", "));
  }
  HADAL_ASSIGN_OR_RETURN(const std::vector<IncMeasurement> ranks, read_inc_measurement_set(path, wanted));
  auto set = ranges_from_inc(dims, ranks);
  if (!set) return forward_error(std::move(set), path.string());
  return set;
}

}  // namespace hadal
