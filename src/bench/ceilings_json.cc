#include <cmath>

#include "bench/ceilings.h"

namespace hadal {
namespace {

struct NumberField {
  const char* name;
  double Ceilings::*value;
  bool required;
};

constexpr NumberField kFields[] = {
    {"read_bytes_per_s", &Ceilings::read_bytes_per_s, true},
    {"read_median_bytes_per_s", &Ceilings::read_median_bytes_per_s, false},
    {"memcpy_bytes_per_s", &Ceilings::memcpy_bytes_per_s, false},
    {"first_touch_bytes_per_s", &Ceilings::first_touch_bytes_per_s, false},
    {"bf16_flops", &Ceilings::bf16_flops, false},
    {"fp32_flops", &Ceilings::fp32_flops, true},
    {"int8_ops", &Ceilings::int8_ops, false},
    {"disk_read_bytes_per_s", &Ceilings::disk_read_bytes_per_s, false},
    {"barrier_s", &Ceilings::barrier_s, false},
    {"l3_bytes", &Ceilings::l3_bytes, false},
};

constexpr double kMaxThreads = 1 << 20;

Json probe_to_json(const ProbeResult& probe) {
  Json out = {{"what", probe.what}, {"variant", probe.variant}, {"num_threads", probe.num_threads}};
  if (probe.numa_node >= 0) out["numa_node"] = probe.numa_node;
  if (!probe.pages.empty()) out["pages"] = probe.pages;
  out["unit"] = probe.unit;
  out["num_samples"] = probe.num_samples;
  out["min"] = probe.min;
  out["median"] = probe.median;
  out["max"] = probe.max;
  out["best"] = probe.best;
  return out;
}

// Null when absent and not required.
Expected<double> number_of(const Json& json, const char* name, bool required, double absent) {
  const auto found = json.find(name);
  if (found == json.end()) {
    if (!required) return absent;
    return make_error(ErrorCode::kCorrupt, "ceilings: {} is missing", name);
  }
  if (!found->is_number()) {
    return make_error(ErrorCode::kCorrupt, "ceilings: {} is {}, not a number", name, dump_json(*found).substr(0, 40));
  }
  const double value = found->get<double>();
  if (!std::isfinite(value) || value < 0 || (required && value == 0)) {
    return make_error(ErrorCode::kCorrupt, "ceilings: {} is {}, which is no rate", name, value);
  }
  return value;
}

}  // namespace

Json ceilings_to_json(const Ceilings& ceilings) {
  Json out = {{"cpu", ceilings.cpu}, {"num_threads", ceilings.num_threads}};
  for (const NumberField& field : kFields) out[field.name] = ceilings.*field.value;
  Json probes = Json::array();
  for (const ProbeResult& probe : ceilings.probes) probes.push_back(probe_to_json(probe));
  out["probes"] = std::move(probes);
  return out;
}

Expected<Ceilings> ceilings_from_json(const Json& json) {
  if (!json.is_object()) return make_error(ErrorCode::kCorrupt, "ceilings: not a JSON object");
  Ceilings ceilings;
  HADAL_ASSIGN_OR_RETURN(const double num_threads, number_of(json, "num_threads", true, 0));
  if (num_threads > kMaxThreads || num_threads != std::floor(num_threads)) {
    return make_error(ErrorCode::kCorrupt, "ceilings: num_threads is {}, which is no number of threads", num_threads);
  }
  ceilings.num_threads = static_cast<int>(num_threads);
  for (const NumberField& field : kFields) {
    HADAL_ASSIGN_OR_RETURN(ceilings.*field.value, number_of(json, field.name, field.required, 0));
  }
  if (const auto cpu = json.find("cpu"); cpu != json.end() && cpu->is_string()) ceilings.cpu = cpu->get<std::string>();
  return ceilings;
}

}  // namespace hadal
