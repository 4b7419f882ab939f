// hadal bench kernels: each matrix shape of a model alone, for several numbers of tokens, beside the ceiling of that
// moment. Needs a config.json only: panels hold made-up numbers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "bench/ceilings.h"
#include "bench/kernel_cases.h"
#include "bench/report.h"

namespace hadal {

struct KernelBenchOptions {
  std::filesystem::path model;  // a folder or a config.json
  std::string isa = "auto";
  std::vector<int64_t> tokens = {1, 2, 4, 8, 12, 16, 32, 64, 128, 512};
  std::vector<int64_t> absorbed_positions = {1024, 4096, 32768};
  std::vector<int64_t> expanded_tokens = {512, 2048};
  std::vector<int64_t> threads = {0, 1};  // 0: one per core
  int64_t repetitions = 3;
  double ceiling_seconds = 4;                   // for each number of threads
  uint64_t memory_bytes = uint64_t{512} << 20;  // of matrices; more than any cache holds
};

struct KernelRow {
  KernelCase what;
  int num_threads = 1;
  Spread seconds;  // for all matrices or sequences of the case
  double bytes = 0, flops = 0;
  double gb_per_s = 0, gflops = 0;
  double read_bytes_per_s = 0;  // median of the samples next to the repetitions
  double ceiling_share = 0;     // max(bytes / bandwidth, flops / multiply rate) / time, median
};

struct KernelReport {
  HostFacts host;
  std::vector<Ceilings> ceilings;  // one for each number of threads
  std::string multiply_format;
  Json model, flags;
  std::vector<KernelRow> rows;
};

Expected<KernelReport> run_kernel_bench(const KernelBenchOptions& options);
Json kernel_report_json(const KernelReport& report);
std::string kernel_report_table(const KernelReport& report);

}  // namespace hadal
