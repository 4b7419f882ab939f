#include "quant/range_set.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/check.h"
#include "quant/range_fields.h"

namespace hadal {
namespace {

// World sizes that moe_out may be recorded for.
constexpr int64_t kMaxWorldSize = 4096;

Status check_amax(int64_t layer, const char* field, std::optional<size_t> index, float value) {
  if (value == kUnmeasured || (std::isfinite(value) && value >= 0)) return {};
  return make_error(ErrorCode::kInvalidArgument,
                    "layer {}, {}{}: largest magnitude is {}, expected a finite number >= 0", layer, field,
                    index ? fmt::format("[{}]", *index) : "", value);
}

Status check_list(int64_t layer, const char* field, const std::vector<float>& values, int64_t expected_size) {
  if (static_cast<int64_t>(values.size()) != expected_size) {
    return make_error(ErrorCode::kInvalidArgument, "layer {}, {} has {} values, the model's dimensions give {}", layer,
                      field, values.size(), expected_size);
  }
  for (size_t i = 0; i < values.size(); ++i) HADAL_RETURN_IF_ERROR(check_amax(layer, field, i, values[i]));
  return {};
}

Status check_layer(const RangeDims& dims, int64_t index, const LayerRanges& layer) {
  for (const RangeScalarField& field : range_scalar_fields()) {
    HADAL_RETURN_IF_ERROR(check_amax(index, field.name, std::nullopt, layer.*field.member));
  }
  for (const RangeListField& field : range_list_fields()) {
    HADAL_RETURN_IF_ERROR(check_list(index, field.name, layer.*field.member, range_extent(dims, index, field.extent)));
  }
  const int64_t num_experts = range_extent(dims, index, RangeExtent::kExperts);
  if (!layer.expert_tokens.empty() && static_cast<int64_t>(layer.expert_tokens.size()) != num_experts) {
    return make_error(ErrorCode::kInvalidArgument, "layer {}, expert_tokens has {} values, the layer {} experts", index,
                      layer.expert_tokens.size(), num_experts);
  }
  if (!layer.moe_out.empty() && num_experts == 0) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} has no experts, but moe_out", index);
  }
  for (const auto& [world_size, values] : layer.moe_out) {
    if (world_size < 1 || world_size > kMaxWorldSize) {
      return make_error(ErrorCode::kInvalidArgument, "layer {}, moe_out of world size {}, expected 1 to {}", index,
                        world_size, kMaxWorldSize);
    }
    HADAL_RETURN_IF_ERROR(check_list(index, "moe_out", values, world_size));
  }
  return {};
}

void raise_all(std::vector<float>& into, const std::vector<float>& from) {
  for (size_t i = 0; i < into.size(); ++i) raise_range(into[i], from[i]);
}

void merge_layer(LayerRanges& into, const LayerRanges& from) {
  for (const RangeScalarField& field : range_scalar_fields()) raise_range(into.*field.member, from.*field.member);
  for (const RangeListField& field : range_list_fields()) raise_all(into.*field.member, from.*field.member);
  if (into.expert_tokens.empty()) {
    into.expert_tokens = from.expert_tokens;
  } else {
    for (size_t i = 0; i < from.expert_tokens.size(); ++i) into.expert_tokens[i] += from.expert_tokens[i];
  }
  for (const auto& [world_size, values] : from.moe_out) {
    const auto [entry, is_new] = into.moe_out.try_emplace(world_size, values);
    if (!is_new) raise_all(entry->second, values);
  }
}

// In the order of range_values().
template <typename Set, typename Fn>
void for_each_value(Set& set, Fn fn) {
  for (auto& layer : set.layers) {
    for (const RangeScalarField& field : range_scalar_fields()) fn(layer.*field.member);
    for (const RangeListField& field : range_list_fields()) {
      for (auto& value : layer.*field.member) fn(value);
    }
    for (auto& [world_size, values] : layer.moe_out) {
      for (auto& value : values) fn(value);
    }
  }
}

void merge_text(std::string& into, const std::string& from) {
  if (into.empty()) {
    into = from;
  } else if (!from.empty() && into != from) {
    into += "; " + from;
  }
}

void merge_provenance(RangeProvenance& into, const RangeProvenance& from) {
  merge_text(into.model, from.model);
  merge_text(into.data, from.data);
  merge_text(into.numerics, from.numerics);
  merge_text(into.method, from.method);
  into.num_prompts += from.num_prompts;
  into.num_tokens += from.num_tokens;
  // Upper bounds of either stay upper bounds; the coarser source says for which world sizes the values are exact.
  if (into.source_world_size == 0 || (from.source_world_size != 0 && from.source_world_size < into.source_world_size)) {
    into.source_world_size = from.source_world_size;
  }
}

