#include "bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <sstream>

namespace hadal {
namespace {

using ::testing::DoubleNear;
using ::testing::HasSubstr;

constexpr double kTiny = 1e-12;

// 2 threads, 10 ms: experts bound by reading, attention by multiplying.
StepProfile sample_profile() {
  StepProfile profile;
  profile.num_threads = 2;
  profile.num_steps = 1;
  profile.wall_s = 0.010;
  profile.of(StepPhase::kExperts) = {
      .wall_s = 0.006, .busy_s = 0.010, .weight_bytes = 1e8, .flops = 2e8, .num_barriers = 2};
  profile.of(StepPhase::kAttention) = {
      .wall_s = 0.003, .busy_s = 0.004, .weight_bytes = 1e6, .kv_bytes = 9e6, .flops = 1e9, .num_barriers = 3};
  profile.of(StepPhase::kEmbed) = {.wall_s = 0.001, .busy_s = 0.001, .num_barriers = 1};
  profile.of(StepPhase::kNorms) = {.wall_s = 0.001, .busy_s = 0.001, .num_barriers = 4};
  return profile;
}

constexpr StepCeiling kCeiling = {.read_bytes_per_s = 20e9, .multiply_flops = 400e9, .barrier_s = 10e-6};

TEST(Spread, MedianOfOddAndEvenCounts) {
  const Spread odd = spread_of({5, 1, 3});
  EXPECT_EQ(odd.median, 3);
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.max, 5);
  EXPECT_EQ(spread_of({4, 1, 3, 10}).median, 3.5);
}

TEST(Ceiling, TakesTheSlowerOfReadingAndMultiplyingInEachPhase) {
  // experts: 1e8 / 20e9 = 5 ms against 0.5 ms; attention: 1e7 / 20e9 = 0.5 ms against 2.5 ms.
  EXPECT_THAT(ceiling_seconds(sample_profile(), kCeiling), DoubleNear(0.0075, kTiny));
}

TEST(Target, FollowsTheRowsOwnRule) {
  const StepProfile p = sample_profile();
  const auto target = [&](RowShape shape) { return target_seconds(shape, p, kCeiling); };
  EXPECT_THAT(target({.kind = RowKind::kPrefill, .tokens = 512}), DoubleNear(1.2e9 / 400e9, kTiny));
  EXPECT_THAT(target({.tokens = 1, .batch = 1}), DoubleNear(1.01e8 / 20e9, kTiny));
  EXPECT_THAT(target({.tokens = 1, .batch = 1, .depth = 4096}), DoubleNear(1.10e8 / 20e9 + 1e9 / 400e9, kTiny));
  EXPECT_THAT(target({.tokens = 8, .batch = 8}), DoubleNear(1e8 / 20e9 + 1e9 / 400e9, kTiny));
}

TEST(LossShares, SumToOneAndSayWhatEachMeans) {
  const double wall_s = 0.012, sampling_s = 0.0006;
  const LossShares shares = loss_shares(sample_profile(), wall_s, sampling_s, 10e-6);
  EXPECT_THAT(std::accumulate(shares.begin(), shares.end(), 0.0), DoubleNear(1, kTiny));
  EXPECT_THAT(shares[kExpertsLoss], DoubleNear(0.010 / 0.024, kTiny));
  EXPECT_THAT(shares[kNormsLoss], DoubleNear(0.002 / 0.024, kTiny)) << "embedding counts with the norms";
  EXPECT_THAT(shares[kSamplingLoss], DoubleNear(0.05, kTiny)) << "all threads wait for the one that samples";
  EXPECT_THAT(shares[kBarriersLoss], DoubleNear(10 * 10e-6 / 0.012, kTiny));
  EXPECT_GT(shares[kIdleLoss], 0);
}

TEST(LossShares, BarriersTakeNoMoreThanWhatIsLeft) {
  const LossShares shares = loss_shares(sample_profile(), 0.012, 0, 1.0);
  EXPECT_THAT(shares[kBarriersLoss], DoubleNear(1 - 0.016 / 0.024, kTiny));
  EXPECT_EQ(shares[kIdleLoss], 0);
  for (const double share : loss_shares(sample_profile(), 0, 0, 0)) EXPECT_EQ(share, 0);
}

TEST(Row, JudgesEachRepetitionAgainstItsOwnBandwidth) {
  // The memory is half as fast in the second repetition and so is the step: the share stays.
  Repetition fast = {.seconds = {0.01, 0.01}, .profile = {}, .read_bytes_per_s = 40e9};
  fast.profile.of(StepPhase::kDense).weight_bytes = 2 * 360e6;
  Repetition slow = fast;
  slow.seconds = {0.02, 0.02};
  slow.read_bytes_per_s = 20e9;
  const std::vector<Repetition> repetitions = {fast, slow};
  const BenchRow row = make_row({.tokens = 1, .batch = 1}, repetitions, {.multiply_flops = 400e9});
  EXPECT_EQ(row.repetitions, 4);
  EXPECT_THAT(row.ceiling_share, DoubleNear(0.9, kTiny));
  EXPECT_THAT(row.target_share, DoubleNear(0.9, kTiny));
  EXPECT_THAT(row.seconds.median, DoubleNear(0.015, kTiny));
  EXPECT_THAT(row.tokens_per_s.max, DoubleNear(100, 1e-9));
  EXPECT_THAT(row.weight_bytes, DoubleNear(360e6, 1));
  EXPECT_THAT(row.gb_per_s, DoubleNear(24, 1e-9));
}

BenchReport sample_report() {
  BenchReport report;
  report.host.cpu_model = "A CPU";
  report.ceilings = {.num_threads = 2, .read_bytes_per_s = 35e9, .bf16_flops = 450e9};
  report.multiply_format = "bf16";
  report.model = {{"path", "models/x"}};
  report.flags = {{"threads", 2}};
  report.load = {.seconds = 2, .checkpoint_bytes = 4'000'000'000};
  const Repetition repetition = {
      .seconds = {123.456}, .sampling_s = 0.01, .profile = sample_profile(), .read_bytes_per_s = 34.5e9};
  for (const RowShape& shape : {RowShape{.kind = RowKind::kPrefill, .tokens = 131072},
                                RowShape{.tokens = 256, .batch = 256, .depth = 32768}, RowShape{.tokens = 1}}) {
    report.rows.push_back(make_row(shape, {&repetition, 1}, kCeiling));
  }
  return report;
}

TEST(ReportJson, HasTheDocumentedFields) {
  const Json json = report_json(sample_report());
  for (const char* key : {"machine", "ceilings", "model", "flags", "load", "rows", "notes", "others_cores"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["load"]["bytes_per_s"], 2e9);
  const Json& row = json["rows"][1];
  EXPECT_EQ(row["kind"], "decode");
  EXPECT_EQ(row["batch"], 256);
  EXPECT_EQ(row["depth"], 32768);
  for (const char* key : {"tokens", "repetitions", "weight_bytes", "kv_bytes", "flops", "gb_per_s", "gflops",
                          "read_bandwidth", "ceiling_share", "target_share"}) {
    EXPECT_TRUE(row.at(key).is_number()) << key;
  }
  for (const char* key : {"seconds", "tokens_per_s"}) EXPECT_EQ(row.at(key).size(), 3u) << key;
  EXPECT_EQ(row["shares"].size(), kNumLosses);
}

TEST(ReportTable, FitsTheScreen) {
  std::istringstream table(report_table(sample_report()));
  int num_lines = 0;
  for (std::string line; std::getline(table, line); ++num_lines) EXPECT_LE(line.size(), 140u) << line;
  EXPECT_EQ(num_lines, 5 + 3);
  EXPECT_THAT(report_table(sample_report()), HasSubstr("4.00 GB in 2.00 s = 2.00 GB/s"));
}

}  // namespace
}  // namespace hadal
