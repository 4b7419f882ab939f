// EngineCore when ranks of its model are lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "engine/engine_core.h"
#include "engine/testing/core_harness.h"

namespace hadal {
namespace {

using namespace hadal::testing;
using ::testing::HasSubstr;

// Losing a rank at any step: requests that sent tokens fail, the others are answered as if nothing had happened.
TEST(Recovery, RequestsWithoutTokensSurviveALostRank) {
  for (const double max_itl_ms : {0.0, 1.0}) {
    for (const int64_t num_steps_before : {0, 1, 2, 5, 9}) {
      EngineOptions options = small_options();
      options.max_itl_ms = max_itl_ms;
      options.num_blocks = 90;  // so that some wait, and some were preempted
      CoreHarness harness(options);
      std::vector<Request> requests;
      for (const int64_t length : kPromptLengths) requests.push_back(probe(length, 30));
      for (const Request& request : requests) harness.add(request);
      for (int64_t i = 0; i < num_steps_before; ++i) harness.step();
      std::map<std::string, bool> had_tokens;
      for (const Request& request : requests) {
        had_tokens[request.request_id] = !harness.received(request.request_id).tokens.empty();
      }
      harness.state().lost = true;
      harness.core().step();
      ASSERT_TRUE(harness.core().lost_ranks());
      for (const Request& request : requests) {
        EXPECT_EQ(harness.received(request.request_id).finish_reason, FinishReason::kNone) << "before recover()";
      }
      ASSERT_TRUE(harness.core().recover());
      EXPECT_FALSE(harness.core().lost_ranks());
      EXPECT_EQ(harness.core().stats().num_free_blocks, options.num_blocks);
      for (const Request& request : requests) {
        const Received& received = harness.received(request.request_id);
        EXPECT_EQ(received.finish_reason, had_tokens[request.request_id] ? FinishReason::kError : FinishReason::kNone);
        if (!had_tokens[request.request_id]) continue;
        EXPECT_THAT(received.error, HasSubstr("rank 1 (node 0) was lost"));
      }
      harness.run_to_end();
      for (const Request& request : requests) {
        if (had_tokens[request.request_id]) continue;
        expect_oracle(harness.received(request.request_id), request, options);
      }
    }
  }
}

TEST(Recovery, NothingStaysCachedBeyondALostRank) {
  CoreHarness harness(small_options());
  const Request request = probe(200);
  harness.run_one(request);
  harness.state().lost = true;
  ASSERT_TRUE(harness.core().recover());
  const Received again = harness.run_one(request);
  EXPECT_EQ(again.num_cached_tokens, 0);
  expect_oracle(again, request, harness.options());
}

TEST(Recovery, PromptLogprobsBeginAnewAfterALostRank) {
  EngineOptions options = small_options();
  options.max_prompt_logprob_rows = 16;  // the prompt takes many steps
  CoreHarness harness(options);
  Request request = probe(200);
  request.sampling.num_prompt_logprobs = 2;
  harness.add(request);
  for (int i = 0; i < 4; ++i) harness.step();
  harness.state().lost = true;
  ASSERT_TRUE(harness.core().recover());
  harness.run_to_end();
  expect_oracle(harness.received(request.request_id), request, options);
}

}  // namespace
}  // namespace hadal