Status check_width(const char* name, int64_t width, int64_t leaves) {
  if (leaves == 0 || width % leaves == 0) return {};
  return make_error(ErrorCode::kInvalidArgument, "{} {} cannot be cut into {} equal leaves", name, width, leaves);
}

}  // namespace

Status check_range_dims(const RangeDims& dims) {
  for (const RangeDimField& field : range_dim_fields()) {
    const int64_t value = dims.*field.member;
    if (value < field.min || value > field.max) {
      return make_error(ErrorCode::kInvalidArgument, "{} is {}, expected an integer from {} to {}", field.name, value,
                        field.min, field.max);
    }
  }
  if (dims.n_routed_experts > 0 && dims.moe_intermediate_size == 0) {
    return make_error(ErrorCode::kInvalidArgument, "moe_intermediate_size is 0 with {} experts", dims.n_routed_experts);
  }
  if ((dims.n_shared_experts == 0) != (dims.shared_leaves == 0)) {
    return make_error(ErrorCode::kInvalidArgument, "shared_leaves is {} with {} shared experts", dims.shared_leaves,
                      dims.n_shared_experts);
  }
  HADAL_RETURN_IF_ERROR(check_width("intermediate_size", dims.intermediate_size, dims.dense_leaves));
  return check_width("the shared expert's width", dims.n_shared_experts * dims.moe_intermediate_size,
                     dims.shared_leaves);
}

RangeSet make_range_set(const RangeDims& dims) {
  HADAL_CHECK(check_range_dims(dims).has_value(), "range dims were not checked");
  RangeSet set;
  set.dims = dims;
  set.layers.resize(static_cast<size_t>(dims.num_hidden_layers));
  for (int64_t l = 0; l < dims.num_hidden_layers; ++l) {
    LayerRanges& layer = set.layers[static_cast<size_t>(l)];
    for (const RangeListField& field : range_list_fields()) {
      (layer.*field.member).assign(static_cast<size_t>(range_extent(dims, l, field.extent)), kUnmeasured);
    }
  }
  return set;
}

void raise_range(float& slot, float amax) {
  if (!std::isnan(slot) && !(amax <= slot)) slot = amax;
}

Status check_range_set(const RangeSet& set) {
  HADAL_RETURN_IF_ERROR(check_range_dims(set.dims));
  if (static_cast<int64_t>(set.layers.size()) != set.dims.num_hidden_layers) {
    return make_error(ErrorCode::kInvalidArgument, "{} layers of ranges, num_hidden_layers is {}", set.layers.size(),
                      set.dims.num_hidden_layers);
  }
  for (size_t l = 0; l < set.layers.size(); ++l) {
    HADAL_RETURN_IF_ERROR(check_layer(set.dims, static_cast<int64_t>(l), set.layers[l]));
  }
  return {};
}

std::string dims_difference(const RangeDims& found, const RangeDims& expected) {
  for (const RangeDimField& field : range_dim_fields()) {
    if (found.*field.member != expected.*field.member) {
      return fmt::format("{} is {}, expected {}", field.name, found.*field.member, expected.*field.member);
    }
  }
  return "";
}

Status merge_range_set(RangeSet& into, const RangeSet& from) {
  if (const std::string difference = dims_difference(from.dims, into.dims); !difference.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "ranges of another model: {}", difference);
  }
  HADAL_RETURN_IF_ERROR(check_range_set(into));
  HADAL_RETURN_IF_ERROR(check_range_set(from));
  for (size_t l = 0; l < into.layers.size(); ++l) merge_layer(into.layers[l], from.layers[l]);
  merge_provenance(into.provenance, from.provenance);
  return {};
}

std::vector<float> range_values(const RangeSet& set) {
  std::vector<float> values;
  for_each_value(set, [&](float value) { values.push_back(value); });
  return values;
}

Status raise_range_values(RangeSet& set, std::span<const float> values) {
  const size_t expected = range_values(set).size();
  if (values.size() != expected) {
    return make_error(ErrorCode::kCorrupt, "{} ranges where the model has {}", values.size(), expected);
  }
  size_t next = 0;
  for_each_value(set, [&](float& value) { raise_range(value, values[next++]); });
  return {};
}

}  // namespace hadal
