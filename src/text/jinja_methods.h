// Methods of str, list and dict.
#pragma once

#include <string_view>

#include "text/jinja_value.h"

namespace hadal::jinja {

enum class MethodAccess {
  kNone,  // the type has no such method
  kAllowed,
  kRefused,  // the reference's sandbox refuses it: it would change the value
};
MethodAccess method_access(const Value& value, std::string_view name);

}  // namespace hadal::jinja
