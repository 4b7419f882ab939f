// Where the time of forward steps went, and what they had to read and to multiply. Counted always: two clock reads per
// worker and parallel loop, a fraction of a permille of a step.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace hadal {

// Every parallel loop of a step belongs to one phase. Shared experts run in one work list with the routed ones.
enum class StepPhase {
  kEmbed,          // embedding rows, cos and sin
  kNorms,          // residual additions, RMS norms, RoPE, cache writes
  kDense,          // q_a, q_b, kv_a, o, dense MLPs
  kAttention,      // latent queries, scores, softmax, values, value projection
  kRouting,        // router logits and expert choice
  kExperts,        // routed and shared experts
  kHead,           // final norm of the sampled rows and lm_head
  kCommunication,  // sums over ranks and their shares of the logits, waiting for other ranks included
};
inline constexpr size_t kNumStepPhases = 8;

const char* step_phase_name(StepPhase phase);  // "embed", "norms", ...

struct PhaseCost {
  double wall_s = 0;        // as the engine thread saw it
  double busy_s = 0;        // inside kernels, summed over workers; wall_s * num_threads - busy_s is waiting
  double weight_bytes = 0;  // of distinct weights touched, codes and scales, once per step
  double kv_bytes = 0;      // cache rows read, once per query token (absorbed) or chunk (expanded)
  double flops = 0;         // 2 per multiply-add that the mathematics needs; recomputation is not counted
  double comm_bytes = 0;    // given to collectives, or sent, or received: each once, whatever it costs on the way
  int64_t num_collectives = 0;
  int64_t num_barriers = 0;  // parallel loops that more than one worker joined
};

// Sums since the model was loaded; subtract two to get an interval.
struct StepProfile {
  std::array<PhaseCost, kNumStepPhases> phases;
  double wall_s = 0;  // of forward()
  int64_t num_steps = 0;
  int num_threads = 1;

  PhaseCost& of(StepPhase phase) { return phases[static_cast<size_t>(phase)]; }
  const PhaseCost& of(StepPhase phase) const { return phases[static_cast<size_t>(phase)]; }
  PhaseCost total() const;
};

// later - earlier, field by field.
StepProfile operator-(const StepProfile& later, const StepProfile& earlier);

}  // namespace hadal
