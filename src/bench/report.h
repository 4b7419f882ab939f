// What a speed measurement found and how far it is from the machine's ceilings: structures, arithmetic, JSON and table.
// Pure functions. The JSON schema is in README.md; compare.h and plot.h read it back.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "bench/ceilings.h"
#include "bench/host.h"
#include "model/step_profile.h"

namespace hadal {

struct Spread {
  double median = 0, min = 0, max = 0;
};
// Requires at least one value. The median of an even count is the mean of the two middle ones.
Spread spread_of(std::vector<double> values);
Json spread_json(const Spread& spread);

enum class RowKind { kPrefill, kDecode };

// Where the time of a step goes, as shares of wall time x threads that sum to 1. The first seven are time inside
// kernels; sampling and talking to other ranks happen on one thread while the others wait, so they count whole;
// barriers are their number times the cost of an empty parallel loop; idle is the rest: uneven shares of work, serial
// code, other processes.
enum Loss {
  kAttentionLoss,
  kExpertsLoss,
  kDenseLoss,
  kNormsLoss,
  kRoutingLoss,
  kHeadLoss,
  kSamplingLoss,
  kCommLoss,
  kBarriersLoss,
  kIdleLoss
};
inline constexpr size_t kNumLosses = 10;
inline constexpr std::array<const char*, kNumLosses> kLossNames = {
    "attention", "experts", "dense", "norms", "routing", "head", "sampling", "comm", "barriers", "idle"};
using LossShares = std::array<double, kNumLosses>;

// sum += step, field by field; num_threads is the step's.
void add_profile(StepProfile& sum, const StepProfile& step);

// What a step is measured against.
struct StepCeiling {
  double read_bytes_per_s = 0;  // sampled next to the measurement
  double multiply_flops = 0;    // per second, of the kernels' number format
  double barrier_s = 0;
};

// The least time for the bytes and FLOPs of `profile`: in each phase the slower of reading and multiplying.
double ceiling_seconds(const StepProfile& profile, const StepCeiling& ceiling);

// The project's own yardstick, coarser than ceiling_seconds() and stated beforehand:
//   prefill                        FLOPs / multiply rate
//   decode, fewer than 8 sequences weight bytes / read bandwidth
//     at a depth                   (weight and cache bytes) / read bandwidth + attention FLOPs / multiply rate
//   decode, 8 sequences and more   expert bytes / read bandwidth + all other FLOPs / multiply rate (at a depth: the
//   same,
//                                  attention is among the others)
struct RowShape {
  RowKind kind = RowKind::kDecode;
  int64_t tokens = 0;  // of the prompt, or of a step
  int64_t batch = 1;   // sequences
  int64_t depth = 0;   // tokens already in the cache of each
};
double target_seconds(const RowShape& shape, const StepProfile& profile, const StepCeiling& ceiling);
// The share of target_seconds() that is asked for; 0: no target for this row.
double target_goal(const RowShape& shape);

LossShares loss_shares(const StepProfile& profile, double wall_s, double sampling_s, double barrier_s);

// Steps (or one prefill) run between two samples of the read bandwidth.
struct Repetition {
  std::vector<double> seconds;  // of each decode step, or of the one prefill; sampling included
  double sampling_s = 0;        // in all of them
  StepProfile profile;          // difference over all of them
  double read_bytes_per_s = 0;  // the better of the samples before and after
};

struct BenchRow {
  RowShape shape;
  int64_t repetitions = 0;  // timed steps or prefills
  Spread seconds;           // of one step or prefill
  Spread tokens_per_s;
  // Of one step or prefill, means:
  double weight_bytes = 0, kv_bytes = 0, flops = 0;
  double gb_per_s = 0, gflops = 0;  // of the median time
  double read_bytes_per_s = 0;      // median over repetitions
  double ceiling_share = 0;         // ceiling time / time, median over repetitions
  double target_share = 0;          // target time / time, the same
  LossShares shares{};
};

// Requires at least one repetition with at least one time each. `ceiling.read_bytes_per_s` is not used.
BenchRow make_row(const RowShape& shape, std::span<const Repetition> repetitions, const StepCeiling& ceiling);

struct LoadFacts {
  double seconds = 0;
  uint64_t checkpoint_bytes = 0;
  double first_token_s = 0;  // from process start to the first sampled token of the shortest prompt
  int64_t first_token_prompt = 0;
  ProcessMemory memory;  // after the first token
  uint64_t weight_bytes = 0, kv_bytes = 0, workspace_bytes = 0;
};

struct BenchReport {
  HostFacts host;
  Ceilings ceilings;
  std::string multiply_format;  // "bf16" or "fp32": which ceiling the kernels are held against
  Json model;                   // path and main sizes
  Json flags;                   // as run, defaults filled in
  LoadFacts load;
  std::vector<BenchRow> rows;
  double others_cores = 0;         // that other processes used while rows were measured
  std::vector<std::string> notes;  // rows left out, and why
};

Json report_json(const BenchReport& report);
// Lines of at most 140 columns, without the notes.
std::string report_table(const BenchReport& report);
// "prefill 512", "decode 8 @4096".
std::string row_name(const RowShape& shape);

}  // namespace hadal
