// Runs a parsed template.
#pragma once

#include <ctime>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "text/jinja_ast.h"

namespace hadal::jinja {

struct RenderSettings {
  size_t max_output_bytes = 0;
  int64_t max_steps = 0;
  int64_t max_copied_bytes = 0;
  std::time_t now = 0;
};

// `context`: an object of variables. Errors: kInvalidArgument and kResourceExhausted, "line 3: ...".
Expected<std::string> render_template(const Template& source, const Json& context, const RenderSettings& settings);

}  // namespace hadal::jinja
