// The parts of benchmarks that have right answers: percentiles, work lists, counted work. Never a speed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "bench/engine_bench.h"
#include "bench/host.h"
#include "bench/kernel_bench.h"
#include "bench/kernel_cases.h"
#include "bench/loaded_model.h"
#include "bench/throughput.h"
#include "support/test_files.h"

namespace hadal {
namespace {

TEST(Summary, InterpolatesPercentilesAsNumpyDoes) {
  const std::vector<double> values = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(percentile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(percentile(values, 0.99), 3.97);
  EXPECT_DOUBLE_EQ(percentile(values, 1), 4);
  const LatencySummary summary = summarise({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(summary.mean, 2.5);
  EXPECT_DOUBLE_EQ(summary.median, 2.5);
  EXPECT_EQ(summarise({}).p99, 0);
  EXPECT_EQ(summarise({7}).p99, 7);
}

TEST(Host, KnowsItsProcess) {
  const ProcessMemory memory = process_memory();
  EXPECT_GT(memory.resident_bytes, 1u << 20);
  EXPECT_GE(memory.peak_resident_bytes, memory.resident_bytes);
  const double age_s = process_age_s();
  EXPECT_GE(age_s, 0);
  EXPECT_LT(age_s, 3600);
  EXPECT_FALSE(host_facts().cpu_model.empty());
}

ModelConfig nano_config() {
  auto config = read_config(source_dir() / "models/nano");
  EXPECT_TRUE(config) << config.error().message;
  return *config;
}

TEST(Config, OfAFolderOrAFile) {
  EXPECT_EQ(read_config(source_dir() / "models/nano/config.json")->hidden_size, nano_config().hidden_size);
  EXPECT_EQ(read_config(source_dir() / "bench/shapes/r1_slice.json")->hidden_size, 7168);
  EXPECT_FALSE(read_config(source_dir() / "models/absent"));
  EXPECT_FALSE(read_config(source_dir() / "models/nano/tokenizer_config.json"));
}

TEST(KernelCases, AreTheModelsDistinctShapes) {
  const ModelConfig config = *read_config(source_dir() / "bench/shapes/r1_slice.json");
  const std::vector<KernelCase> cases = matrix_cases(config);
  const auto has = [&](KernelOp op, DType dtype, int64_t rows, int64_t cols) {
    return std::count_if(cases.begin(), cases.end(), [&](const KernelCase& c) {
      return c.op == op && c.dtype == dtype && c.rows == rows && c.cols == cols;
    });
  };
  EXPECT_EQ(has(KernelOp::kLinear, DType::kF8E4M3, 24576, 1536), 1) << "q_b";
  EXPECT_EQ(has(KernelOp::kDown, DType::kF8E4M3, 7168, 16384), 1) << "o";
  EXPECT_EQ(has(KernelOp::kGateUp, DType::kF8E4M3, 2048, 7168), 1) << "expert; the shared one has the same shape";
  EXPECT_EQ(has(KernelOp::kGateUp, DType::kF8E4M3, 18432, 7168), 1) << "dense";
  EXPECT_EQ(has(KernelOp::kLinear, DType::kBF16, 8192, 7168), 1) << "head";
}

class KernelRunnerTest : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Tables, KernelRunnerTest, ::testing::ValuesIn(available_isas()), [](const auto& info) {
  std::string name = isa_name(info.param);
  std::erase(name, '-');
  return name;
});

TEST_P(KernelRunnerTest, CountsTheWorkAndComputesEveryOutput) {
  const ModelConfig config = nano_config();
  auto runner = KernelRunner::create(config, kernels_for(GetParam()), uint64_t{4} << 20);
  ASSERT_TRUE(runner) << runner.error().message;
  std::vector<KernelCase> cases = matrix_cases(config);
  cases.push_back({.op = KernelOp::kAbsorbed, .name = "absorbed"});
  cases.push_back({.op = KernelOp::kExpanded, .name = "expanded"});
  ThreadPool one(1), two(2);
  for (KernelCase& c : cases) {
    SCOPED_TRACE(c.name);
    c.tokens = 40;
    const KernelRunner::Work work = runner->run(c, one);
    const std::vector<std::byte> alone = runner->output();
    EXPECT_GE(work.num_copies, 1);
    EXPECT_GT(work.bytes, 0);
    if (c.op == KernelOp::kLinear || c.op == KernelOp::kDown) {
      EXPECT_EQ(work.flops, 2.0 * 40 * static_cast<double>(c.rows * c.cols * work.num_copies));
    }
    runner->run(c, two);
    if (c.op == KernelOp::kAbsorbed) continue;  // as many sequences as there are threads
    EXPECT_EQ(alone, runner->output()) << "bits depend on the number of threads";
  }
}

TEST(KernelBench, ReportsEveryCaseForEveryNumberOfThreads) {
  KernelBenchOptions options;
  options.model = source_dir() / "models/nano/config.json";
  options.tokens = {1};
  options.absorbed_positions = {128};
  options.expanded_tokens = {256};
  options.threads = {1, 2, 1};
  options.repetitions = 1;
  options.ceiling_seconds = 0.2;
  options.memory_bytes = uint64_t{16} << 20;
  const auto report = run_kernel_bench(options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->ceilings.size(), 2u) << "a repeated number is measured once";
  EXPECT_EQ(report->rows.size(), 2 * (matrix_cases(nano_config()).size() + 2));
  for (const KernelRow& row : report->rows) {
    EXPECT_GT(row.gb_per_s, 0) << row.what.name;
    EXPECT_GT(row.gflops, 0) << row.what.name;
    EXPECT_GT(row.ceiling_share, 0) << row.what.name;
  }
  EXPECT_EQ(kernel_report_json(*report)["rows"].size(), report->rows.size());
  options.tokens = {0};
  EXPECT_EQ(run_kernel_bench(options).error().code, ErrorCode::kInvalidArgument);
}

TEST(EngineBench, MeasuresStepsQueuesAndSampling) {
  const auto report =
      run_engine_bench({.num_sequences = 4, .num_steps = 20, .queue_lengths = {1, 50}, .vocab_size = 500});
  ASSERT_TRUE(report) << report.error().message;
  for (const EngineBenchRow& row : report->rows) EXPECT_GT(row.seconds.median, 0) << row.name;
  const auto kinds = [&](const char* kind) {
    return std::count_if(report->rows.begin(), report->rows.end(),
                         [&](const EngineBenchRow& r) { return r.kind == kind; });
  };
  EXPECT_EQ(kinds("step"), 1);
  EXPECT_EQ(kinds("queue"), 2);
  EXPECT_GE(kinds("sampling"), 5);
  EXPECT_FALSE(run_engine_bench({.num_sequences = 0}));
}

}  // namespace
}  // namespace hadal
