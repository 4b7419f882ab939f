// Log lines with named values, for those who search logs by machine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/log.h"

namespace hadal {

struct LogField {
  std::string name;
  std::variant<std::string, int64_t, double, bool> value;
};

// As log_line(). JSON lines carry the fields as members beside "message"; human lines show the message only.
void log_record(LogLevel level, std::string_view message, const std::vector<LogField>& fields);

}  // namespace hadal
