// JSON to values of the template language.
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "text/jinja_value.h"

namespace hadal::jinja {

// Errors: kResourceExhausted beyond kMaxValueDepth or the budget.
Expected<Value> from_json(const Json& json, Budget& budget);

}  // namespace hadal::jinja
