#include "bench/report.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace hadal {
namespace {

constexpr int64_t kLargeBatch = 8;

double ratio(double a, double b) { return b > 0 ? a / b : 0; }

double total_seconds(const Repetition& repetition) {
  double sum = 0;
  for (const double s : repetition.seconds) sum += s;
  return sum;
}

void add(PhaseCost& sum, const PhaseCost& cost) {
  sum.wall_s += cost.wall_s;
  sum.busy_s += cost.busy_s;
  sum.weight_bytes += cost.weight_bytes;
  sum.kv_bytes += cost.kv_bytes;
  sum.flops += cost.flops;
  sum.comm_bytes += cost.comm_bytes;
  sum.num_collectives += cost.num_collectives;
  sum.num_barriers += cost.num_barriers;
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  HADAL_CHECK(!values.empty(), "no values");
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
  return {.median = median, .min = values.front(), .max = values.back()};
}

Json spread_json(const Spread& spread) { return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}}; }

void add_profile(StepProfile& sum, const StepProfile& step) {
  for (size_t i = 0; i < kNumStepPhases; ++i) add(sum.phases[i], step.phases[i]);
  sum.wall_s += step.wall_s;
  sum.num_steps += step.num_steps;
  sum.num_threads = step.num_threads;
}

double ceiling_seconds(const StepProfile& profile, const StepCeiling& ceiling) {
  double seconds = 0;
  for (const PhaseCost& phase : profile.phases) {
    seconds += std::max(ratio(phase.weight_bytes + phase.kv_bytes, ceiling.read_bytes_per_s),
                        ratio(phase.flops, ceiling.multiply_flops));
  }
  return seconds;
}

double target_seconds(const RowShape& shape, const StepProfile& profile, const StepCeiling& ceiling) {
  const PhaseCost all = profile.total();
  if (shape.kind == RowKind::kPrefill) return ratio(all.flops, ceiling.multiply_flops);
  if (shape.batch >= kLargeBatch) {
    const PhaseCost& experts = profile.of(StepPhase::kExperts);
    return ratio(experts.weight_bytes, ceiling.read_bytes_per_s) +
           ratio(all.flops - experts.flops, ceiling.multiply_flops);
  }
  if (shape.depth == 0) return ratio(all.weight_bytes, ceiling.read_bytes_per_s);
  return ratio(all.weight_bytes + all.kv_bytes, ceiling.read_bytes_per_s) +
         ratio(profile.of(StepPhase::kAttention).flops, ceiling.multiply_flops);
}

double target_goal(const RowShape& shape) {
  if (shape.kind == RowKind::kPrefill) return shape.tokens >= 2048 ? 0.78 : shape.tokens >= 512 ? 0.80 : 0;
  if (shape.batch >= kLargeBatch) return shape.depth == 0 ? 0.80 : 0;
  if (shape.batch > 1) return 0;
  return shape.depth == 0 ? 0.90 : shape.depth <= 4096 ? 1 / 1.15 : 1 / 1.3;
}

LossShares loss_shares(const StepProfile& profile, double wall_s, double sampling_s, double barrier_s) {
  LossShares shares{};
  const double thread_s = wall_s * profile.num_threads;
  if (thread_s <= 0) return shares;
  const auto busy = [&](StepPhase phase) { return profile.of(phase).busy_s / thread_s; };
  shares[kAttentionLoss] = busy(StepPhase::kAttention);
  shares[kExpertsLoss] = busy(StepPhase::kExperts);
  shares[kDenseLoss] = busy(StepPhase::kDense);
  shares[kNormsLoss] = busy(StepPhase::kNorms) + busy(StepPhase::kEmbed);
  shares[kRoutingLoss] = busy(StepPhase::kRouting);
  shares[kHeadLoss] = busy(StepPhase::kHead);
  shares[kSamplingLoss] = sampling_s / wall_s;
  shares[kCommLoss] = profile.of(StepPhase::kCommunication).wall_s / wall_s;
  double used = 0;
  for (const double share : shares) used += share;
  // The estimate of barriers is for a quiet machine: it cannot take more than what is left.
  const double left = std::max(0.0, 1 - used);
  shares[kBarriersLoss] = std::min(left, static_cast<double>(profile.total().num_barriers) * barrier_s / wall_s);
  shares[kIdleLoss] = left - shares[kBarriersLoss];
  return shares;
}

BenchRow make_row(const RowShape& shape, std::span<const Repetition> repetitions, const StepCeiling& ceiling) {
  HADAL_CHECK(!repetitions.empty(), "no repetitions");
  std::vector<double> seconds, tokens_per_s, bandwidths, ceiling_shares, target_shares;
  double wall_s = 0, sampling_s = 0;
  StepProfile profile;
  for (const Repetition& repetition : repetitions) {
    add_profile(profile, repetition.profile);
    for (const double s : repetition.seconds) {
      seconds.push_back(s);
      tokens_per_s.push_back(static_cast<double>(shape.tokens) / s);
    }
    StepCeiling here = ceiling;
    here.read_bytes_per_s = repetition.read_bytes_per_s;
    const double total_s = total_seconds(repetition);
    ceiling_shares.push_back(ratio(ceiling_seconds(repetition.profile, here), total_s));
    target_shares.push_back(ratio(target_seconds(shape, repetition.profile, here), total_s));
    bandwidths.push_back(here.read_bytes_per_s);
    wall_s += total_s;
    sampling_s += repetition.sampling_s;
  }
  const PhaseCost all = profile.total();
  const double count = static_cast<double>(seconds.size());
  BenchRow row;
  row.shape = shape;
  row.repetitions = static_cast<int64_t>(seconds.size());
  row.seconds = spread_of(std::move(seconds));
  row.tokens_per_s = spread_of(std::move(tokens_per_s));
  row.weight_bytes = all.weight_bytes / count;
  row.kv_bytes = all.kv_bytes / count;
  row.flops = all.flops / count;
  row.gb_per_s = 1e-9 * ratio(row.weight_bytes + row.kv_bytes, row.seconds.median);
  row.gflops = 1e-9 * ratio(row.flops, row.seconds.median);
  row.read_bytes_per_s = spread_of(std::move(bandwidths)).median;
  row.ceiling_share = spread_of(std::move(ceiling_shares)).median;
  row.target_share = spread_of(std::move(target_shares)).median;
  row.shares = loss_shares(profile, wall_s, sampling_s, ceiling.barrier_s);
  return row;
}

std::string row_name(const RowShape& shape) {
  if (shape.kind == RowKind::kPrefill) return fmt::format("prefill {}", shape.tokens);
  return shape.depth == 0 ? fmt::format("decode {}", shape.batch)
                          : fmt::format("decode {} @{}", shape.batch, shape.depth);
}

}  // namespace hadal
