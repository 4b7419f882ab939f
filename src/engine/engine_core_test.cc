#include "engine/engine_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/testing/core_harness.h"

namespace hadal {
namespace {

using namespace hadal::testing;
using ::testing::HasSubstr;

void add_strangers(CoreHarness& harness, int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t length = 1 + generator() % 60;
    Request stranger = make_request(fmt::format("stranger-{}-{}", seed, i), make_prompt(length, 1000 + i), 30);
    stranger.sampling.temperature = i % 2 ? 0.8f : 0.0f;
    harness.add(std::move(stranger));
  }
}

class SameTokens : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Prompts, SameTokens, ::testing::ValuesIn(kPromptLengths));

TEST_P(SameTokens, AloneForEveryChunkAndBlockSize) {
  const Request request = probe(GetParam());
  for (const int64_t chunk : {1, 3, 64, 512}) {
    for (const int64_t block_size : {1, 2, 4, 8}) {
      EngineOptions options = small_options();
      options.max_chunk_tokens = chunk;
      options.max_num_batched_tokens = 512;
      options.block_size = block_size;
      CoreHarness harness(options);
      expect_oracle(harness.run_one(request), request, options);
    }
  }
}

TEST_P(SameTokens, AmongStrangers) {
  const Request request = probe(GetParam());
  CoreHarness harness(small_options());
  add_strangers(harness, 15, 1);
  harness.add(request);
  add_strangers(harness, 16, 2);
  harness.run_to_end();
  expect_oracle(harness.received(request.request_id), request, harness.options());
}

TEST_P(SameTokens, OnPrefixCacheHit) {
  Request request = probe(GetParam());
  CoreHarness harness(small_options());
  expect_oracle(harness.run_one(request), request, harness.options());
  // A longer prompt shares full tiles with the first one; the first one again finds its own.
  Request longer = probe(GetParam());
  longer.request_id = "longer";
  for (const int32_t id : make_prompt(21, 5)) longer.prompt_ids.push_back(id);
  expect_oracle(harness.run_one(longer), longer, harness.options());
  const Received again = harness.run_one(request);
  expect_oracle(again, request, harness.options());
  const int64_t full_tiles = GetParam() / 8 * 8;
  // A fully cached prompt runs its last block again, for the logits of its last token.
  EXPECT_EQ(again.num_cached_tokens, full_tiles == GetParam() ? full_tiles - 4 : full_tiles);
  EXPECT_EQ(harness.received("longer").num_cached_tokens, full_tiles);
}

TEST_P(SameTokens, AfterPreemption) {
  EngineOptions options = small_options();
  options.num_blocks = 70;  // 280 tokens
  CoreHarness harness(options);
  Request request = probe(GetParam(), 40);
  Request rival = make_request("rival", make_prompt(20, 3), 250);
  harness.add(rival);
  harness.add(request);
  for (const int64_t i : {0, 1, 2}) harness.add(make_request(fmt::format("x{}", i), make_prompt(30, i), 60));
  harness.run_to_end();
  expect_oracle(harness.received(request.request_id), request, options);
  expect_oracle(harness.received("rival"), rival, options);
  EXPECT_GT(harness.core().stats().num_preemptions, 0u);
}

TEST_P(SameTokens, WithPromptLogprobsInSlices) {
  Request request = probe(GetParam());
  request.sampling.num_prompt_logprobs = 2;
  for (const int64_t rows : {1, 7, 64}) {
    EngineOptions options = small_options();
    options.max_prompt_logprob_rows = rows;
    CoreHarness harness(options);
    harness.run_one(probe(GetParam()));  // fills the cache, which must not be used
    add_strangers(harness, 5, 3);
    const Received received = harness.run_one(request);
    expect_oracle(received, request, options);
    EXPECT_EQ(received.prompt_tokens.size(), static_cast<size_t>(GetParam()));
    EXPECT_EQ(received.num_cached_tokens, 0);
  }
}

TEST_P(SameTokens, Sampled) {
  Request request = probe(GetParam(), 20);
  request.sampling.temperature = 0.9f;
  request.sampling.top_p = 0.95f;
  request.sampling.repetition_penalty = 1.1f;
  request.sampling.presence_penalty = 0.3f;
  request.sampling.seed = 77;
  request.sample_idx = 3;
  CoreHarness harness(small_options());
  add_strangers(harness, 10, 4);
  harness.add(request);
  harness.run_to_end();
  expect_oracle(harness.received(request.request_id), request, harness.options());
}

TEST(EngineCore, FakeModelNoticesAWrongExpandedEnd) {
  // The other half of the proof: were expanded_end computed differently, the tokens would differ.
  EngineOptions wrong = small_options();
  wrong.prompt_tile_tokens = 16;
  const Request request = probe(40);
  EXPECT_FALSE(same_outputs(oracle_answer(request, small_options()).tokens, oracle_answer(request, wrong).tokens));
}

