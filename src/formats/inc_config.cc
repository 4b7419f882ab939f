#include "formats/inc_config.h"

#include <algorithm>
#include <functional>
#include <span>

#include "base/file.h"
#include "base/json.h"
#include "base/names.h"
#include "formats/json_fields.h"
#include "formats/message_text.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxListLength = 4096;
constexpr size_t kMaxPatternBytes = 1024;

using C = IncConfig;

// Choices of an enum, in the order of its values.
constexpr const char* kModes[] = {"QUANTIZE", "MEASURE", "SHAPE", "LOAD", "NONE"};
constexpr const char* kFp8Types[] = {"E4M3", "E5M2"};
constexpr const char* kHpDtypes[] = {"BF16", "FP16", "FP32"};
constexpr const char* kObservers[] = {"MAXABS", "MAXABS_PER_CHANNEL", "SHAPE", "SAVE"};
constexpr const char* kScaleFormats[] = {"SCALAR", "CONST"};
constexpr const char* kExcludes[] = {"NONE", "INPUT", "OUTPUT", "PARAMS", "ALL"};
constexpr const char* kDevices[] = {"GAUDI2", "GAUDI3"};
constexpr const char* kScaleMethods[] = {"MAX",
                                         "UNIT_SCALE",
                                         "HW_ALIGNED_SINGLE_SCALE",
                                         "MAXABS_HW",
                                         "MAXABS_POW2",
                                         "MAXABS_ARBITRARY",
                                         "MAXABS_HW_OPT_WEIGHT",
                                         "MAXABS_POW2_OPT_WEIGHT",
                                         "ACT_MAXABS_HW_WEIGHTS_PCS_MAXABS_POW2",
                                         "ACT_MAXABS_HW_WEIGHTS_PCS_OPT_POW2",
                                         "ACT_MAXABS_POW2_WEIGHTS_PCS_MAXABS_POW2",
                                         "ACT_MAXABS_POW2_WEIGHTS_PCS_OPT_POW2",
                                         "SMOOTHQUANT_WEIGHTS_OUTPUT_CHANNEL_MAXABS_POW2",
                                         "WEAKSMOOTHQUANT_WEIGHTS_OUTPUT_CHANNEL_MAXABS_POW2",
                                         "SMOOTHQUANT_OPT"};

