#include "bench/live.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace hadal {
namespace {

using ::testing::HasSubstr;

// A scrape after `steps` steps of 10 ms with two threads.
std::string metrics(int steps, double weight_bytes_each = 1e8) {
  std::string text =
      "# HELP hadal_steps_total Engine steps.\n# TYPE hadal_steps_total counter\n"
      "vllm:num_requests_running{model_name=\"a b}\\\" c\",engine=\"0\"} 3.0\n"
      "vllm:num_requests_waiting{model_name=\"x\",engine=\"0\"} 1\n";
  for (size_t i = 0; i < kNumStepPhases; ++i) {
    const bool is_experts = static_cast<StepPhase>(i) == StepPhase::kExperts;
    const auto add = [&](const char* name, double each) {
      text += fmt::format("hadal_step_{}_total{{phase=\"{}\"}} {}\n", name, step_phase_name(static_cast<StepPhase>(i)),
                          is_experts ? each * steps : 0);
    };
    add("phase_seconds", 0.008);
    add("phase_busy_seconds", 0.012);
    add("weight_bytes", weight_bytes_each);
    add("kv_bytes", 0);
    add("flops", 2e8);
  }
  text += fmt::format(
      "hadal_steps_total {}\nhadal_step_seconds_total {}\nhadal_step_forward_seconds_total {}\n"
      "hadal_step_planning_seconds_total {}\nhadal_step_sampling_seconds_total {}\nhadal_step_barriers_total {}\n"
      "hadal_step_threads 2\nvllm:generation_tokens_total{{engine=\"0\"}} {}\n"
      "vllm:generation_tokens_total_created 17\n",
      steps, 0.010 * steps, 0.009 * steps, 1e-6 * steps, 0.0005 * steps, 20 * steps, 4 * steps);
  return text;
}

MetricsSample parsed(const std::string& text) {
  auto sample = MetricsSample::parse(text);
  EXPECT_TRUE(sample) << sample.error().message;
  return sample ? *sample : MetricsSample();
}

TEST(Metrics, ReadsSamplesOfTheTextFormat) {
  const MetricsSample sample = parsed(
      "# a comment\n\nplain 1.5\nwith_time 2 1700000000000\nlabel{a=\"x y\",b=\"}\\\"\"} 1e3\nlabel{a=\"z\"} 4\n"
      "labels 5\nnot_a_number NaN\nwindows 7\r\nlast 8");
  EXPECT_EQ(sample.find("plain"), 1.5);
  EXPECT_EQ(sample.find("with_time"), 2);
  EXPECT_EQ(sample.find("label{a=\"x y\",b=\"}\\\"\"}"), 1000);
  EXPECT_EQ(sample.sum("label"), 1004) << "not the metric called labels";
  EXPECT_EQ(sample.find("not_a_number"), std::nullopt);
  EXPECT_EQ(sample.find("windows"), 7);
  EXPECT_EQ(sample.find("last"), 8);
  EXPECT_EQ(sample.sum("absent"), 0);
}

TEST(Metrics, NamesTheBrokenLine) {
  for (const char* text :
       {"good 1\nbroken", "good 1\nbroken x", "good 1\nbroken 1x", "good 1\nbroken{a=\"x 1", "good 1\n "}) {
    const auto sample = MetricsSample::parse(text);
    ASSERT_FALSE(sample) << text;
    EXPECT_EQ(sample.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(sample.error().message, HasSubstr("line 2"));
  }
}

TEST(Live, ReportsTheDifference) {
  const auto report = make_live_report(parsed(metrics(100)), parsed(metrics(300)), 4, 1e-6);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->num_steps, 200);
  EXPECT_EQ(report->running, 3);
  EXPECT_EQ(report->waiting, 1);
  EXPECT_EQ(report->generated_tokens, 800);
  EXPECT_NEAR(report->step_seconds, 2, 1e-9);
  EXPECT_NEAR(report->profile.of(StepPhase::kExperts).weight_bytes, 2e10, 1);
  EXPECT_NEAR(report->shares[kExpertsLoss], 0.6, 1e-9);    // 12 of 2 x 10 ms
  EXPECT_NEAR(report->shares[kSamplingLoss], 0.05, 1e-9);  // 0.5 of 10 ms
  EXPECT_NEAR(report->shares[kBarriersLoss], 0.002, 1e-9);
  EXPECT_NEAR(std::accumulate(report->shares.begin(), report->shares.end(), 0.0), 1, 1e-9);

  const StepCeiling ceiling = {.read_bytes_per_s = 20e9, .multiply_flops = 400e9};
  const std::string text = live_text(*report, ceiling);
  EXPECT_THAT(text, HasSubstr("200 steps of 10.00 ms"));
  EXPECT_THAT(text, HasSubstr("10.0 GB/s (50.0 %)"));
  EXPECT_THAT(text, HasSubstr("50.0 % of the ceiling"));
  EXPECT_NEAR(live_json(*report, ceiling)["ceiling_share"].get<double>(), 0.5, 1e-9);
  EXPECT_FALSE(live_json(*report, std::nullopt).contains("ceiling_share"));
}

TEST(Live, AnIdleServerIsNoError) {
  const auto report = make_live_report(parsed(metrics(100)), parsed(metrics(100)), 1, 0);
  ASSERT_TRUE(report);
  EXPECT_THAT(live_text(*report, std::nullopt), HasSubstr("nothing to do"));
}

TEST(Live, NoticesARestartAndForeignServers) {
  const auto restarted = make_live_report(parsed(metrics(300)), parsed(metrics(100)), 1, 0);
  ASSERT_FALSE(restarted);
  EXPECT_EQ(restarted.error().code, ErrorCode::kUnavailable);
  const auto foreign = make_live_report(parsed("up 1\n"), parsed("up 1\n"), 1, 0);
  ASSERT_FALSE(foreign);
  EXPECT_EQ(foreign.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace hadal