TEST(EngineCore, SaltKeepsPrefixesApart) {
  CoreHarness harness(small_options());
  Request request = probe(40);
  request.cache_salt = "a";
  harness.run_one(request);
  request.cache_salt = "b";
  EXPECT_EQ(harness.run_one(request).num_cached_tokens, 0);
  request.cache_salt = "a";
  EXPECT_EQ(harness.run_one(request).num_cached_tokens, 36);
}

TEST(EngineCore, GeneratedBlocksAreSharedOnlyWhenAskedFor) {
  for (const bool shares : {false, true}) {
    EngineOptions options = small_options();
    options.prefix_cache_generated = shares;
    CoreHarness harness(options);
    Request first = make_request("first", make_prompt(13, 1), 30);
    const Received received = harness.run_one(first);
    Request second = make_request("second", first.prompt_ids, 4);
    for (const TokenOutput& token : received.tokens) second.prompt_ids.push_back(token.token_id);
    // 42 of the 43 tokens were computed, so ten blocks of four are known; without sharing, the first's one full tile.
    EXPECT_EQ(harness.run_one(second).num_cached_tokens, shares ? 40 : 8);
  }
}

TEST(EngineCore, StopsAtStopTokensEosAndLengths) {
  const Request base = probe(9, 12);
  const EngineOptions options = small_options();
  const auto oracle = oracle_answer(base, options).tokens;
  const int32_t third = oracle[2].token_id;
  ASSERT_NE(oracle[0].token_id, third);
  ASSERT_NE(oracle[1].token_id, third);
  {
    Request request = base;
    request.sampling.stop_token_ids = {third};
    const Received received = CoreHarness(options).run_one(request);
    EXPECT_EQ(received.finish_reason, FinishReason::kStop);
    EXPECT_EQ(received.stop_token_id, third);
    EXPECT_EQ(received.tokens.size(), 3u);
  }
  EngineOptions with_eos = options;
  with_eos.eos_token_ids = {third};
  {
    const Received received = CoreHarness(with_eos).run_one(base);
    EXPECT_EQ(received.finish_reason, FinishReason::kStop);
    EXPECT_EQ(received.tokens.size(), 3u);
    Request ignoring = base;
    ignoring.sampling.ignore_eos = true;
    EXPECT_EQ(CoreHarness(with_eos).run_one(ignoring).tokens.size(), 12u);
    Request at_least = base;
    at_least.sampling.min_tokens = 8;
    const Received longer = CoreHarness(with_eos).run_one(at_least);
    EXPECT_GT(longer.tokens.size(), 8u);
    for (size_t i = 0; i < 8; ++i) EXPECT_NE(longer.tokens[i].token_id, third);
  }
  EngineOptions short_model = options;
  short_model.max_model_len = 14;
  const Received cut = CoreHarness(short_model).run_one(base);
  EXPECT_EQ(cut.finish_reason, FinishReason::kLength);
  EXPECT_EQ(cut.tokens.size(), 5u);
}

TEST(EngineCore, MaxTokensZeroRunsThePromptOnly) {
  Request request = probe(20, 0);
  request.sampling.num_prompt_logprobs = 1;
  CoreHarness harness(small_options());
  const Received received = harness.run_one(request);
  EXPECT_EQ(received.finish_reason, FinishReason::kLength);
  EXPECT_TRUE(received.tokens.empty());
  EXPECT_TRUE(same_outputs(received.prompt_tokens, oracle_answer(request, harness.options()).prompt_tokens));
}

TEST(EngineCore, ALoneSequenceEndsWhenTheCacheIsFull) {
  EngineOptions options = small_options();
  options.num_blocks = 6;
  CoreHarness harness(options);
  const Received received = harness.run_one(probe(9, 100));
  EXPECT_EQ(received.finish_reason, FinishReason::kLength);
  EXPECT_EQ(received.tokens.size(), 24u - 9u);
}

TEST(EngineCore, PriorityGoesFirstAndArrivalDecidesAmongEquals) {
  EngineOptions options = small_options();
  options.max_num_seqs = 1;
  CoreHarness harness(options);
  std::vector<std::string> order;
  int32_t arrival = 0;
  for (const int32_t priority : {1, 0, 1, -1, 0}) {
    Request request = make_request(fmt::format("{}", arrival), make_prompt(5, arrival), 2);
    request.priority = priority;
    harness.core().add(std::move(request), [&order, arrival](RequestOutput&& output) {
      if (output.finish_reason == FinishReason::kLength) order.push_back(fmt::format("{}", arrival));
    });
    ++arrival;
  }
  harness.run_to_end();
  EXPECT_EQ(order, (std::vector<std::string>{"3", "1", "4", "0", "2"}));
}

