#include "bench/report_reader.h"

#include <cmath>

namespace hadal {
namespace {

constexpr size_t kMaxRows = 10'000;
constexpr size_t kMaxNameBytes = 200;

const Json* find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

tl::unexpected<Error> bad_field(const std::string& row, const char* key, const char* expected) {
  return make_error(ErrorCode::kCorrupt, "row \"{}\": {} must be {}", row, key, expected);
}

Status read_number(const Json& object, const std::string& row, const char* key, std::optional<double>& out) {
  const Json* value = find(object, key);
  if (value == nullptr) return {};
  if (!value->is_number() || !std::isfinite(value->get<double>()) || value->get<double>() < 0) {
    return bad_field(row, key, "a number of at least 0");
  }
  out = value->get<double>();
  return {};
}

Status read_spread(const Json& object, const std::string& row, const char* key, std::optional<Spread>& out) {
  const Json* value = find(object, key);
  if (value == nullptr) return {};
  std::optional<double> median, min, max;
  HADAL_RETURN_IF_ERROR(read_number(*value, row, "median", median));
  HADAL_RETURN_IF_ERROR(read_number(*value, row, "min", min));
  HADAL_RETURN_IF_ERROR(read_number(*value, row, "max", max));
  if (!median || !min || !max) return bad_field(row, key, "{\"median\", \"min\", \"max\"}");
  out = Spread{*median, *min, *max};
  return {};
}

Status read_shares(const Json& object, const std::string& row, std::optional<LossShares>& out) {
  const Json* value = find(object, "shares");
  if (value == nullptr) return {};
  out.emplace();
  for (size_t i = 0; i < kNumLosses; ++i) {
    std::optional<double> share;
    HADAL_RETURN_IF_ERROR(read_number(*value, row, kLossNames[i], share));
    (*out)[i] = share.value_or(0);
  }
  return {};
}

Expected<ReportRow> read_row(const Json& json) {
  ReportRow row;
  const Json* name = find(json, "name");
  if (name == nullptr || !name->is_string() || name->get_ref<const std::string&>().size() > kMaxNameBytes) {
    return make_error(ErrorCode::kCorrupt, "a row without a name, or with one over {} bytes", kMaxNameBytes);
  }
  row.name = name->get<std::string>();
  if (const Json* kind = find(json, "kind"); kind != nullptr && kind->is_string()) row.group = kind->get<std::string>();
  HADAL_RETURN_IF_ERROR(read_spread(json, row.name, "seconds", row.seconds));
  HADAL_RETURN_IF_ERROR(read_spread(json, row.name, "tokens_per_s", row.tokens_per_s));
  HADAL_RETURN_IF_ERROR(read_number(json, row.name, "gb_per_s", row.gb_per_s));
  HADAL_RETURN_IF_ERROR(read_number(json, row.name, "gflops", row.gflops));
  HADAL_RETURN_IF_ERROR(read_number(json, row.name, "ceiling_share", row.ceiling_share));
  HADAL_RETURN_IF_ERROR(read_number(json, row.name, "target_share", row.target_share));
  HADAL_RETURN_IF_ERROR(read_shares(json, row.name, row.shares));
  return row;
}

void read_facts(const Json& json, const char* section, Report& report) {
  const Json* facts = find(json, section);
  if (facts == nullptr || !facts->is_object()) return;
  for (const auto& [key, value] : facts->items()) {
    report.facts.emplace_back(std::string(section) + "." + key,
                              value.is_string() ? value.get<std::string>() : dump_json(value));
  }
}

std::string text_of(const Json& json, const char* section, const char* key) {
  const Json* object = find(json, section);
  const Json* value = object != nullptr ? find(*object, key) : nullptr;
  if (value == nullptr) return "";
  return value->is_string() ? value->get<std::string>() : dump_json(*value);
}

}  // namespace

Expected<Report> read_report(const Json& json) {
  const Json* rows = find(json, "rows");
  if (rows == nullptr || !rows->is_array() || rows->size() > kMaxRows) {
    return make_error(ErrorCode::kCorrupt, "not a result of hadal bench: no array \"rows\" of at most {} rows",
                      kMaxRows);
  }
  Report report;
  for (const Json& row : *rows) {
    HADAL_ASSIGN_OR_RETURN(ReportRow read, read_row(row));
    report.rows.push_back(std::move(read));
  }
  for (const char* section : {"machine", "model", "flags"}) read_facts(json, section, report);
  report.title = text_of(json, "model", "path");
  report.subtitle = fmt::format("{}, {} threads, {}", text_of(json, "machine", "cpu_model"),
                                text_of(json, "flags", "threads"), text_of(json, "flags", "isa"));
  return report;
}

}  // namespace hadal
