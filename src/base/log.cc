#include "base/log_record.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

namespace hadal {
namespace {

// Set once at start-up, before other threads log.
LogFormat g_format = LogFormat::kHuman;

spdlog::logger& logger() {
  static const auto instance = [] {
    auto created = spdlog::stderr_color_mt("hadal");
    created->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
    created->flush_on(spdlog::level::info);
    return created;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: break;
  }
  return spdlog::level::off;
}

}  // namespace

void set_log_level(LogLevel level) { logger().set_level(to_spdlog(level)); }

void set_log_format(LogFormat format) {
  g_format = format;
  logger().set_pattern(format == LogFormat::kJson ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})"
                                                  : "%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
}

bool log_enabled(LogLevel level) { return logger().should_log(to_spdlog(level)); }

void log_line(LogLevel level, std::string_view message) { log_record(level, message, {}); }

void log_record(LogLevel level, std::string_view message, const std::vector<LogField>& fields) {
  if (!log_enabled(level)) return;
  if (g_format != LogFormat::kJson) return logger().log(to_spdlog(level), "{}", message);
  nlohmann::ordered_json record = {{"message", std::string(message)}};
  for (const LogField& field : fields) {
    std::visit([&](const auto& value) { record[field.name] = value; }, field.value);
  }
  const std::string object = record.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  logger().log(to_spdlog(level), "{}", std::string_view(object).substr(1, object.size() - 2));
}

}  // namespace hadal
