// hadal calibrate --inspect: what measurement files say.
#pragma once

#include <string>
#include <vector>

namespace hadal {

struct InspectMeasurementsOptions {
  std::string device = "gaudi2";  // or "gaudi3": whose FP8 range and scales the report is about
  bool json = false;              // one JSON object on stdout
};

// Prints a report about INC measurement files (.json or .npz, any ranks, siblings not needed) or files of
// `hadal calibrate`. Returns an exit code.
int inspect_measurements(const std::vector<std::string>& files, const InspectMeasurementsOptions& options);

}  // namespace hadal
