#include "bench/serve_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/serve_plot.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

ServeRecord answered(double start_s, double ttft_s, std::vector<double> itl_s, int64_t num_tokens) {
  ServeRecord record{.num_prompt_tokens = 100,
                     .num_asked_tokens = num_tokens,
                     .start_s = start_s,
                     .success = true,
                     .ttft_s = ttft_s,
                     .itl_s = std::move(itl_s),
                     .text = "t",
                     .num_output_tokens = num_tokens,
                     .num_server_prompt_tokens = 101};
  record.latency_s = ttft_s;
  for (const double gap_s : record.itl_s) record.latency_s += gap_s;
  return record;
}

// Four requests in ten seconds: TTFT 100, 300, 200 ms, one failed. E2EL 700, 300, 400 ms. TPOT of the first
// 600 / 3 = 200 ms, of the third 200 / 2 = 100 ms, none for one token. ITL 100, 200, 300, 200 ms.
ServeRun four_requests() {
  ServeRun run{.duration_s = 10};
  run.records = {answered(0, 0.1, {0.1, 0.2, 0.3}, 4), answered(0.2, 0.3, {}, 1), answered(5, 0.2, {0.2}, 3), {}};
  run.records[3].num_prompt_tokens = 50;
  run.records[3].error = "503 busy";
  return run;
}

TEST(ServeMetrics, PercentilesAreLinearInterpolations) {
  const std::vector<double> values = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(percentile_of(values, 0), 1);
  EXPECT_DOUBLE_EQ(percentile_of(values, 50), 3);
  EXPECT_DOUBLE_EQ(percentile_of(values, 90), 4 + 4 * 0.7);
  EXPECT_DOUBLE_EQ(percentile_of(values, 100), 8);
  EXPECT_DOUBLE_EQ(percentile_of({}, 99), 0);
  EXPECT_DOUBLE_EQ(percentile_of(std::vector<double>{5}, 99), 5);
}

TEST(ServeMetrics, FormulasByHand) {
  const ServeSummary s =
      summarise_serve_run(four_requests(), {99}, {{ServeMetric::kTtft, 250}, {ServeMetric::kTpot, 150}});
  EXPECT_EQ(s.completed, 3);
  EXPECT_EQ(s.failed, 1);
  EXPECT_EQ(s.total_input_tokens, 300);
  EXPECT_EQ(s.total_output_tokens, 8);
  EXPECT_DOUBLE_EQ(s.request_throughput, 0.3);
  EXPECT_DOUBLE_EQ(s.output_throughput, 0.8);
  EXPECT_DOUBLE_EQ(s.total_token_throughput, 30.8);
  EXPECT_DOUBLE_EQ(*s.request_goodput, 0.1);  // the first is slow in TPOT, the second in TTFT
  EXPECT_EQ(s.most_running, 2);
  EXPECT_NEAR(s.of(ServeMetric::kTtft).mean, 200, 1e-9);
  EXPECT_NEAR(s.of(ServeMetric::kTtft).median, 200, 1e-9);
  EXPECT_NEAR(s.of(ServeMetric::kTtft).std, std::sqrt(20000.0 / 3), 1e-9);
  EXPECT_NEAR(s.of(ServeMetric::kTtft).percentiles.at(0).second, 298, 1e-9);
  EXPECT_NEAR(s.of(ServeMetric::kTpot).mean, 150, 1e-9);
  EXPECT_NEAR(s.of(ServeMetric::kItl).mean, 200, 1e-9);
  EXPECT_NEAR(s.of(ServeMetric::kItl).median, 200, 1e-9);
  EXPECT_NEAR(s.of(ServeMetric::kE2el).mean, 1400.0 / 3, 1e-9);
}

TEST(ServeMetrics, OneTokenAnswersMeetEveryTpotBound) {
  const ServeSummary s = summarise_serve_run(four_requests(), {}, {{ServeMetric::kTpot, 0}});
  EXPECT_DOUBLE_EQ(*s.request_goodput, 0.1);
  EXPECT_FALSE(summarise_serve_run(four_requests(), {}, {}).request_goodput);
}

