#include "cli/inc_numerics.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "cli/calibrate_files.h"
#include "model/range_observer.h"
#include "quant/inc_ranges.h"
#include "quant/inc_scale_file.h"
#include "quant/inc_settings.h"

namespace hadal {
namespace {

// Base of the measurement files, or a RangeSet file.
Expected<std::filesystem::path> measurements_path(const ServeOptions& options, const IncConfig& config,
                                                  const IncEnvironment& environment) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (!options.measurements.empty()) {
    const fs::path given(options.measurements);
    if (fs::is_directory(given, ignored)) {
      const fs::path merged = given / kRangesFileName;
      return fs::exists(merged, ignored) ? merged : given / fs::path(config.dump_stats_path).filename();
    }
    if (!fs::exists(given, ignored)) {
      return make_error(ErrorCode::kNotFound, "--measurements {}: no such file or folder", options.measurements);
    }
    return given;
  }
  const IncStatsPath stats = resolve_inc_stats_path(config, environment.dump_path_prefix);
  if (!stats.log_line.empty()) log_info("{}", stats.log_line);
  HADAL_RETURN_IF_ERROR(check_inc_stats_dir(stats, config, environment.dump_path_prefix));
  return stats.base;
}

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

void record_scales(std::filesystem::path base, const IncConfig& config, const IncPlanOptions& options,
                   const IncPlanReport& report, IncNumerics& numerics) {
  if (base.extension() == ".json") base.replace_extension();  // a file of hadal calibrate
  const Status written =
      write_inc_scale_file(inc_scale_file_path(base, config, options), report, {}, numerics.inputs_hash);
  if (!written) numerics.warnings.push_back(fmt::format("the scales are not recorded: {}", written.error().message));
}

}  // namespace

Expected<IncNumerics> open_inc_numerics(const ServeOptions& options, const ModelConfig& config,
                                        IncPlanOptions plan_options) {
  const auto started = std::chrono::steady_clock::now();
  HADAL_ASSIGN_OR_RETURN(const IncEnvironment environment,
                         read_inc_environment([&](const char* name) { return options.numerics_variable(name); }));
  plan_options.switches = environment.switches;
  const std::string& path = options.quant_config.empty() ? environment.quant_config : options.quant_config;
  HADAL_ASSIGN_OR_RETURN(const IncConfig inc, load_inc_config(path));
  if (inc.mode != IncMode::kQuantize) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: mode is {}; serving needs QUANTIZE (hadal calibrate takes MEASURE)", path,
                      inc_mode_name(inc.mode));
  }
  log_info("Preparing model with INC..");
  HADAL_ASSIGN_OR_RETURN(const std::filesystem::path base, measurements_path(options, inc, environment));
  HADAL_ASSIGN_OR_RETURN(const RangeSet ranges, load_ranges(range_dims(config), base));
  IncNumerics numerics;
  IncPlanReport report;
  auto plan = make_inc_plan(ranges, inc, plan_options, report);
  if (!plan) return forward_error(std::move(plan), base.string());
  numerics.plan = *std::move(plan);
  for (const std::string& note : report.notes) log_info("{}", note);
  numerics.warnings = describe_substitutes(report, 8);
  numerics.inputs_hash = inc_scale_inputs_hash(ranges, inc, plan_options);
  record_scales(base, inc, plan_options, report, numerics);
  const char* rounding = plan_options.switches.force_naive_scaling ? "naive" : "rounded";
  numerics.method_key = fmt::format("{}-{}{}", lower_case(inc_scale_method_name(inc.scale_method)), rounding,
                                    plan_options.switches.force_scale_fp32 ? "-fp32" : "");
  const RangeProvenance& from = ranges.provenance;
  const std::string source =
      from.num_prompts > 0 ? fmt::format("measured on {} prompts", from.num_prompts) : from.method;
  numerics.summary =
      fmt::format("{} of {} modules in FP8 by INC ({}, {} scales; {}), {} blocked", report.num_quantised,
                  report.num_modules, inc_scale_method_name(inc.scale_method), rounding, source, report.num_blocked);
  log_info("Preparing model with INC took {:.2f} s",
           std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
  return numerics;
}

}  // namespace hadal
