#include "cli/config_sources.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/names.h"
#include "cli/config_yaml.h"
#include "cli/peer_environment.h"

namespace hadal {
namespace {

constexpr std::string_view kOwnPrefix = "HADAL_";
// Read by tests and their tools; told by a launcher (rank_contract.h).
constexpr std::string_view kNoOptions[] = {"HADAL_BUILD_DIR",  "HADAL_LM_EVAL",          "HADAL_SPEC_DATA",
                                           "HADAL_RANK",       "HADAL_WORLD_SIZE",       "HADAL_LOCAL_RANK",
                                           "HADAL_GENERATION", "HADAL_LOCAL_WORLD_SIZE", "HADAL_IFACE",
                                           "HADAL_AUTH_TOKEN"};

std::string did_you_mean(const std::string& name, const std::vector<std::string>& candidates) {
  const std::string nearest = closest_name(name, candidates);
  return nearest.empty() ? "" : fmt::format(" (did you mean {}?)", nearest);
}

// Kubernetes tells every pod of every service: a service "hadal" gives HADAL_PORT=tcp://10.0.0.1:8000,
// HADAL_SERVICE_HOST, HADAL_PORT_8000_TCP_ADDR and so on.
bool is_kubernetes_service_link(const std::string& name, const std::string& value) {
  const auto contains = [&](const char* part) { return name.find(part) != std::string::npos; };
  const bool is_url = value.starts_with("tcp://") || value.starts_with("udp://");
  if (contains("_PORT") && is_url) return true;
  if (name.ends_with("_SERVICE_HOST") || contains("_SERVICE_PORT")) return true;
  return contains("_PORT_") && (contains("_TCP") || contains("_UDP"));
}

bool is_reserved(const std::string& name, const std::string& value) {
  return std::find(std::begin(kNoOptions), std::end(kNoOptions), name) != std::end(kNoOptions) ||
         is_kubernetes_service_link(name, value);
}

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1));
}

std::vector<std::string> words_of_variable(const RegisteredOption& option, const std::string& value) {
  if (option.kind != OptionKind::kList || value.front() == '[') return {value};
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= value.size();) {
    const size_t end = std::min(value.find(',', begin), value.size());
    words.push_back(trimmed(std::string_view(value).substr(begin, end - begin)));
    begin = end + 1;
  }
  return words;
}

std::vector<std::string> own_variables(const OptionRegistry& registry) {
  std::vector<std::string> names;
  for (const RegisteredOption& option : registry.options()) {
    for (const std::string& name : option.names) names.push_back(environment_name(name));
  }
  return names;
}

const std::string* find_variable(const Environment& environment, const std::string& name) {
  for (const auto& [known, value] : environment) {
    if (known == name && !value.empty() && !is_reserved(known, value)) return &value;
  }
  return nullptr;
}

Status check_own_variables(const OptionRegistry& registry, const Environment& environment) {
  const std::vector<std::string> own = own_variables(registry);
  for (const auto& [name, value] : environment) {
    if (!name.starts_with(kOwnPrefix) || is_reserved(name, value)) continue;
    if (std::find(own.begin(), own.end(), name) != own.end()) continue;
    return make_error(ErrorCode::kInvalidArgument, "environment: {} is not an option{}", name, did_you_mean(name, own));
  }
  return {};
}

Status apply_environment(OptionRegistry& registry, const Environment& environment) {
  for (RegisteredOption& option : registry.options()) {
    if (option.is_set()) continue;
    for (const std::string& name : option.names) {
      const std::string variable = environment_name(name);
      const std::string* value = find_variable(environment, variable);
      if (value == nullptr || option.is_set()) continue;
      HADAL_RETURN_IF_ERROR(set_option(option, words_of_variable(option, *value), false, variable));
    }
    for (const std::string& variable : option.peer_variables) {
      const std::string* value = find_variable(environment, variable);
      if (value == nullptr || option.is_set()) continue;
      HADAL_RETURN_IF_ERROR(set_option(option, {*value}, false, variable));
    }
  }
  return {};
}

std::string config_path(OptionRegistry& registry) {
  const RegisteredOption* config = registry.find("config");
  return config == nullptr ? "" : config->value().get<std::string>();
}

