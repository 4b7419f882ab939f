// The options of a command in one list: each is a flag, a variable of the environment (HADAL_<FLAG>) and a name in the
// configuration file, and knows which of them gave it its value.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

enum class OptionKind { kSwitch, kValue, kList };

struct RegisteredOption {
  std::vector<std::string> names;          // without dashes; the first one is reported
  std::vector<std::string> negated_names;  // of a switch: "no-enable-prefix-caching"
  OptionKind kind = OptionKind::kValue;
  std::vector<std::string> peer_variables;  // read after HADAL_<FLAG>: "VLLM_API_KEY"
  bool secret = false;                      // its value is never shown
  bool has_effect = true;                   // false: a peer's flag that is only accepted
  CLI::Option* option = nullptr;            // of the command
  std::function<Json()> value;              // what is in force
  std::string origin = "default";           // "flag", "HADAL_PORT", "serve.yaml:3"

  const std::string& name() const { return names.front(); }
  bool is_set() const { return origin != "default"; }
};

using Environment = std::vector<std::pair<std::string, std::string>>;  // name, value

// A variable of a peer that was found in the environment and is not the value of an option.
struct VariableNote {
  std::string name;
  std::string value;
  std::string meaning;  // what it does here, or why it does nothing
  bool has_effect = false;
};

// Belongs to the main thread. The variables must outlive it.
class OptionRegistry {
 public:
  explicit OptionRegistry(CLI::App& command) : command_(command) {}

  // Options added from now on stand under this heading in --help.
  void begin_group(std::string heading) { group_ = std::move(heading); }

  // As CLI::App::add_option or, for a bool, add_flag. `flags`: "--name,--other-name,!--negated-name".
  template <typename T>
  CLI::Option* add(const std::string& flags, T& variable, const std::string& help);
  // A time that is written in seconds.
  CLI::Option* add_seconds(const std::string& flags, std::chrono::milliseconds& variable, const std::string& help);
  // Accepted, without a variable to go to.
  CLI::Option* add_without_effect(const std::string& flags, bool takes_value);

  // For the option added last.
  void hide_value() { options_.back().secret = true; }

  void note_variable(VariableNote note) { variables_.push_back(std::move(note)); }
  const std::vector<VariableNote>& variables() const { return variables_; }

  std::deque<RegisteredOption>& options() { return options_; }
  const std::deque<RegisteredOption>& options() const { return options_; }
  // By any of its names, negated ones included. Null: none.
  RegisteredOption* find(const std::string& name);

 private:
  CLI::Option* keep(CLI::Option* option, OptionKind kind, std::function<Json()> value);

  CLI::App& command_;
  std::string group_;
  std::deque<RegisteredOption> options_;
  std::vector<VariableNote> variables_;
};

// Gives the option a value as if it had been written on the command line; `words` holds one word unless it is a list.
// `negated`: under a negated name. Errors: kInvalidArgument beginning with the origin.
Status set_option(RegisteredOption& option, const std::vector<std::string>& words, bool negated,
                  const std::string& origin);

// "max-model-len" -> "HADAL_MAX_MODEL_LEN"
std::string environment_name(const std::string& option_name);
// true, 1, yes, on and their opposites, in any case. Nothing for other words.
std::optional<bool> parse_switch(std::string_view word);

template <typename T>
CLI::Option* OptionRegistry::add(const std::string& flags, T& variable, const std::string& help) {
  const auto value = [&variable] { return Json(variable); };
  if constexpr (std::is_same_v<T, bool>) {
    return keep(command_.add_flag(flags, variable, help), OptionKind::kSwitch, value);
  } else {
    constexpr bool kIsList = std::is_same_v<T, std::vector<std::string>>;
    return keep(command_.add_option(flags, variable, help), kIsList ? OptionKind::kList : OptionKind::kValue, value);
  }
}

}  // namespace hadal
