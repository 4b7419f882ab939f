#include "cli/config_registry.h"

#include <algorithm>
#include <utility>

namespace hadal {
namespace {

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

CLI::Option* OptionRegistry::keep(CLI::Option* option, OptionKind kind, std::function<Json()> value) {
  RegisteredOption entry;
  const std::vector<std::string>& negated = option->get_fnames();  // names with a value of their own: "!--no-x"
  for (const std::string& name : option->get_lnames()) {
    (contains(negated, name) ? entry.negated_names : entry.names).push_back(name);
  }
  entry.kind = kind;
  entry.option = option;
  entry.value = std::move(value);
  if (!group_.empty()) option->group(group_);
  // As in vLLM: those that a script gives are overruled by what is put after them. Of two models, none is meant.
  if (kind == OptionKind::kValue && !option->get_positional()) option->take_last();
  options_.push_back(std::move(entry));
  return option;
}

CLI::Option* OptionRegistry::add_seconds(const std::string& flags, std::chrono::milliseconds& variable,
                                         const std::string& help) {
  const auto seconds = [&variable] { return std::chrono::duration<double>(variable).count(); };
  const auto assign = [&variable](const double& value) {
    variable = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::duration<double>(value));
  };
  constexpr double kMostSeconds = 1e9;
  CLI::Option* option = command_.add_option_function<double>(flags, assign, help);
  option->default_str(fmt::format("{}", seconds()))->check(CLI::Range(0.0, kMostSeconds).description(""));
  return keep(option, OptionKind::kValue, [seconds] { return Json(seconds()); });
}

CLI::Option* OptionRegistry::add_without_effect(const std::string& flags, bool takes_value) {
  CLI::Option* option = takes_value ? command_.add_option(flags) : command_.add_flag(flags);
  keep(option, takes_value ? OptionKind::kValue : OptionKind::kSwitch,
       [option] { return option->count() == 0 ? Json() : Json(option->results().back()); });
  options_.back().has_effect = false;
  return option->group("");  // not shown by --help
}

RegisteredOption* OptionRegistry::find(const std::string& name) {
  for (RegisteredOption& option : options_) {
    if (contains(option.names, name) || contains(option.negated_names, name)) return &option;
  }
  return nullptr;
}

Status set_option(RegisteredOption& option, const std::vector<std::string>& words, bool negated,
                  const std::string& origin) {
  std::vector<std::string> results = words;
  if (option.kind != OptionKind::kList && words.size() != 1) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {} takes one value, not a list of {}", origin, option.name(),
                      words.size());
  }
  if (option.kind == OptionKind::kSwitch) {
    const std::optional<bool> on = parse_switch(words.front());
    if (!on) {
      return make_error(ErrorCode::kInvalidArgument, "{}: {} is on or off, not '{}'. Write true or false.", origin,
                        option.name(), words.front());
    }
    if (!option.has_effect && *on == negated) return {};
    results = {*on != negated ? "true" : "false"};
  }
  try {
    option.option->add_result(results);
    option.option->run_callback();
  } catch (const CLI::Error& error) {
    option.option->clear();
    return make_error(ErrorCode::kInvalidArgument, "{}: {}", origin, error.what());
  }
  option.origin = origin;
  return {};
}

std::string environment_name(const std::string& option_name) {
  std::string name = "HADAL_" + option_name;
  for (char& c : name) {
    if (c == '-') c = '_';
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return name;
}

std::optional<bool> parse_switch(std::string_view word) {
  std::string lower(word);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  for (const char* on : {"true", "1", "yes", "on"}) {
    if (lower == on) return true;
  }
  for (const char* off : {"false", "0", "no", "off"}) {
    if (lower == off) return false;
  }
  return std::nullopt;
}

}  // namespace hadal
