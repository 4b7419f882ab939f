// INC's allow and block lists: which modules are quantised. Facts: spec/gaudi-pipeline.md 4.1.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/inc_config.h"

namespace hadal {

// Immutable and thread-safe once compiled. Movable.
class ModuleFilter {
 public:
  // Errors: kInvalidArgument naming list, entry and position for a regular expression that is none, and for a type that
  // is no patchable class.
  static Expected<ModuleFilter> compile(const IncModuleList& allowlist, const IncModuleList& blocklist);

  // Allowed (by name or type, or both allow lists empty) and not blocked. Regular expressions are searched anywhere in
  // the name. Errors: kResourceExhausted when one needs too many steps.
  Expected<bool> selects(std::string_view module_name, std::string_view python_class) const;

 private:
  struct Pattern;
  struct Rules {
    std::vector<std::shared_ptr<const Pattern>> names;
    std::vector<std::string> types;
  };
  static Expected<Rules> compile_rules(const char* list, const IncModuleList& from);
  static Expected<bool> matches(const Rules& rules, std::string_view name, std::string_view type);

  Rules allow_, block_;
};

}  // namespace hadal