TEST(ServeMetrics, IntervalsHoldTheMeanAndShrinkWithoutSpread) {
  ServeRun run{.duration_s = 1};
  for (int i = 0; i < 100; ++i) run.records.push_back(answered(0, 0.1 + 0.001 * (i % 10), {0.01, 0.01}, 3));
  const ServeSummary s = summarise_serve_run(run, {}, {});
  const ServeDistribution& ttft = s.of(ServeMetric::kTtft);
  EXPECT_LT(ttft.mean_95.low, ttft.mean);
  EXPECT_GT(ttft.mean_95.high, ttft.mean);
  // The standard error is 2.87 ms / 10; 95 % of a normal distribution lie within 1.96 of it.
  EXPECT_NEAR(ttft.mean_95.high - ttft.mean_95.low, 2 * 1.96 * 0.287, 0.2);
  EXPECT_NEAR(s.of(ServeMetric::kItl).mean_95.low, 10, 1e-9);
  EXPECT_NEAR(s.of(ServeMetric::kItl).mean_95.high, 10, 1e-9);
}

TEST(ServeMetrics, TokensBySecond) {
  ServeRun run{.duration_s = 2.5};
  run.records = {answered(0, 0.5, {1.0}, 4)};  // two tokens a chunk, at 0.5 s and 1.5 s
  EXPECT_EQ(tokens_by_second(run), (std::vector<double>{2, 2, 0}));
}

TEST(ServeMetrics, WordsOfTheCommandLine) {
  EXPECT_EQ(parse_serve_metrics("e2el,ttft")->size(), 2u);
  for (const char* bad : {"", "ttft,", "tpt", "ttft tpot"}) EXPECT_FALSE(parse_serve_metrics(bad)) << bad;
  EXPECT_DOUBLE_EQ(parse_serve_slo("e2el:2.5")->limit_ms, 2.5);
  for (const char* bad : {"", "ttft", "ttft:", "ttft:x", "ttft:1x", "ttft:-1", "ttft:nan", "itl:5", "x:1"}) {
    EXPECT_FALSE(parse_serve_slo(bad)) << bad;
  }
}

// Field by field as vLLM's client prints it.
TEST(ServeReport, TheTableToTheLetter) {
  ServeSetup setup;
  setup.metrics = {ServeMetric::kTtft, ServeMetric::kTpot, ServeMetric::kItl, ServeMetric::kE2el};
  EXPECT_EQ(serve_table(summarise_serve_run(four_requests(), {99, 99.9}, {{ServeMetric::kTtft, 250}}), setup),
            "============ Serving Benchmark Result ============\n"
            "Successful requests:                     3         \n"
            "Benchmark duration (s):                  10.00     \n"
            "Total input tokens:                      300       \n"
            "Total generated tokens:                  8         \n"
            "Request throughput (req/s):              0.30      \n"
            "Request goodput (req/s):                 0.20      \n"
            "Output token throughput (tok/s):         0.80      \n"
            "Total Token throughput (tok/s):          30.80     \n"
            "---------------Time to First Token----------------\n"
            "Mean TTFT (ms):                          200.00    \n"
            "Median TTFT (ms):                        200.00    \n"
            "P99 TTFT (ms):                           298.00    \n"
            "P99.9 TTFT (ms):                         299.80    \n"
            "-----Time per Output Token (excl. 1st token)------\n"
            "Mean TPOT (ms):                          150.00    \n"
            "Median TPOT (ms):                        150.00    \n"
            "P99 TPOT (ms):                           199.00    \n"
            "P99.9 TPOT (ms):                         199.90    \n"
            "---------------Inter-token Latency----------------\n"
            "Mean ITL (ms):                           200.00    \n"
            "Median ITL (ms):                         200.00    \n"
            "P99 ITL (ms):                            297.00    \n"
            "P99.9 ITL (ms):                          299.70    \n"
            "----------------End-to-end Latency----------------\n"
            "Mean E2EL (ms):                          466.67    \n"
            "Median E2EL (ms):                        400.00    \n"
            "P99 E2EL (ms):                           694.00    \n"
            "P99.9 E2EL (ms):                         699.40    \n"
            "==================================================\n");
}

