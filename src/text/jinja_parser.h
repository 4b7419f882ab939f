// Token list to tree.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "text/jinja_ast.h"

namespace hadal::jinja {

// Errors: kInvalidArgument, "line 3: expected ...": broken syntax, and whatever the subset lacks, by name.
Expected<std::unique_ptr<Template>> parse_template(std::string source);

}  // namespace hadal::jinja
