#include "bench/comm_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "comm/local_communicator.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

std::vector<CommBenchResult> run_all(int world, const CommBenchOptions& options) {
  const SegmentSizes sizes{.world_size = world};
  const int fd = SharedSegment::create(sizes).value();
  std::vector<CommBenchResult> results(world);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < world; ++rank) {
    ranks.emplace_back([&, rank] {
      const auto comm = join_local_group(fd, {.rank = rank, .sizes = sizes}).value();
      auto result = run_comm_bench(*comm, options);
      ASSERT_TRUE(result) << result.error().message;
      results[rank] = std::move(*result);
      ASSERT_TRUE(comm->barrier());
    });
  }
  for (auto& rank : ranks) rank.join();
  close(fd);
  return results;
}

struct Case {
  CommTest test;
  std::vector<float> output_of_1;  // of rank 1 of 4: the first four values, by hand
};
class CommTests : public ::testing::TestWithParam<Case> {};
// Input i of rank r is r + 4 * (i mod 13); 32 values.
INSTANTIATE_TEST_SUITE_P(All, CommTests,
                         ::testing::Values(Case{CommTest::kBroadcast, {2, 6, 10, 14}},
                                           Case{CommTest::kAllReduce, {6, 22, 38, 54}},
                                           Case{CommTest::kReduceScatter, {134, 150, 166, 182}},
                                           Case{CommTest::kAllGather, {0, 4, 8, 12}},
                                           Case{CommTest::kSendRecv, {0, 4, 8, 12}}, Case{CommTest::kReduce, {}},
                                           Case{CommTest::kAllToAll, {32, 36, 40, 44}}),
                         [](const auto& info) { return comm_test_name(info.param.test); });

TEST_P(CommTests, CalculatesAndChecks) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const int64_t size = 32 * static_cast<int64_t>(dtype_size_bytes(dtype));
    const auto results = run_all(
        4, {.test = GetParam().test, .size_bytes = size, .loop = 3, .root = 2, .dtype = dtype, .keep_data = true});
    for (const CommBenchResult& result : results) {
      EXPECT_TRUE(result.is_correct) << result.mismatch;
      EXPECT_EQ(result.count, 32);
      EXPECT_GT(result.seconds, 0);
    }
    const CommBenchResult& one = results[1];
    EXPECT_EQ(one.first_inputs, (std::vector<float>{1, 5, 9, 13}));
    EXPECT_EQ(one.has_expectation, GetParam().test != CommTest::kReduce) << "only the root has a sum";
    if (one.has_expectation && dtype == DType::kF32) {
      EXPECT_EQ(one.first_outputs, GetParam().output_of_1);
    }
    EXPECT_EQ(one.input.size(), 32U);
    EXPECT_EQ(one.output.size(), GetParam().test == CommTest::kAllGather       ? 128U
                                 : GetParam().test == CommTest::kReduceScatter ? 8U
                                                                               : 32U);
  }
}

TEST(CommBench, TellsTheSizeThatWasAskedFor) {
  for (const CommTest test : all_comm_tests()) {
    const auto results = run_all(3, {.test = test, .size_bytes = 101, .loop = 2});
    EXPECT_EQ(results[0].size_bytes, 101) << comm_test_name(test);
    EXPECT_EQ(results[0].count, 25) << comm_test_name(test);
    EXPECT_TRUE(results[0].is_correct) << results[0].mismatch;
  }
}

TEST(CommBench, RanksListNamesSendersAndReceivers) {
  const CommBenchOptions options{
      .test = CommTest::kSendRecv, .size_bytes = 64, .loop = 2, .ranks_list = {{0, 2}, {1, 2}}};
  const auto results = run_all(3, options);
  EXPECT_TRUE(results[2].has_expectation);
  EXPECT_FALSE(results[0].has_expectation);
  EXPECT_EQ(results[2].first_outputs[0], 1) << "what came last";
  EXPECT_DOUBLE_EQ(results[2].nw_bandwidth, 2 * results[2].algo_bandwidth);
  EXPECT_TRUE(prints_headline(options, 2));
  EXPECT_FALSE(prints_headline(options, 0));
  EXPECT_THAT(comm_bench_headline(options, results[2], 2), HasSubstr("hcclSendRecv_rank_2(dataSize=64"));
}