TEST(ServeReport, TrafficLinesAndNames) {
  EXPECT_EQ(serve_traffic_text({.max_concurrency = 32}),
            "Traffic request rate: inf\nBurstiness factor: 1.0 (Poisson process)\nMaximum request concurrency: 32\n");
  EXPECT_EQ(
      serve_traffic_text({.request_rate = 4, .burstiness = 0.5}),
      "Traffic request rate: 4.0\nBurstiness factor: 0.5 (Gamma distribution)\nMaximum request concurrency: None\n");
  ServeSetup setup{.date = "20250131-235959", .backend = "vllm", .model_id = "/data/DeepSeek-R1/"};
  EXPECT_EQ(serve_result_name(setup), "vllm-infqps-DeepSeek-R1-20250131-235959.json");
  setup.load = {.request_rate = 0.25, .max_concurrency = 8};
  EXPECT_EQ(serve_result_name(setup), "vllm-0.25qps-concurrency8-DeepSeek-R1-20250131-235959.json");
}

TEST(ServeReport, JsonHasTheClientsKeysInItsOrder) {
  const ServeRun run = four_requests();
  const ServeSetup setup = {
      .date = "d", .backend = "vllm", .model_id = "m", .tokenizer_id = "t", .metadata = {{"k", "v"}}};
  const Json json = serve_json(summarise_serve_run(run, {99}, {}), setup, run);
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_THAT(keys, ::testing::ElementsAre("date", "backend", "model_id", "tokenizer_id", "best_of", "num_prompts", "k",
                                           "request_rate", "burstiness", "max_concurrency", "duration", "completed",
                                           "total_input_tokens", "total_output_tokens", "request_throughput",
                                           "request_goodput:", "output_throughput", "total_token_throughput",
                                           "input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors",
                                           "mean_ttft_ms", "median_ttft_ms", "std_ttft_ms", "p99_ttft_ms",
                                           "mean_tpot_ms", "median_tpot_ms", "std_tpot_ms", "p99_tpot_ms",
                                           "mean_itl_ms", "median_itl_ms", "std_itl_ms", "p99_itl_ms", "hadal"));
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_TRUE(json["max_concurrency"].is_null() && json["request_goodput:"].is_null());
  EXPECT_EQ(json["input_lens"].dump() + json["output_lens"].dump(), "[100,100,100,50][4,1,3,0]");
  EXPECT_EQ(json["ttfts"].dump(), "[0.1,0.3,0.2,0.0]");
  EXPECT_EQ(json["itls"].dump(), "[[0.1,0.2,0.3],[],[0.2],[]]");
  EXPECT_EQ(json["errors"].dump(), R"(["","","","503 busy"])");
  EXPECT_EQ(json["hadal"]["failed"], 1);
}

TEST(ServeReport, NotesNameTheFirstFailure) {
  const ServeRun run = four_requests();
  const std::string notes = serve_notes(summarise_serve_run(run, {99}, {}), {}, run);
  EXPECT_THAT(notes, HasSubstr("95 % intervals of the means"));
  EXPECT_THAT(notes, HasSubstr("1 of 4 requests failed; the first: request 3: 503 busy"));
}

TEST(ServeReport, ARecordALine) {
  const std::string lines = serve_records_jsonl(four_requests());
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 4);
  const auto last = parse_json(lines.substr(lines.rfind('\n', lines.size() - 2) + 1));
  ASSERT_TRUE(last);
  EXPECT_EQ((*last)["request"], 3);
  EXPECT_EQ((*last)["success"], false);
  EXPECT_EQ((*last)["error"], "503 busy");
}

TEST(ServePlot, EveryRequestAndEscapedText) {
  ServeRun run = four_requests();
  run.records[3].error = "<&>";
  const ServeSummary summary = summarise_serve_run(run, {99}, {});
  const std::string svg = plot_serve_run(run, summary, "a < b", "s");
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, HasSubstr("request 0: first token after 100 ms, 4 tokens in 0.70 s"));
  EXPECT_THAT(svg, HasSubstr("request 3: &lt;&amp;&gt;"));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_THAT(svg, ::testing::Not(HasSubstr("nan")));
  const std::string empty = plot_serve_run({.duration_s = 0, .records = {{}}}, {}, "t", "s");
  EXPECT_THAT(empty, ::testing::Not(::testing::AnyOf(HasSubstr("nan"), HasSubstr("inf"))));
  const std::string sweep = plot_serve_sweep({{"concurrency1", summary}, {"concurrency8", summary}}, "t", "s");
  EXPECT_THAT(sweep, HasSubstr("concurrency8: median 200.00 ms"));
}

}  // namespace
}  // namespace hadal
