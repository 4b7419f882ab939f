#include "bench/live.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace hadal {
namespace {

constexpr size_t kMaxSeries = 100'000;

double rate(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

// Splits "name{labels} value ..." into its series and value. Label values may hold spaces and braces inside quotes.
bool split_sample(std::string_view line, std::string_view& series, std::string_view& value) {
  bool quoted = false;
  size_t end = 0;
  for (; end < line.size(); ++end) {
    const char c = line[end];
    if (quoted && c == '\\') {
      ++end;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ' ' && !quoted) {
      break;
    }
  }
  if (end == 0 || end >= line.size()) return false;
  series = line.substr(0, end);
  value = line.substr(end + 1);
  value = value.substr(0, value.find(' '));
  return !value.empty();
}

// A counter's growth. Errors as make_live_report().
Expected<double> growth(const MetricsSample& first, const MetricsSample& second, const std::string& series) {
  const auto before = first.find(series), after = second.find(series);
  if (!before || !after) {
    return make_error(ErrorCode::kUnsupported,
                      "the server has no metric {}: it is another program, an older version, or still loading", series);
  }
  if (*after < *before) {
    return make_error(ErrorCode::kUnavailable, "{} went from {} to {}: the server was restarted", series, *before,
                      *after);
  }
  return *after - *before;
}

Status read_phase(const MetricsSample& first, const MetricsSample& second, StepPhase phase, PhaseCost& cost) {
  const std::pair<const char*, double*> counters[] = {{"phase_seconds", &cost.wall_s},
                                                      {"phase_busy_seconds", &cost.busy_s},
                                                      {"weight_bytes", &cost.weight_bytes},
                                                      {"kv_bytes", &cost.kv_bytes},
                                                      {"flops", &cost.flops}};
  for (const auto& [name, value] : counters) {
    const std::string series = fmt::format("hadal_step_{}_total{{phase=\"{}\"}}", name, step_phase_name(phase));
    HADAL_ASSIGN_OR_RETURN(*value, growth(first, second, series));
  }
  return {};
}

double bytes_of(const PhaseCost& cost) { return cost.weight_bytes + cost.kv_bytes; }

std::string percent_of(double value, double whole) {
  return whole > 0 ? fmt::format(" ({:.1f} %)", 100 * value / whole) : "";
}

}  // namespace

Expected<MetricsSample> MetricsSample::parse(std::string_view text) {
  MetricsSample sample;
  for (int64_t line_number = 1; !text.empty(); ++line_number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    std::string_view series, value;
    if (!split_sample(line, series, value)) {
      return make_error(ErrorCode::kCorrupt, "metrics, line {}: no value", line_number);
    }
    double number = 0;
    if (value != "NaN" && value != "+Inf" && value != "-Inf") {
      const auto [stop, error] = std::from_chars(value.data(), value.data() + value.size(), number);
      if (error != std::errc() || stop != value.data() + value.size()) {
        return make_error(ErrorCode::kCorrupt, "metrics, line {}: the value is not a number", line_number);
      }
      if (sample.values_.size() >= kMaxSeries) {
        return make_error(ErrorCode::kCorrupt, "metrics: more than {} series", kMaxSeries);
      }
      sample.values_[std::string(series)] = number;
    }
  }
  return sample;
}

std::optional<double> MetricsSample::find(const std::string& series) const {
  const auto found = values_.find(series);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

double MetricsSample::sum(std::string_view name) const {
  double sum = 0;
  for (const auto& [series, value] : values_) {
    if (series.compare(0, name.size(), name) != 0) continue;
    if (series.size() == name.size() || series[name.size()] == '{') sum += value;
  }
  return sum;
}

Expected<LiveReport> make_live_report(const MetricsSample& first, const MetricsSample& second, double seconds,
                                      double barrier_s) {
  LiveReport report;
  report.seconds = seconds;
  for (size_t i = 0; i < kNumStepPhases; ++i) {
    HADAL_RETURN_IF_ERROR(read_phase(first, second, static_cast<StepPhase>(i), report.profile.phases[i]));
  }
  // Of all phases together: the sum is what counts.
  double barriers = 0;
  const std::pair<const char*, double*> counters[] = {{"hadal_steps_total", &report.num_steps},
                                                      {"hadal_step_seconds_total", &report.step_seconds},
                                                      {"hadal_step_forward_seconds_total", &report.profile.wall_s},
                                                      {"hadal_step_planning_seconds_total", &report.planning_seconds},
                                                      {"hadal_step_sampling_seconds_total", &report.sampling_seconds},
                                                      {"hadal_step_barriers_total", &barriers}};
  for (const auto& [name, value] : counters) {
    HADAL_ASSIGN_OR_RETURN(*value, growth(first, second, name));
  }
  report.profile.of(StepPhase::kNorms).num_barriers = static_cast<int64_t>(barriers);
  report.profile.num_steps = static_cast<int64_t>(report.num_steps);
  report.profile.num_threads = static_cast<int>(std::clamp(second.sum("hadal_step_threads"), 1.0, 65536.0));
  report.running = second.sum("vllm:num_requests_running");
  report.waiting = second.sum("vllm:num_requests_waiting");
  const auto total = [&](const char* name) { return std::max(0.0, second.sum(name) - first.sum(name)); };
  report.generated_tokens = total("vllm:generation_tokens_total");
  report.prompt_tokens = total("vllm:prompt_tokens_total");
  report.shares = loss_shares(report.profile, report.step_seconds, report.sampling_seconds, barrier_s);
  return report;
}

std::string live_text(const LiveReport& r, const std::optional<StepCeiling>& ceiling) {
  const PhaseCost all = r.profile.total();
  const double read = ceiling ? ceiling->read_bytes_per_s : 0, multiply = ceiling ? ceiling->multiply_flops : 0;
  std::string text = fmt::format(
      "{:.1f} s: {:.0f} running, {:.0f} waiting; {:.1f} generated and {:.1f} prompt tokens a second\n", r.seconds,
      r.running, r.waiting, rate(r.generated_tokens, r.seconds), rate(r.prompt_tokens, r.seconds));
  if (r.num_steps == 0) return text + "no steps: the server had nothing to do\n";
  text += fmt::format("{:.0f} steps of {:.2f} ms, {} threads, {:.1f} % of the time; planning {:.1f} us a step\n",
                      r.num_steps, 1e3 * r.step_seconds / r.num_steps, r.profile.num_threads,
                      100 * rate(r.step_seconds, r.seconds), 1e6 * r.planning_seconds / r.num_steps);
  const double gb = rate(bytes_of(all), r.step_seconds), gf = rate(all.flops, r.step_seconds);
  text += fmt::format("{:.1f} GB/s{}, {:.1f} GFLOP/s{}", 1e-9 * gb, percent_of(gb, read), 1e-9 * gf,
                      percent_of(gf, multiply));
  if (ceiling) {
    text += fmt::format(", {:.1f} % of the ceiling", 100 * rate(ceiling_seconds(r.profile, *ceiling), r.step_seconds));
  }
  text += "\n\ntime of steps x threads\n";
  for (size_t i = 0; i < kNumLosses; ++i) {
    text += fmt::format("  {:<10}{:>6.1f} %  {}\n", kLossNames[i], 100 * r.shares[i],
                        std::string(static_cast<size_t>(std::clamp(50 * r.shares[i], 0.0, 50.0)), '#'));
  }
  text += fmt::format("\n{:<12}{:>8}{:>10}{:>10}\n", "while in", "wall %", "GB/s", "GFLOP/s");
  for (size_t i = 0; i < kNumStepPhases; ++i) {
    const PhaseCost& cost = r.profile.phases[i];
    text += fmt::format("{:<12}{:>8.1f}{:>10.1f}{:>10.1f}\n", step_phase_name(static_cast<StepPhase>(i)),
                        100 * rate(cost.wall_s, r.step_seconds), 1e-9 * rate(bytes_of(cost), cost.wall_s),
                        1e-9 * rate(cost.flops, cost.wall_s));
  }
  return text;
}

Json live_json(const LiveReport& r, const std::optional<StepCeiling>& ceiling) {
  const PhaseCost all = r.profile.total();
  Json shares = Json::object(), phases = Json::object();
  for (size_t i = 0; i < kNumLosses; ++i) shares[kLossNames[i]] = r.shares[i];
  for (size_t i = 0; i < kNumStepPhases; ++i) {
    const PhaseCost& cost = r.profile.phases[i];
    phases[step_phase_name(static_cast<StepPhase>(i))] = {{"wall_s", cost.wall_s},
                                                          {"busy_s", cost.busy_s},
                                                          {"weight_bytes", cost.weight_bytes},
                                                          {"kv_bytes", cost.kv_bytes},
                                                          {"flops", cost.flops}};
  }
  Json json = {{"kind", "live"},
               {"seconds", r.seconds},
               {"running", r.running},
               {"waiting", r.waiting},
               {"generated_tokens_per_s", rate(r.generated_tokens, r.seconds)},
               {"prompt_tokens_per_s", rate(r.prompt_tokens, r.seconds)},
               {"steps", r.num_steps},
               {"step_seconds", r.step_seconds},
               {"planning_seconds", r.planning_seconds},
               {"sampling_seconds", r.sampling_seconds},
               {"threads", r.profile.num_threads},
               {"gb_per_s", 1e-9 * rate(bytes_of(all), r.step_seconds)},
               {"gflops", 1e-9 * rate(all.flops, r.step_seconds)},
               {"shares", std::move(shares)},
               {"phases", std::move(phases)}};
  if (ceiling) json["ceiling_share"] = rate(ceiling_seconds(r.profile, *ceiling), r.step_seconds);
  return json;
}

}  // namespace hadal