TEST(CommBench, TakesTheLeastAndTheMost) {
  for (const CommTest test : {CommTest::kAllReduce, CommTest::kReduce, CommTest::kReduceScatter}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      CommBenchOptions options{.test = test, .size_bytes = 96, .loop = 2, .dtype = dtype};
      options.reduction = CommReduction::kMin;
      auto results = run_all(3, options);
      for (const auto& result : results) EXPECT_TRUE(result.is_correct) << result.mismatch;
      EXPECT_EQ(results[0].first_outputs, (std::vector<float>{0, 3, 6, 9}));
      options.reduction = CommReduction::kMax;
      results = run_all(3, options);
      for (const auto& result : results) EXPECT_TRUE(result.is_correct) << result.mismatch;
      EXPECT_EQ(results[0].first_outputs, (std::vector<float>{2, 5, 8, 11}));
    }
  }
  EXPECT_EQ(parse_comm_reduction("max").value(), CommReduction::kMax);
  EXPECT_FALSE(parse_comm_reduction("prod"));
}

// Of --custom_comm 1,3: input i of rank r is r + 2 * (i mod 13).
TEST(CommBench, RanksOfASubsetKeepTheirNumbers) {
  CommBenchOptions options{.test = CommTest::kAllReduce, .size_bytes = 64, .loop = 2, .members = {1, 3}};
  auto results = run_all(2, options);
  EXPECT_TRUE(results[1].is_correct) << results[1].mismatch;
  EXPECT_EQ(results[1].first_inputs, (std::vector<float>{3, 5, 7, 9}));
  EXPECT_EQ(results[1].first_outputs, (std::vector<float>{4, 8, 12, 16}));
  EXPECT_EQ(printed_rank(options, 1), 3);
  options.test = CommTest::kAllGather;
  results = run_all(2, options);
  EXPECT_TRUE(results[0].is_correct) << results[0].mismatch;
}

TEST(CommBench, RefusesWhatCannotBe) {
  const SegmentSizes sizes{.world_size = 1};
  const int fd = SharedSegment::create(sizes).value();
  const auto comm = join_local_group(fd, {.rank = 0, .sizes = sizes}).value();
  close(fd);
  const auto why = [&](const CommBenchOptions& options) { return run_comm_bench(*comm, options).error().message; };
  EXPECT_THAT(why({.size_bytes = 3}), HasSubstr("broadcast of 1 ranks needs at least 4 bytes"));
  EXPECT_THAT(why({.loop = 0}), HasSubstr("--loop 0"));
  EXPECT_THAT(why({.loop = INT64_MAX}), HasSubstr("1 .. 1000000000000"));
  EXPECT_THAT(why({.root = 1}), HasSubstr("--test_root 1: 1 ranks"));
  EXPECT_THAT(why({.test = CommTest::kSendRecv, .ranks_list = {{0, 1}}}), HasSubstr("--ranks_list: 0,1 of 1 ranks"));
}

TEST(CommBench, TellsWhatItNeedsBeforeItStarts) {
  EXPECT_TRUE(check_comm_bench({.test = CommTest::kReduceScatter, .size_bytes = 12}, 3));
  EXPECT_FALSE(check_comm_bench({.test = CommTest::kReduceScatter, .size_bytes = 11}, 3));
  EXPECT_EQ(comm_bench_bytes({.size_bytes = 100}, 3), 500);
  EXPECT_EQ(comm_bench_bytes({.test = CommTest::kAllGather, .size_bytes = 100}, 3), 1100);
}

