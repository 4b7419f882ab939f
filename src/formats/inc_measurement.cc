#include "formats/inc_measurement.h"

#include <cmath>
#include <unordered_set>

#include "formats/message_text.h"
#include "formats/npz.h"
#include "formats/pickle.h"
#include "formats/python_json.h"

namespace hadal {
namespace {

// Files of the largest known model at world size 1 have 10 MB as .npz, 20 MB as indented JSON.
constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxValues = size_t{4} << 20;
constexpr size_t kMaxNodes = 1 << 20;
constexpr size_t kMaxNameBytes = 1024;

template <typename... Args>
tl::unexpected<Error> invalid(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

// One magnitude, written [[value]].
Expected<float> read_amax(const std::string& node, const std::string& field, const Json& value) {
  const bool has_shape =
      value.is_array() && value.size() == 1 && value[0].is_array() && value[0].size() == 1 && value[0][0].is_number();
  if (!has_shape) {
    return invalid("{}, {}: {}, expected one number as [[x]] (observer maxabs)", node, field, show_json(value));
  }
  const double number = value[0][0].get<double>();
  if (!std::isfinite(static_cast<float>(number)) || number < 0) {
    return invalid("{}, {}: largest magnitude is {}, expected a finite number >= 0", node, field, number);
  }
  return static_cast<float>(number);
}

Status read_amax_list(const std::string& node, const char* field, const Json& value, std::vector<float>& out) {
  if (!value.is_array()) return invalid("{}, {}: {}, expected a list", node, field, show_json(value));
  for (size_t i = 0; i < value.size(); ++i) {
    HADAL_ASSIGN_OR_RETURN(const float amax, read_amax(node, fmt::format("{}[{}]", field, i), value[i]));
    out.push_back(amax);
  }
  return {};
}

Status read_params(const std::string& node, const Json& value, std::optional<float>& weight) {
  if (!value.is_object()) return invalid("{}, params: {}, expected an object", node, show_json(value));
  for (const auto& [name, param] : value.items()) {
    if (name != "weight") return invalid("{}: parameter {}, expected only weight", node, quote_name(name));
    HADAL_ASSIGN_OR_RETURN(weight, read_amax(node, "params.weight", param));
  }
  return {};
}

Expected<IncNode> read_node(const std::string& name, const Json& json) {
  const std::string shown = quote_name(name);
  if (name.empty() || name.size() > kMaxNameBytes) return invalid("a node named {}", shown);
  if (!json.is_object()) return invalid("{}: {}, expected an object", shown, show_json(json));
  IncNode node{.name = name};
  bool has_inputs = false;
  for (const auto& [field, value] : json.items()) {
    if (field == "inputs") {
      has_inputs = true;
      HADAL_RETURN_IF_ERROR(read_amax_list(shown, "inputs", value, node.inputs));
    } else if (field == "outputs") {
      HADAL_RETURN_IF_ERROR(read_amax_list(shown, "outputs", value, node.outputs));
    } else if (field == "params") {
      HADAL_RETURN_IF_ERROR(read_params(shown, value, node.weight));
    } else {
      return invalid("{}: field {}, expected inputs, outputs or params", shown, quote_name(field));
    }
  }
  if (!has_inputs) return invalid("{}: no inputs", shown);
  return node;
}

Status read_nodes(const Json& json, std::vector<IncNode>& nodes) {
  if (!json.is_object()) return invalid("Nodes is {}, expected an object", show_json(json));
  if (json.size() > kMaxNodes) return invalid("{} nodes, at most {} expected", json.size(), kMaxNodes);
  std::unordered_set<std::string> names;
  for (const auto& [name, value] : json.items()) {
    if (!names.insert(name).second) return invalid("node {} appears twice", quote_name(name));
    HADAL_ASSIGN_OR_RETURN(IncNode node, read_node(name, value));
    nodes.push_back(std::move(node));
  }
  return {};
}

Status read_rank(const char* key, const Json& value, std::optional<int64_t>& rank) {
  if (value.is_null()) return {};
  if (!value.is_number_integer() || value < -1 || value > INT32_MAX) {
    return invalid("{} is {}, expected a rank, -1 or null", key, show_json(value));
  }
  rank = value.get<int64_t>();
  return {};
}

Status check_mode(const Json& value) {
  if (value == "DynamicRange") return {};
  if (value == "Scale") {
    return make_error(ErrorCode::kUnsupported,
                      "Mode is \"Scale\": computed scales, not measurements. Give the file without a scale method in "
                      "its name");
  }
  return make_error(ErrorCode::kUnsupported, "Mode is {}, expected \"DynamicRange\"", show_json(value));
}

Json amax_object(float amax) { return Json::array({Json::array({static_cast<double>(amax)})}); }

Json amax_list_object(const std::vector<float>& values) {
  Json out = Json::array();
  for (const float value : values) out.push_back(amax_object(value));
  return out;
}

void write_amax(PickleWriter& out, float amax) {
  constexpr int kShape[] = {1, 1};
  out.array(kShape, {&amax, 1});
}

void write_amax_list(PickleWriter& out, const std::vector<float>& values) {
  out.begin_list();
  for (size_t i = 0; i < values.size(); ++i) {
    out.before_item(i, values.size());
    write_amax(out, values[i]);
    out.after_list_item(i, values.size());
  }
}

void write_node(PickleWriter& out, const IncNode& node) {
  const size_t size = 1 + (node.outputs.empty() ? 0 : 1) + (node.weight ? 1 : 0);
  size_t i = 0;
  const auto field = [&](const char* name, auto write_value) {
    out.before_item(i, size);
    out.string(name);
    write_value();
    out.after_dict_item(i++, size);
  };
  out.begin_dict();
  field("inputs", [&] { write_amax_list(out, node.inputs); });
  if (!node.outputs.empty()) field("outputs", [&] { write_amax_list(out, node.outputs); });
  if (!node.weight) return;
  field("params", [&] {
    out.begin_dict();
    out.string("weight");
    write_amax(out, *node.weight);
    out.after_dict_item(0, 1);
  });
}

void write_rank(PickleWriter& out, const std::optional<int64_t>& rank) {
  if (rank) {
    out.integer(static_cast<int>(*rank));
  } else {
    out.null();
  }
}

}  // namespace

Expected<IncMeasurement> inc_measurement_from_object(const Json& object) {
  if (!object.is_object()) return invalid("{} at the top, expected an object", object.type_name());
  IncMeasurement out;
  bool has_mode = false, has_nodes = false;
  for (const auto& [key, value] : object.items()) {
    if (key == "GlobalRank") {
      HADAL_RETURN_IF_ERROR(read_rank("GlobalRank", value, out.global_rank));
    } else if (key == "LocalRank") {
      HADAL_RETURN_IF_ERROR(read_rank("LocalRank", value, out.local_rank));
    } else if (key == "Mode") {
      HADAL_RETURN_IF_ERROR(check_mode(value));
      has_mode = true;
    } else if (key == "Nodes") {
      HADAL_RETURN_IF_ERROR(read_nodes(value, out.nodes));
      has_nodes = true;
    } else {
      return invalid("key {}, expected GlobalRank, LocalRank, Mode and Nodes", quote_name(key));
    }
  }
  if (!has_mode || !has_nodes) return invalid("no key {}", has_mode ? "Nodes" : "Mode");
  return out;
}

Expected<IncMeasurement> parse_inc_measurement(std::string_view bytes) {
  if (bytes.starts_with("PK")) {
    HADAL_ASSIGN_OR_RETURN(const Json object,
                           object_from_npz(bytes, {.max_bytes = kMaxFileBytes, .max_values = kMaxValues}));
    return inc_measurement_from_object(object);
  }
  HADAL_ASSIGN_OR_RETURN(const Json object, parse_json(bytes, {.max_bytes = kMaxFileBytes,
                                                               .max_depth = 16,
                                                               .max_values = kMaxValues,
                                                               .refuse_duplicate_keys = true}));
  return inc_measurement_from_object(object);
}

std::string inc_measurement_json(const IncMeasurement& measurement) {
  Json nodes = Json::object();
  auto& members = nodes.get_ref<Json::object_t&>();
  for (const IncNode& node : measurement.nodes) {
    Json json = {{"inputs", amax_list_object(node.inputs)}};
    if (!node.outputs.empty()) json["outputs"] = amax_list_object(node.outputs);
    if (node.weight) json["params"] = {{"weight", amax_object(*node.weight)}};
    // Names are distinct, so skip ordered_map's linear search.
    members.Json::object_t::Container::emplace_back(node.name, std::move(json));
  }
  const auto rank = [](const std::optional<int64_t>& value) { return value ? Json(*value) : Json(nullptr); };
  return python_json({{"GlobalRank", rank(measurement.global_rank)},
                      {"LocalRank", rank(measurement.local_rank)},
                      {"Mode", "DynamicRange"},
                      {"Nodes", std::move(nodes)}});
}

std::string inc_measurement_npz(const IncMeasurement& measurement) {
  PickleWriter out;
  auto field = [&out, i = size_t{0}](const char* name, auto write_value) mutable {
    out.before_item(i, 4);
    out.string(name);
    write_value();
    out.after_dict_item(i++, 4);
  };
  out.begin_dict();
  field("GlobalRank", [&] { write_rank(out, measurement.global_rank); });
  field("LocalRank", [&] { write_rank(out, measurement.local_rank); });
  field("Mode", [&] { out.string("DynamicRange"); });
  field("Nodes", [&] {
    out.begin_dict();
    const size_t size = measurement.nodes.size();
    for (size_t i = 0; i < size; ++i) {
      out.before_item(i, size);
      out.string(measurement.nodes[i].name);
      write_node(out, measurement.nodes[i]);
      out.after_dict_item(i, size);
    }
  });
  return npz_from_pickle(std::move(out).finish());
}

std::string inc_mod_list_json(const std::vector<std::string>& module_names) { return python_json(Json(module_names)); }

Expected<std::vector<std::string>> parse_inc_mod_list(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(const Json json,
                         parse_json(text, {.max_bytes = kMaxFileBytes, .max_depth = 4, .max_values = kMaxNodes}));
  if (!json.is_array()) return invalid("{} at the top, expected a list of module names", json.type_name());
  std::vector<std::string> names;
  for (const Json& name : json) {
    if (!name.is_string()) return invalid("{} among the module names", show_json(name));
    names.push_back(name.get<std::string>());
  }
  return names;
}

}  // namespace hadal
