#include <algorithm>
#include <cmath>
#include <optional>

#include "base/file.h"
#include "base/json.h"
#include "base/names.h"
#include "formats/json_fields.h"
#include "formats/message_text.h"
#include "quant/range_fields.h"
#include "quant/range_set.h"

namespace hadal {
namespace {

constexpr const char* kFormat = "hadal ranges";
constexpr int64_t kVersion = 1;
// A set of the largest known model (61 layers, 384 experts, 128 heads) has 3 MB and 200,000 values.
constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr size_t kMaxValues = size_t{8} << 20;

struct TextField {
  const char* name;
  std::string RangeProvenance::*member;
};
constexpr TextField kTexts[] = {{"model", &RangeProvenance::model},
                                {"data", &RangeProvenance::data},
                                {"numerics", &RangeProvenance::numerics},
                                {"method", &RangeProvenance::method}};

Json amax_json(float value) { return value == kUnmeasured ? Json(nullptr) : Json(static_cast<double>(value)); }

Json list_json(const std::vector<float>& values) {
  Json list = Json::array();
  for (const float value : values) list.push_back(amax_json(value));
  return list;
}

Json layer_json(const LayerRanges& layer) {
  Json json = Json::object();
  for (const RangeScalarField& field : range_scalar_fields()) json[field.name] = amax_json(layer.*field.member);
  for (const RangeListField& field : range_list_fields()) json[field.name] = list_json(layer.*field.member);
  json["expert_tokens"] = layer.expert_tokens;
  Json moe_out = Json::object();
  for (const auto& [world_size, values] : layer.moe_out) moe_out[std::to_string(world_size)] = list_json(values);
  json["moe_out"] = std::move(moe_out);
  return json;
}

// --- reading ---

tl::unexpected<Error> wrong(const std::string& where, const Json& found, const char* expected) {
  return make_error(ErrorCode::kInvalidArgument, "{} is {}, expected {}", where, show_json(found), expected);
}

// The member, or an error that names it.
Expected<const Json*> member(const std::string& where, const Json& object, const std::string& name) {
  const auto found = object.find(name);
  if (found == object.end()) return make_error(ErrorCode::kInvalidArgument, "{}.{} is missing", where, name);
  return &*found;
}

// Refuses keys that are not in `known`, naming the nearest.
Status check_keys(const std::string& where, const Json& object, const std::vector<std::string>& known) {
  if (!object.is_object()) return wrong(where, object, "an object");
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string near = closest_name(key, known);
    return make_error(ErrorCode::kUnsupported, "{} has the unknown key {}{}", where, quote_name(key),
                      near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near));
  }
  return {};
}

Status read_amax(const std::string& where, const Json& value, float& out) {
  if (value.is_null()) return {};
  if (!value.is_number()) return wrong(where, value, "a number >= 0 or null");
  const auto amax = static_cast<float>(value.get<double>());
  if (!std::isfinite(amax) || amax < 0) return wrong(where, value, "a number >= 0 or null");
  out = amax;
  return {};
}

Status read_list(const std::string& where, const Json& value, int64_t size, std::vector<float>& out) {
  if (!value.is_array()) return wrong(where, value, "a list of numbers");
  if (static_cast<int64_t>(value.size()) != size) {
    return make_error(ErrorCode::kInvalidArgument, "{} has {} values, the model's dimensions give {}", where,
                      value.size(), size);
  }
  out.assign(value.size(), kUnmeasured);
  for (size_t i = 0; i < value.size(); ++i) HADAL_RETURN_IF_ERROR(read_amax(where, value[i], out[i]));
  return {};
}

Status read_counts(const std::string& where, const Json& value, std::vector<uint64_t>& out) {
  if (!value.is_array()) return wrong(where, value, "a list of counts");
  for (const Json& count : value) {
    if (!count.is_number_unsigned() || count.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
      return wrong(where, count, "a count");
    }
    out.push_back(count.get<uint64_t>());
  }
  return {};
}