// Who is displaced answers the same, later; who shares the priority is not.
TEST(EngineCore, AWaitingRequestDisplacesWhatMayWait) {
  for (const bool displaces : {false, true}) {
    for (const double max_itl_ms : {0.0, 5.0}) {
      EngineOptions options = small_options();
      options.max_num_seqs = 2;
      options.priority_preemption = displaces;
      options.max_itl_ms = max_itl_ms;
      CoreHarness harness(options);
      Request later = probe(40, 30), urgent = probe(16, 5), equal = probe(9, 30);
      later.priority = equal.priority = 5;
      harness.add(equal);
      harness.add(later);
      for (int i = 0; i < 3; ++i) harness.step();
      harness.add(urgent);
      Request same = probe(7, 5);
      same.priority = 5;
      harness.add(same);
      for (int i = 0; i < 10; ++i) harness.step();
      EXPECT_EQ(harness.received(urgent.request_id).tokens.size() > 0, displaces);
      EXPECT_EQ(harness.core().stats().num_preemptions, displaces ? 1u : 0u);
      EXPECT_EQ(harness.received(same.request_id).tokens.size(), 0u);
      harness.run_to_end();
      for (const Request& request : {later, urgent, equal, same}) {
        expect_oracle(harness.received(request.request_id), request, options);
      }
    }
  }
}

TEST(EngineCore, AWaitingRequestTakesTheBlocksItNeeds) {
  EngineOptions options = small_options();
  options.num_blocks = 24;  // 96 tokens
  options.priority_preemption = true;
  CoreHarness harness(options);
  Request later = probe(40, 30), urgent = probe(60, 5);
  later.priority = 1;
  harness.add(later);
  harness.step();
  harness.add(urgent);
  harness.step();
  EXPECT_GT(harness.received(urgent.request_id).tokens.size(), 0u);
  harness.run_to_end();
  expect_oracle(harness.received(later.request_id), later, options);
  expect_oracle(harness.received(urgent.request_id), urgent, options);
}

TEST(EngineCore, DecodesFirstAndFillsTheBudgetWithChunks) {
  EngineOptions options = small_options();
  options.max_num_batched_tokens = 40;
  CoreHarness harness(options);
  harness.add(probe(9, 50));
  harness.step();
  harness.add(make_request("long", make_prompt(200, 1), 2));
  harness.step();
  const StepRecord& record = harness.records().back();
  EXPECT_EQ(record.num_decode_tokens, 1);
  EXPECT_EQ(record.num_prefill_tokens, 32);  // of 39 possible: ends on a tile
  EXPECT_EQ(record.num_generated_tokens, 1);
  EXPECT_GT(record.planning_s, 0);
  EXPECT_GT(record.sampling_s, 0);
  EXPECT_LT(record.planning_s + record.sampling_s, record.duration_s);
  harness.run_to_end();
}

TEST(EngineCore, AbortFreesBlocksAtOnce) {
  CoreHarness harness(small_options());
  harness.add(probe(40, 50));
  harness.add(make_request("waits", make_prompt(200, 1)));
  harness.step();
  harness.core().abort("probe-40");
  harness.core().abort("waits");
  harness.core().abort("unknown");
  EXPECT_EQ(harness.received("probe-40").finish_reason, FinishReason::kAbort);
  EXPECT_EQ(harness.received("waits").finish_reason, FinishReason::kAbort);
  EXPECT_EQ(harness.core().stats().num_free_blocks, harness.options().num_blocks);
  EXPECT_FALSE(harness.core().has_work());
}

TEST(EngineCore, AFailedStepFailsItsRequestsOnly) {
  EngineOptions options = small_options();
  options.max_num_seqs = 2;
  CoreHarness harness(options);
  const Request survivor = probe(40);
  harness.add(make_request("a", make_prompt(40, 1)));
  harness.add(make_request("b", make_prompt(9, 2)));
  harness.add(survivor);
  harness.step();
  harness.state().num_failures_to_come = 1;
  harness.step();
  EXPECT_EQ(harness.core().num_consecutive_failures(), 1);
  for (const char* id : {"a", "b"}) {
    EXPECT_EQ(harness.received(id).finish_reason, FinishReason::kError);
    EXPECT_THAT(harness.received(id).error, HasSubstr("injected failure"));
  }
  harness.run_to_end();
  EXPECT_EQ(harness.core().num_consecutive_failures(), 0);
  expect_oracle(harness.received(survivor.request_id), survivor, options);
}

