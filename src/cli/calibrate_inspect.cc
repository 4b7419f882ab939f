#include "cli/calibrate_inspect.h"

#include <fmt/core.h>

#include <cstdio>

#include "base/json.h"
#include "cli/command.h"
#include "quant/measurement_report.h"

namespace hadal {
namespace {

int fail(const std::string& message, int exit_code) {
  std::fprintf(stderr, "hadal: %s\n", message.c_str());
  return exit_code;
}

}  // namespace

int inspect_measurements(const std::vector<std::string>& files, const InspectMeasurementsOptions& options) {
  if (options.device != "gaudi2" && options.device != "gaudi3") {
    return fail(fmt::format("device \"{}\", expected gaudi2 or gaudi3", options.device), kExitBadUsage);
  }
  if (files.empty()) return fail("no measurement file to inspect", kExitBadUsage);
  std::vector<MeasurementSource> sources;
  for (const std::string& file : files) {
    auto source = open_measurement_source(file);
    if (!source) return fail(source.error().message, kExitFailed);
    sources.push_back(std::move(*source));
  }
  const MeasurementReport report =
      make_measurement_report(sources, options.device == "gaudi2" ? FpRange::kGaudi2 : FpRange::kGaudi3);
  if (options.json) {
    fmt::print("{}\n", dump_json(measurement_report_json(report)));
  } else {
    fmt::print("{}", measurement_report_text(report));
  }
  return kExitOk;
}

}  // namespace hadal