Status read_moe_out(const std::string& where, const Json& value, std::map<int64_t, std::vector<float>>& out) {
  if (!value.is_object()) return wrong(where, value, "an object");
  for (const auto& [key, list] : value.items()) {
    const bool is_number = !key.empty() && key.size() <= 4 && key.find_first_not_of("0123456789") == std::string::npos;
    const int64_t world_size = is_number ? std::stoll(key) : 0;
    if (world_size < 1 || std::to_string(world_size) != key) {
      return make_error(ErrorCode::kInvalidArgument, "{} has the key {}, expected a world size", where,
                        quote_name(key));
    }
    HADAL_RETURN_IF_ERROR(read_list(where + "." + key, list, world_size, out[world_size]));
  }
  return {};
}

const std::vector<std::string>& layer_keys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> names = {"expert_tokens", "moe_out"};
    for (const RangeScalarField& field : range_scalar_fields()) names.emplace_back(field.name);
    for (const RangeListField& field : range_list_fields()) names.emplace_back(field.name);
    return names;
  }();
  return keys;
}

Expected<LayerRanges> read_layer(const RangeDims& dims, int64_t index, const Json& json) {
  const std::string where = fmt::format("layers[{}]", index);
  HADAL_RETURN_IF_ERROR(check_keys(where, json, layer_keys()));
  LayerRanges layer;
  for (const RangeScalarField& field : range_scalar_fields()) {
    HADAL_ASSIGN_OR_RETURN(const Json* const value, member(where, json, field.name));
    HADAL_RETURN_IF_ERROR(read_amax(where + "." + field.name, *value, layer.*field.member));
  }
  for (const RangeListField& field : range_list_fields()) {
    HADAL_ASSIGN_OR_RETURN(const Json* const value, member(where, json, field.name));
    HADAL_RETURN_IF_ERROR(
        read_list(where + "." + field.name, *value, range_extent(dims, index, field.extent), layer.*field.member));
  }
  HADAL_ASSIGN_OR_RETURN(const Json* const tokens, member(where, json, "expert_tokens"));
  HADAL_RETURN_IF_ERROR(read_counts(where + ".expert_tokens", *tokens, layer.expert_tokens));
  HADAL_ASSIGN_OR_RETURN(const Json* const moe_out, member(where, json, "moe_out"));
  HADAL_RETURN_IF_ERROR(read_moe_out(where + ".moe_out", *moe_out, layer.moe_out));
  return layer;
}

Expected<RangeDims> read_dims(const Json& json) {
  std::vector<std::string> names;
  for (const RangeDimField& field : range_dim_fields()) names.emplace_back(field.name);
  HADAL_RETURN_IF_ERROR(check_keys("model", json, names));
  RangeDims dims;
  for (const RangeDimField& field : range_dim_fields()) {
    HADAL_ASSIGN_OR_RETURN(const Json* const value, member("model", json, field.name));
    std::optional<int64_t> number;
    std::vector<Error> problems;
    read_int(fmt::format("model.{}", field.name), *value, {field.min, field.max}, number, problems);
    if (!problems.empty()) return tl::unexpected<Error>(problems.front());
    if (!number) return wrong(fmt::format("model.{}", field.name), *value, "an integer");
    dims.*field.member = *number;
  }
  HADAL_RETURN_IF_ERROR(check_range_dims(dims));
  return dims;
}

Expected<RangeProvenance> read_provenance(const Json& json) {
  HADAL_RETURN_IF_ERROR(check_keys(
      "provenance", json, {"model", "data", "numerics", "method", "num_prompts", "num_tokens", "source_world_size"}));
  RangeProvenance provenance;
  std::vector<Error> problems;
  for (const TextField& field : kTexts) {
    HADAL_ASSIGN_OR_RETURN(const Json* const value, member("provenance", json, field.name));
    std::optional<std::string> text;
    read_string(fmt::format("provenance.{}", field.name), *value, text, problems);
    provenance.*field.member = text.value_or("");
  }
  const auto read_count = [&](const char* name) -> Expected<int64_t> {
    HADAL_ASSIGN_OR_RETURN(const Json* const value, member("provenance", json, name));
    std::optional<int64_t> number;
    read_int(fmt::format("provenance.{}", name), *value, {0, INT64_MAX}, number, problems);
    return number.value_or(0);
  };
  HADAL_ASSIGN_OR_RETURN(const int64_t prompts, read_count("num_prompts"));
  HADAL_ASSIGN_OR_RETURN(const int64_t tokens, read_count("num_tokens"));
  HADAL_ASSIGN_OR_RETURN(provenance.source_world_size, read_count("source_world_size"));
  provenance.num_prompts = static_cast<uint64_t>(prompts);
  provenance.num_tokens = static_cast<uint64_t>(tokens);
  if (!problems.empty()) return tl::unexpected<Error>(problems.front());
  return provenance;
}

