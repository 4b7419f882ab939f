#include "model/step_profile.h"

namespace hadal {
namespace {

// a += factor * b, field by field.
void add(PhaseCost& a, const PhaseCost& b, int factor) {
  a.wall_s += factor * b.wall_s;
  a.busy_s += factor * b.busy_s;
  a.weight_bytes += factor * b.weight_bytes;
  a.kv_bytes += factor * b.kv_bytes;
  a.flops += factor * b.flops;
  a.comm_bytes += factor * b.comm_bytes;
  a.num_collectives += factor * b.num_collectives;
  a.num_barriers += factor * b.num_barriers;
}

}  // namespace

const char* step_phase_name(StepPhase phase) {
  static constexpr const char* kNames[kNumStepPhases] = {"embed",   "norms",   "dense", "attention",
                                                         "routing", "experts", "head",  "comm"};
  return kNames[static_cast<size_t>(phase)];
}

PhaseCost StepProfile::total() const {
  PhaseCost sum;
  for (const PhaseCost& phase : phases) add(sum, phase, 1);
  return sum;
}

StepProfile operator-(const StepProfile& later, const StepProfile& earlier) {
  StepProfile difference = later;
  for (size_t i = 0; i < kNumStepPhases; ++i) add(difference.phases[i], earlier.phases[i], -1);
  difference.wall_s -= earlier.wall_s;
  difference.num_steps -= earlier.num_steps;
  return difference;
}

}  // namespace hadal
