#include "cli/rank_keys.h"

#include "base/json.h"

namespace hadal {

std::string write_rank_to_end(const RankToEnd& end) { return dump_json({{"rank", end.rank}, {"pid", end.pid}}); }

Expected<RankToEnd> parse_rank_to_end(const std::string& text) {
  HADAL_ASSIGN_OR_RETURN(const Json json, parse_json(text));
  const auto has = [&](const char* name) {
    return json.is_object() && json.contains(name) && json[name].is_number_integer();
  };
  if (!has("rank") || !has("pid")) return make_error(ErrorCode::kCorrupt, "no rank and process to end: {:.80}", text);
  return RankToEnd{.rank = json["rank"].get<int>(), .pid = json["pid"].get<int>()};
}

std::string write_rank_report(const RankReport& report) {
  return dump_json({{"nonce", report.nonce},
                    {"error", report.error},
                    {"pid", report.pid},
                    {"host", report.host},
                    {"threads", report.num_threads},
                    {"memory_bytes", report.memory_bytes}});
}

Expected<RankReport> parse_rank_report(const std::string& text) {
  HADAL_ASSIGN_OR_RETURN(const Json json, parse_json(text));
  const bool is_report = json.is_object() && json.contains("nonce") && json["nonce"].is_string() &&
                         json.contains("error") && json["error"].is_string() && json.contains("host") &&
                         json["host"].is_string();
  if (!is_report) return make_error(ErrorCode::kCorrupt, "a rank's report is incomplete");
  RankReport report{.nonce = json["nonce"], .error = json["error"], .pid = 0, .host = json["host"]};
  const auto number = [&](const char* name) -> int64_t {
    return json.contains(name) && json[name].is_number_integer() ? json[name].get<int64_t>() : 0;
  };
  report.pid = static_cast<int>(number("pid"));
  report.num_threads = static_cast<int>(number("threads"));
  report.memory_bytes = static_cast<uint64_t>(number("memory_bytes"));
  return report;
}

}  // namespace hadal