TEST(EngineCore, NanLogitsFailOnlyTheRequestThatGotThem) {
  CoreHarness harness(small_options());
  const Request healthy = probe(40);
  auto poisoned = make_prompt(10, 1);
  poisoned[0] = kNanToken;
  harness.add(make_request("poisoned", poisoned));
  harness.add(healthy);
  harness.run_to_end();
  EXPECT_EQ(harness.received("poisoned").finish_reason, FinishReason::kError);
  EXPECT_THAT(harness.received("poisoned").error, HasSubstr("NaN"));
  EXPECT_EQ(harness.received("poisoned").tokens.size(), 3u);  // until it reached kNanLength
  expect_oracle(harness.received(healthy.request_id), healthy, harness.options());
}

TEST(EngineCore, AThrowingSinkEndsItsRequestAlone) {
  CoreHarness harness(small_options());
  const Request healthy = probe(9);
  harness.core().add(make_request("thrower", make_prompt(9, 1)),
                     [](RequestOutput&&) { throw std::runtime_error("nobody is there"); });
  harness.add(healthy);
  harness.run_to_end();
  expect_oracle(harness.received(healthy.request_id), healthy, harness.options());
}

// Thousands of steps of arrivals, aborts and failures on a cache that is always too small.
class Stress : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, Stress, ::testing::Range(0u, 8u));

TEST_P(Stress, InvariantsHoldAndEveryAnswerIsTheOracles) {
  std::mt19937 generator(GetParam());
  const auto below = [&](int64_t bound) { return static_cast<int64_t>(generator() % bound); };
  EngineOptions options = small_options();
  options.num_blocks = 40 + below(60);
  options.block_size = int64_t{1} << below(4);
  options.max_num_seqs = 1 + below(12);
  options.max_num_batched_tokens = options.max_num_seqs + below(60);
  options.max_chunk_tokens = below(2) * (1 + below(20));
  options.max_itl_ms = GetParam() % 2 * 3;  // in slices of about two pieces, by the times below
  options.priority_preemption = GetParam() % 4 >= 2;
  CoreHarness harness(options);
  harness.state().step_s = 0.001;
  harness.state().piece_token_s = 0.00003;
  const int64_t limit = sequence_length_limit(options);
  std::map<std::string, Request> requests;
  std::set<std::string> disturbed;
  for (int64_t i = 0; i < 1500; ++i) {
    if (below(4) == 0) {
      const int64_t length = 1 + below(std::min<int64_t>(limit - 1, 60));
      // Prompts begin alike in a few groups, so that prefixes are shared.
      auto prompt = make_prompt(length, static_cast<uint32_t>(below(3)));
      prompt.back() = static_cast<int32_t>(below(kNanToken));
      Request request = make_request(fmt::format("r{}", i), prompt, std::min(1 + below(40), limit - length));
      request.priority = static_cast<int32_t>(below(3));
      request.sampling.num_logprobs = static_cast<int32_t>(below(3)) - 1;
      request.sampling.num_prompt_logprobs = below(8) == 0 ? 1 : -1;
      requests[request.request_id] = request;
      harness.add(request);
    }
    if (below(20) == 0 && !requests.empty()) {
      const auto victim = std::next(requests.begin(), below(static_cast<int64_t>(requests.size())))->first;
      harness.core().abort(victim);
    }
    if (below(150) == 0) harness.state().num_failures_to_come = 1;
    if (below(100) == 0) harness.core().drop_unused_cached();
    harness.step();
    if (HasFatalFailure()) return;
  }
  harness.run_to_end();
  int64_t num_finished = 0;
  for (const auto& [id, request] : requests) {
    const Received& received = harness.received(id);
    ASSERT_NE(received.finish_reason, FinishReason::kNone) << id;
    OracleAnswer oracle = oracle_answer(request, options);
    if (received.finish_reason != FinishReason::kLength) {
      ASSERT_LE(received.tokens.size(), oracle.tokens.size());
      oracle.tokens.resize(received.tokens.size());
    } else {
      ++num_finished;
      EXPECT_TRUE(same_outputs(received.prompt_tokens, oracle.prompt_tokens)) << id;
    }
    EXPECT_TRUE(same_outputs(received.tokens, oracle.tokens)) << id;
  }
  EXPECT_GT(num_finished, 100);
  EXPECT_GT(harness.core().stats().prefix_cache_hits, 0u);
  EXPECT_EQ(harness.state().num_opened > 10, options.max_itl_ms > 0 && options.max_num_seqs > 1);
}

TEST(EngineCore, StressPreemptsInSomeSeed) {
  // Guards the stress test itself: a cache of 40 blocks of one token must overflow.
  EngineOptions options = small_options();
  options.num_blocks = 64;
  options.block_size = 1;
  CoreHarness harness(options);
  for (int i = 0; i < 4; ++i) harness.add(make_request(fmt::format("r{}", i), make_prompt(10, i), 30));
  harness.run_to_end();
  EXPECT_GT(harness.core().stats().num_preemptions, 0u);
}

}  // namespace
}  // namespace hadal
