// How fast a folder loads, beside the two rates that bound it on this machine: reading the disk past the page cache,
// and touching memory for the first time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "bench/host.h"
#include "bench/loaded_model.h"

namespace hadal {

struct LoadBenchOptions {
  ModelFlags model;
  // Fresh memory that is touched after loading, at most a quarter of what is available then.
  uint64_t touch_bytes = uint64_t{4} << 30;
  double disk_seconds = 3;
};

struct LoadBenchReport {
  HostFacts host;
  Json model;
  double seconds = 0;  // opening, checking, reading and packing
  uint64_t read_bytes = 0;
  uint64_t weight_bytes = 0;         // packed
  uint64_t peak_resident_bytes = 0;  // of the process, up to the end of loading
  double disk_bytes_per_s = 0;       // best sample; 0: not measured
  std::string disk_note;             // why not
  double first_touch_bytes_per_s = 0;

  double bytes_per_s() const { return static_cast<double>(read_bytes) / seconds; }
  double ceiling_bytes_per_s() const {
    return disk_bytes_per_s > 0 ? std::min(disk_bytes_per_s, first_touch_bytes_per_s) : first_touch_bytes_per_s;
  }
};

// Errors: as load_for_bench(). A file system without direct I/O is a note.
Expected<LoadBenchReport> run_load_bench(const LoadBenchOptions& options);

Json load_report_json(const LoadBenchReport& report);
std::string load_report_table(const LoadBenchReport& report);

}  // namespace hadal