TEST(CommBenchText, ParsesSizesAndTests) {
  const struct {
    const char* text;
    int64_t bytes;
  } sizes[] = {{"32m", 33554432}, {"32M", 33554432}, {"1.5k", 1536}, {"2G", 2147483648}, {"512", 512}, {"7b", 7}};
  for (const auto& size : sizes) EXPECT_EQ(parse_comm_size(size.text).value(), size.bytes) << size.text;
  for (const char* bad : {"", "m", "12x", "-1", "0", "nan", "inf", "1e30", "5 m", "32mb"}) {
    EXPECT_FALSE(parse_comm_size(bad)) << bad;
  }
  EXPECT_EQ(parse_comm_test("all2all").value(), CommTest::kAllToAll);
  EXPECT_THAT(parse_comm_test("allreduce").error().message, HasSubstr("did you mean all_reduce?"));
}

// The guide's own figures: 147.576654 * 1.75 and 109.812988 * 1.875.
TEST(CommBenchText, PrintsThePeersLines) {
  EXPECT_DOUBLE_EQ(nw_factor(CommTest::kAllReduce, 8), 1.75);
  EXPECT_DOUBLE_EQ(nw_factor(CommTest::kAllReduce, 16), 1.875);
  EXPECT_DOUBLE_EQ(nw_factor(CommTest::kAllGather, 4), 3);
  CommBenchOptions options{.test = CommTest::kAllReduce};
  CommBenchResult result{.size_bytes = 33554432,
                         .count = 8388608,
                         .seconds = 0.000227369568,
                         .algo_bandwidth = 147.576654e9,
                         .nw_bandwidth = 258.259144e9,
                         .has_expectation = true,
                         .first_inputs = {1, 9, 17, 25},
                         .first_outputs = {28, 92.5, 156, 220}};
  const std::string rule(89, '#');  // the headline has 77 characters
  EXPECT_EQ(comm_bench_headline(options, result, 0),
            rule +
                "\n[BENCHMARK] hcclAllReduce(dataSize=33554432, count=8388608, dtype=float, iterations=1000)\n"
                "[BENCHMARK]     NW Bandwidth   : 258.259144 GB/s\n"
                "[BENCHMARK]     Algo Bandwidth : 147.576654 GB/s\n" +
                rule + "\n");
  EXPECT_EQ(comm_bench_check_line(options, result, 3),
            "rank=3 size=33554432 <float> Input Buffer [1 9 17 25 ...] Output Buffer [28 92.5 156 220 ...] which is "
            "fine.\n");
  EXPECT_EQ(comm_bench_csv(options, result, 0), "all_reduce,0,float,33554432,1000,258.259144 GB/s,147.576654 GB/s");
  EXPECT_EQ(comm_bench_summary(options, {result}),
            "\n" + std::string(51, '#') +
                "\n[BANDWIDTH SUMMARY REPORT]\n(src!=dst, collective=all_reduce, iterations=1000)\n\n"
                "size              count             type              redop             time              algoBW"
                "            nw_bw             \n"
                "(B)               (elements)                                            (ms)              (GB/s)"
                "            (GB/s)            \n"
                "33554432          8388608           float             sum               0.227370 ms       "
                "147.576654 GB/s   258.259144 GB/s   \n");
}

TEST(CommBenchText, PrintsLatencyAndFailure) {
  const CommBenchOptions options{.test = CommTest::kReduceScatter, .latency = true, .loop = 10, .dtype = DType::kBF16};
  const CommBenchResult result{.size_bytes = 64,
                               .count = 32,
                               .seconds = 0.0000125,
                               .has_expectation = true,
                               .is_correct = false,
                               .first_inputs = {1},
                               .first_outputs = {2},
                               .mismatch = "index=0"};
  EXPECT_THAT(
      comm_bench_headline(options, result, 0),
      HasSubstr("[BENCHMARK]     Host Latency   : 0.012500 ms\n[BENCHMARK]     Device Latency : 0.012500 ms\n"));
  EXPECT_EQ(comm_bench_check_line(options, result, 1),
            "index=0\nrank=1 size=64 <bfloat16> Input Buffer [1 ...] Output Buffer [2 ...] which is bad.\n");
  EXPECT_EQ(comm_bench_csv(options, result, 1), "reduce_scatter,1,bfloat16,64,10,0.012500 ms,0.012500 ms");
  EXPECT_THAT(comm_bench_summary(options, {result}), HasSubstr("[LATENCY SUMMARY REPORT]"));
}

}  // namespace
}  // namespace hadal