Status check_header(const Json& json) {
  HADAL_RETURN_IF_ERROR(check_keys("the file", json, {"format", "version", "model", "provenance", "layers"}));
  HADAL_ASSIGN_OR_RETURN(const Json* const format, member("the file", json, "format"));
  if (*format != kFormat) return wrong("format", *format, "\"hadal ranges\"");
  HADAL_ASSIGN_OR_RETURN(const Json* const version, member("the file", json, "version"));
  if (*version != kVersion) {
    return make_error(ErrorCode::kUnsupported, "version {}, this program reads version {}", show_json(*version),
                      kVersion);
  }
  return {};
}

}  // namespace

std::string range_set_to_json(const RangeSet& set) {
  Json dims = Json::object();
  for (const RangeDimField& field : range_dim_fields()) dims[field.name] = set.dims.*field.member;
  Json provenance = Json::object();
  for (const TextField& field : kTexts) provenance[field.name] = set.provenance.*field.member;
  provenance["num_prompts"] = set.provenance.num_prompts;
  provenance["num_tokens"] = set.provenance.num_tokens;
  provenance["source_world_size"] = set.provenance.source_world_size;
  Json layers = Json::array();
  for (const LayerRanges& layer : set.layers) layers.push_back(layer_json(layer));
  return dump_json({{"format", kFormat},
                    {"version", kVersion},
                    {"model", std::move(dims)},
                    {"provenance", std::move(provenance)},
                    {"layers", std::move(layers)}}) +
         "\n";
}

Expected<RangeSet> range_set_from_json(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(
      const Json json,
      parse_json(
          text, {.max_bytes = kMaxFileBytes, .max_depth = 8, .max_values = kMaxValues, .refuse_duplicate_keys = true}));
  HADAL_RETURN_IF_ERROR(check_header(json));
  RangeSet set;
  HADAL_ASSIGN_OR_RETURN(const Json* const model, member("the file", json, "model"));
  HADAL_ASSIGN_OR_RETURN(set.dims, read_dims(*model));
  HADAL_ASSIGN_OR_RETURN(const Json* const provenance, member("the file", json, "provenance"));
  HADAL_ASSIGN_OR_RETURN(set.provenance, read_provenance(*provenance));
  HADAL_ASSIGN_OR_RETURN(const Json* const layers, member("the file", json, "layers"));
  if (!layers->is_array()) return wrong("layers", *layers, "a list");
  if (static_cast<int64_t>(layers->size()) != set.dims.num_hidden_layers) {
    return make_error(ErrorCode::kInvalidArgument, "{} layers, num_hidden_layers is {}", layers->size(),
                      set.dims.num_hidden_layers);
  }
  for (size_t l = 0; l < layers->size(); ++l) {
    HADAL_ASSIGN_OR_RETURN(LayerRanges layer, read_layer(set.dims, static_cast<int64_t>(l), (*layers)[l]));
    set.layers.push_back(std::move(layer));
  }
  HADAL_RETURN_IF_ERROR(check_range_set(set));
  return set;
}

Status write_range_set(const std::filesystem::path& path, const RangeSet& set) {
  HADAL_RETURN_IF_ERROR(check_range_set(set));
  return write_file_atomically(path, range_set_to_json(set));
}

Expected<RangeSet> read_range_set(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxFileBytes));
  auto set = range_set_from_json(text);
  if (!set) return forward_error(std::move(set), path.string());
  return set;
}

}  // namespace hadal