std::string upper(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

void add_problem(std::vector<Error>& problems, std::string message) {
  problems.push_back({ErrorCode::kInvalidArgument, std::move(message)});
}

template <typename Enum>
void read_enum(const std::string& name, const Json& value, std::span<const char* const> choices, Enum& out,
               std::vector<Error>& problems) {
  if (value.is_string()) {
    const std::string wanted = upper(value.get<std::string>());
    const auto found = std::find(choices.begin(), choices.end(), wanted);
    if (found != choices.end()) {
      out = static_cast<Enum>(found - choices.begin());
      return;
    }
  }
  std::string list;
  for (const char* choice : choices) list += (list.empty() ? "" : ", ") + std::string(choice);
  add_problem(problems, fmt::format("{} is {}, expected one of {} (in any case)", name, show_json(value), list));
}

void read_strings(const std::string& name, const Json& value, std::vector<std::string>& out,
                  std::vector<Error>& problems) {
  bool fits = value.is_array() && value.size() <= kMaxListLength;
  for (size_t i = 0; fits && i < value.size(); ++i) {
    fits = value[i].is_string() && value[i].get_ref<const std::string&>().size() <= kMaxPatternBytes;
  }
  if (!fits) {
    add_problem(problems, fmt::format("{} is {}, expected a list of at most {} strings of {} bytes", name,
                                      show_json(value), kMaxListLength, kMaxPatternBytes));
    return;
  }
  out = value.get<std::vector<std::string>>();
}

void read_module_list(const std::string& name, const Json& value, IncModuleList& out, std::vector<Error>& problems) {
  if (!value.is_object()) {
    return add_problem(problems,
                       fmt::format("{} is {}, expected {{\"names\": [], \"types\": []}}", name, show_json(value)));
  }
  for (const auto& [key, list] : value.items()) {
    if (key == "names") {
      read_strings(name + ".names", list, out.names, problems);
    } else if (key == "types") {
      read_strings(name + ".types", list, out.types, problems);
    } else {
      add_problem(problems, fmt::format("{} has the key {}, expected names and types", name, quote_name(key)));
    }
  }
}

void read_scale_params(const std::string& name, const Json& value, C& out, std::vector<Error>& problems) {
  if (!value.is_object()) {
    return add_problem(problems, fmt::format("{} is {}, expected an object", name, show_json(value)));
  }
  constexpr NumberRange kBackoff = {0.0, 1.0, true};
  for (const auto& [key, number] : value.items()) {
    if (key == "input_backoff") {
      read_number(name + ".input_backoff", number, kBackoff, out.input_backoff, problems);
    } else if (key == "weight_backoff") {
      read_number(name + ".weight_backoff", number, kBackoff, out.weight_backoff, problems);
    } else {
      add_problem(problems,
                  fmt::format("{} has the key {}, expected input_backoff and weight_backoff", name, quote_name(key)));
    }
  }
}

using Field = JsonField<C>;

template <typename Enum>
Field enum_field(const char* name, Enum C::*member, std::span<const char* const> choices) {
  return {name, [=](const std::string& label, const Json& value, C& out, std::vector<Error>& problems) {
            read_enum(label, value, choices, out.*member, problems);
          }};
}

Field flag_field(const char* name, bool C::*member) {
  return {name, [=](const std::string& label, const Json& value, C& out, std::vector<Error>& problems) {
            std::optional<bool> flag;
            read_bool(label, value, flag, problems);
            out.*member = flag.value_or(out.*member);
          }};
}

Field list_field(const char* name, IncModuleList C::*member) {
  return {name, [=](const std::string& label, const Json& value, C& out, std::vector<Error>& problems) {
            read_module_list(label, value, out.*member, problems);
          }};
}

Field ignored_field(const char* name) {
  return {name, [](const std::string& label, const Json&, C& out, std::vector<Error>&) {
            out.ignored_keys.push_back(label);
          }};
}

void read_device(const std::string& name, const Json& value, C& out, std::vector<Error>& problems) {
  if (value.is_null()) return;
  IncDevice device = IncDevice::kGaudi2;
  const size_t before = problems.size();
  read_enum(name, value, kDevices, device, problems);
  if (problems.size() == before) out.device_for_scales = device;
}

void read_dump_path(const std::string& name, const Json& value, C& out, std::vector<Error>& problems) {
  std::optional<std::string> path;
  read_string(name, value, path, problems);
  if (path && path->empty()) return add_problem(problems, name + " is empty");
  if (path) out.dump_stats_path = *path;
}

const std::vector<Field>& fields() {
  static const std::vector<Field> table = {
      enum_field("mode", &C::mode, kModes),
      {"dump_stats_path", read_dump_path},
      enum_field("fp8_config", &C::fp8_config, kFp8Types),
      enum_field("hp_dtype", &C::hp_dtype, kHpDtypes),
      list_field("allowlist", &C::allowlist),
      list_field("whitelist", &C::allowlist),  // old spelling
      list_field("blocklist", &C::blocklist),
      list_field("blacklist", &C::blocklist),  // old spelling
      enum_field("observer", &C::observer, kObservers),
      enum_field("scale_method", &C::scale_method, kScaleMethods),
      {"scale_params", read_scale_params},
      enum_field("scale_format", &C::scale_format, kScaleFormats),
      flag_field("ignore_modules_wo_measures", &C::ignore_modules_wo_measures),
      flag_field("seperate_measure_files", &C::seperate_measure_files),
      {"device_for_scales", read_device},
      enum_field("measure_exclude", &C::measure_exclude, kExcludes),
      flag_field("recalc_scales", &C::recalc_scales),
      flag_field("fake_quant", &C::fake_quant),
      flag_field("use_qdq", &C::use_qdq),
      flag_field("measure_on_hpu", &C::measure_on_hpu),
      ignored_field("method"),
      ignored_field("quantize_weight"),
  };
  return table;
}

std::string unknown_key(const std::string& key) {
  std::vector<std::string> names;
  for (const Field& field : fields()) names.push_back(field.name);
  const std::string near = closest_name(key, names);
  return fmt::format("unknown key {}{}", quote_name(key),
                     near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near));
}

// Two spellings of one list would leave open which of them counts.
Status check_spellings(const Json& json) {
  for (const auto& [now, old] : {std::pair{"allowlist", "whitelist"}, {"blocklist", "blacklist"}}) {
    if (json.contains(now) && json.contains(old)) {
      return make_error(ErrorCode::kInvalidArgument, "both {} and its old spelling {} are given", now, old);
    }
  }
  return {};
}

}  // namespace

const char* inc_scale_method_name(IncScaleMethod method) { return kScaleMethods[static_cast<size_t>(method)]; }
const char* inc_mode_name(IncMode mode) { return kModes[static_cast<size_t>(mode)]; }

Expected<IncConfig> parse_inc_config(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(const Json json,
                         parse_json(text, {.max_bytes = kMaxFileBytes, .max_depth = 8, .refuse_duplicate_keys = true}));
  if (!json.is_object()) return make_error(ErrorCode::kCorrupt, "{} at the top, expected an object", json.type_name());
  HADAL_RETURN_IF_ERROR(check_spellings(json));
  IncConfig config;
  std::vector<Error> problems;
  for (const auto& [key, value] : json.items()) {
    if (const Field* field = find_field(fields(), key)) {
      field->read(key, value, config, problems);
    } else {
      add_problem(problems, unknown_key(key));
    }
  }
  if (!problems.empty()) return tl::unexpected<Error>(std::move(problems.front()));
  return config;
}

Expected<IncConfig> load_inc_config(const std::filesystem::path& path) {
  if (path.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "INC quantisation needs a config: set QUANT_CONFIG or --quant-config to its JSON file");
  }
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxFileBytes));
  auto config = parse_inc_config(text);
  if (!config) return forward_error(std::move(config), path.string());
  return config;
}

}  // namespace hadal