Status apply_file(OptionRegistry& registry, const std::string& path) {
  HADAL_ASSIGN_OR_RETURN(const std::vector<ConfigEntry> entries, read_config_yaml(path));
  std::vector<std::string> names;
  for (const RegisteredOption& option : registry.options()) {
    names.insert(names.end(), option.names.begin(), option.names.end());
    names.insert(names.end(), option.negated_names.begin(), option.negated_names.end());
  }
  std::vector<std::pair<const RegisteredOption*, int>> seen;  // with the line
  for (const ConfigEntry& entry : entries) {
    const std::string origin = fmt::format("{}:{}", path, entry.line);
    RegisteredOption* option = registry.find(entry.name);
    if (option == nullptr || entry.name == "config") {
      return make_error(ErrorCode::kInvalidArgument, "{}: {} is not an option{}", origin, entry.name.substr(0, 80),
                        option == nullptr ? did_you_mean(entry.name, names) : " of the file");
    }
    for (const auto& [other, line] : seen) {
      if (other != option) continue;
      return make_error(ErrorCode::kInvalidArgument, "{}: {} is the option of line {} already", origin, entry.name,
                        line);
    }
    seen.emplace_back(option, entry.line);
    if (option->is_set()) continue;
    const bool negated = std::find(option->negated_names.begin(), option->negated_names.end(), entry.name) !=
                         option->negated_names.end();
    if (entry.is_list && entry.words.empty()) continue;  // as in vLLM: nothing given
    HADAL_RETURN_IF_ERROR(set_option(*option, entry.words, negated, origin));
  }
  return {};
}

Json shown_value(const RegisteredOption& option) {
  const Json value = option.value();
  if (!option.secret || !option.is_set()) return value;
  if (!value.is_array()) return "***";
  return Json(std::vector<std::string>(value.size(), "***"));
}

bool is_shown(const RegisteredOption& option) { return option.has_effect || option.is_set(); }

}  // namespace

Environment current_environment() {
  Environment environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view line(*entry);
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    environment.emplace_back(line.substr(0, equals), line.substr(equals + 1));
  }
  return environment;
}

Status apply_sources(OptionRegistry& registry, const Environment& environment, std::vector<std::string>& warnings) {
  for (RegisteredOption& option : registry.options()) {
    if (option.option->count() > 0) option.origin = "flag";
  }
  HADAL_RETURN_IF_ERROR(check_own_variables(registry, environment));
  HADAL_RETURN_IF_ERROR(apply_environment(registry, environment));
  if (const std::string path = config_path(registry); !path.empty()) {
    auto applied = apply_file(registry, path);
    if (!applied) {  // a file that is not there is a wrong command line
      return make_error(ErrorCode::kInvalidArgument, "{}", applied.error().message);
    }
  }
  return apply_peer_environment(registry, environment, warnings);
}

Json explain_config(const OptionRegistry& registry) {
  Json explained = Json::object();
  for (const RegisteredOption& option : registry.options()) {
    if (is_shown(option)) explained[option.name()] = {{"value", shown_value(option)}, {"origin", option.origin}};
  }
  for (const VariableNote& note : registry.variables()) {
    explained["environment"][note.name] = {{"value", note.value}, {"meaning", note.meaning}};
  }
  return explained;
}

std::string explain_config_table(const OptionRegistry& registry) {
  size_t name_width = 0;
  size_t value_width = 0;
  std::vector<std::array<std::string, 3>> rows;
  for (const RegisteredOption& option : registry.options()) {
    if (!is_shown(option)) continue;
    const Json value = shown_value(option);
    rows.push_back({option.name(), dump_json(value), option.origin + (option.has_effect ? "" : ", no effect here")});
    name_width = std::max(name_width, rows.back()[0].size());
    value_width = std::min<size_t>(40, std::max(value_width, rows.back()[1].size()));
  }
  for (const VariableNote& note : registry.variables()) {
    rows.push_back({note.name, dump_json(note.value), "environment: " + note.meaning});
    name_width = std::max(name_width, note.name.size());
  }
  std::string table;
  for (const auto& [name, value, origin] : rows) {
    table += fmt::format("{:<{}}  {:<{}}  {}\n", name, name_width, value, value_width, origin);
  }
  return table;
}

Json non_default_values(const OptionRegistry& registry) {
  Json values = Json::object();
  for (const RegisteredOption& option : registry.options()) {
    if (option.is_set()) values[option.name()] = shown_value(option);
  }
  return values;
}

}  // namespace hadal
