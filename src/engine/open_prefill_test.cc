// EngineOptions::max_itl_ms: prompts in slices between decode steps. Same answers as ever, on a clock that only the
// fake model moves; what happens to an open step whose members end, lose their blocks or fail.
#include "engine/open_prefill.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/testing/core_harness.h"

namespace hadal {
namespace {

using namespace hadal::testing;
using ::testing::HasSubstr;

constexpr double kTargetMs = 10;

EngineOptions sliced_options() {
  EngineOptions options = small_options();
  options.max_itl_ms = kTargetMs;
  return options;
}

// Decodes of 4 ms leave 5 of the 9 ms aimed at. A piece of a chunk of 64 tokens takes 6.4 ms whole, of 32 tokens 3.2.
void set_pace(CoreHarness& harness) {
  harness.state().step_s = 0.004;
  harness.state().token_s = 0.0001;
  harness.state().piece_token_s = 0.0001;
}

Request stream(int64_t i, int64_t max_tokens = 400) {
  return make_request(fmt::format("stream-{}", i), make_prompt(5 + i, static_cast<uint32_t>(i)), max_tokens);
}

Request prompt_of(int64_t length) {
  Request request = make_request("long", make_prompt(length, 99), 12);
  request.sampling.num_logprobs = 3;
  return request;
}

// Eight streams that decode.
void start_streams(CoreHarness& harness) {
  set_pace(harness);
  for (int64_t i = 0; i < 8; ++i) harness.add(stream(i));
  harness.step();
  harness.step();
}

// Steps until an open step has begun and is not finished.
void open_one(CoreHarness& harness) {
  const int64_t before = harness.state().num_opened;
  for (int i = 0; i < 20 && harness.state().num_opened == before; ++i) harness.step();
  ASSERT_GT(harness.state().num_opened, before);
}

void expect_oracle(const CoreHarness& harness, const Received& received, const Request& request) {
  testing::expect_oracle(received, request, harness.options());
}

double longest_step_s(CoreHarness& harness, const std::string& until_answered) {
  double longest_s = 0;
  while (harness.received(until_answered).tokens.empty()) {
    const double begin_s = harness.state().now_s;
    harness.step();
    longest_s = std::max(longest_s, harness.state().now_s - begin_s);
  }
  return longest_s;
}

TEST(OpenPrefill, ALongPromptDoesNotStopTheStreams) {
  for (const bool sliced : {false, true}) {
    EngineOptions options = sliced_options();
    options.max_num_batched_tokens = 512;
    if (!sliced) options.max_itl_ms = 0;
    CoreHarness harness(options);
    start_streams(harness);
    harness.add(prompt_of(400));
    const double longest_s = longest_step_s(harness, "long");
    if (sliced) {
      EXPECT_LE(longest_s, kTargetMs / 1000);
      EXPECT_GT(harness.state().num_opened, 400 / 64);
    } else {
      EXPECT_GT(longest_s, 1.5 * kTargetMs / 1000) << "the control: without slices a step is too long";
      EXPECT_EQ(harness.state().num_opened, 0);
    }
    harness.run_to_end();
    expect_oracle(harness, harness.received("long"), prompt_of(400));
    for (int64_t i = 0; i < 8; ++i) expect_oracle(harness, harness.received(stream(i).request_id), stream(i));
  }
}

TEST(OpenPrefill, AdvancesWhereDecodingAloneIsTooSlow) {
  CoreHarness harness(sliced_options());
  start_streams(harness);
  harness.state().step_s = 0.1;
  harness.add(prompt_of(200));
  harness.run_to_end();
  expect_oracle(harness, harness.received("long"), prompt_of(200));
  EXPECT_GT(harness.state().num_opened, 0);
}

TEST(OpenPrefill, NothingIsSlicedWhenNothingDecodes) {
  CoreHarness harness(sliced_options());
  harness.add(prompt_of(60));
  harness.step();
  EXPECT_EQ(harness.received("long").tokens.size(), 1u);
  harness.run_to_end();
  EXPECT_EQ(harness.state().num_opened, 0);
}

// The last stream ends while a step is open: the rest of it runs at once.
TEST(OpenPrefill, RunsTheRestWhenNothingDecodesAnyMore) {
  CoreHarness harness(sliced_options());
  set_pace(harness);
  harness.add(stream(0));
  harness.step();
  harness.add(prompt_of(8));
  open_one(harness);
  harness.core().abort("stream-0");
  harness.step();
  EXPECT_EQ(harness.received("long").tokens.size(), 1u);
  EXPECT_EQ(harness.state().num_dropped, 0);
  harness.run_to_end();
  expect_oracle(harness, harness.received("long"), prompt_of(8));
}

TEST(OpenPrefill, SameTokensWhateverTheTarget) {
  for (const int64_t length : {1, 7, 8, 9, 40, 200}) {
    for (const double target_ms : {0.001, 7.0, 1e6}) {
      SCOPED_TRACE(fmt::format("prompt of {}, target {} ms", length, target_ms));
      EngineOptions options = sliced_options();
      options.max_itl_ms = target_ms;
      options.max_prompt_logprob_rows = 7;
      CoreHarness harness(options);
      start_streams(harness);
      Request again = prompt_of(length), describing = prompt_of(length), sampled = prompt_of(length);
      again.request_id = "again";
      describing.request_id = "describing";
      describing.sampling.num_prompt_logprobs = 2;
      sampled.request_id = "sampled";
      sampled.sampling.temperature = 0.9f;
      sampled.sampling.seed = 5;
      harness.add(prompt_of(length));
      longest_step_s(harness, "long");
      for (const Request& request : {again, describing, sampled}) harness.add(request);
      harness.run_to_end();
      for (const Request& request : {prompt_of(length), again, describing, sampled}) {
        expect_oracle(harness, harness.received(request.request_id), request);
      }
      EXPECT_EQ(harness.received("again").num_cached_tokens, length % 8 == 0 ? length - 4 : length / 8 * 8);
    }
  }
}

// Every prompt token is counted once, in the step that finishes its prefill, and every step generates something.
TEST(OpenPrefill, TokensAreCountedOnce) {
  CoreHarness harness(sliced_options());
  start_streams(harness);
  for (int64_t i = 0; i < 4; ++i) {
    Request request = prompt_of(50 + i);
    request.request_id = fmt::format("long-{}", i);
    request.prompt_ids[0] = static_cast<int32_t>(i);
    harness.add(std::move(request));
  }
  harness.run_to_end();
  int64_t num_prefill = 0, num_generated = 0, num_sliced = 0;
  for (const StepRecord& record : harness.records()) {
    num_prefill += record.num_prefill_tokens;
    num_generated += record.num_generated_tokens;
    num_sliced += record.num_decode_tokens > 0 && record.num_prefill_tokens > 0;
    EXPECT_GT(record.num_generated_tokens, 0);
  }
  int64_t prompts = 50 + 51 + 52 + 53;
  for (int64_t i = 0; i < 8; ++i) prompts += 5 + i;
  EXPECT_EQ(num_prefill, prompts);
  EXPECT_EQ(num_generated, 8 * 400 + 4 * 12);
  EXPECT_EQ(static_cast<int64_t>(harness.core().stats().prompt_tokens), prompts);
  EXPECT_GT(num_sliced, 0);
}

TEST(OpenPrefill, AnAbortDropsAStepWithoutCompany) {
  CoreHarness harness(sliced_options());
  start_streams(harness);
  harness.add(prompt_of(200));
  open_one(harness);
  const int64_t free_before = harness.core().stats().num_free_blocks;
  harness.core().abort("long");
  EXPECT_EQ(harness.state().num_dropped, 1);
  EXPECT_EQ(harness.received("long").finish_reason, FinishReason::kAbort);
  EXPECT_EQ(harness.core().stats().num_free_blocks, free_before + 200 / 4);
  harness.run_to_end();
  for (int64_t i = 0; i < 8; ++i) expect_oracle(harness, harness.received(stream(i).request_id), stream(i));
}

// Two prompts of 4 tokens in one open step: its first chunk is a tile of 8.
void open_two(CoreHarness& harness) {
  Request other = prompt_of(4);
  other.request_id = "other";
  other.prompt_ids[0] = 1;
  harness.add(prompt_of(4));
  harness.add(std::move(other));
  open_one(harness);
}

TEST(OpenPrefill, AnAbortLeavesItsBlocksToTheStepItSharesWithOthers) {
  CoreHarness harness(sliced_options());
  set_pace(harness);
  harness.add(stream(0));
  harness.step();
  open_two(harness);
  const int64_t free_before = harness.core().stats().num_free_blocks;
  harness.core().abort("other");
  EXPECT_EQ(harness.core().stats().num_free_blocks, free_before);
  EXPECT_EQ(harness.core().snapshot().held.size(), 1u);
  EXPECT_EQ(find_violation(harness.core().snapshot(), harness.options()), "");
  longest_step_s(harness, "long");
  EXPECT_EQ(harness.state().num_dropped, 0);
  EXPECT_TRUE(harness.core().snapshot().held.empty());
  harness.run_to_end();
  expect_oracle(harness, harness.received("long"), prompt_of(4));
}

TEST(OpenPrefill, HeldBlocksGoBackBeforeAnybodyIsPreempted) {
  EngineOptions options = sliced_options();
  options.block_size = 2;
  options.num_blocks = 9;
  CoreHarness harness(options);
  set_pace(harness);
  harness.state().piece_token_s = 10;  // the open step takes a step a piece
  harness.add(stream(0, 12));          // 5 to 17 tokens
  harness.step();
  open_two(harness);  // 2 blocks each: two are left, for four tokens
  harness.core().abort("other");
  while (harness.state().num_dropped == 0) {
    ASSERT_TRUE(harness.received("stream-0").finish_reason == FinishReason::kNone);
    harness.step();
  }
  EXPECT_EQ(harness.core().stats().num_preemptions, 0u);
  harness.run_to_end();
  expect_oracle(harness, harness.received("long"), prompt_of(4));
  expect_oracle(harness, harness.received("stream-0"), stream(0, 12));
}

TEST(OpenPrefill, APreemptedMemberDropsTheStep) {
  EngineOptions options = sliced_options();
  options.num_blocks = 12;
  CoreHarness harness(options);
  set_pace(harness);
  harness.state().piece_token_s = 10;
  harness.add(stream(0, 40));  // 45 tokens: all blocks but one
  harness.step();
  harness.add(prompt_of(30));
  open_one(harness);
  while (harness.state().num_dropped == 0) harness.step();
  EXPECT_GT(harness.core().stats().num_preemptions, 0u);
  harness.run_to_end();
  expect_oracle(harness, harness.received("long"), prompt_of(30));
  expect_oracle(harness, harness.received("stream-0"), stream(0, 40));
}

// One who was displaced after its first token comes back with its prompt cached: a prefill of one token, which looks
// like a decode but belongs to the open step.
TEST(OpenPrefill, AMemberWithOneTokenLeftIsNotDecodedBesideTheStep) {
  EngineOptions options = sliced_options();
  options.max_num_seqs = 2;
  options.priority_preemption = true;
  CoreHarness harness(options);
  set_pace(harness);
  harness.add(stream(0));
  harness.step();
  Request displaced = prompt_of(8), urgent = prompt_of(9);
  displaced.priority = 1;
  urgent.request_id = "urgent";
  harness.add(displaced);
  while (harness.received("long").tokens.empty()) harness.step();
  harness.add(urgent);
  harness.state().piece_token_s = 10;  // an open step takes a step a piece
  while (harness.received("urgent").finish_reason == FinishReason::kNone) harness.step();
  ASSERT_EQ(harness.core().stats().num_preemptions, 1u);
  ASSERT_EQ(harness.received("long").tokens.size(), 1u);
  harness.run_to_end();
  expect_oracle(harness, harness.received("long"), displaced);
  expect_oracle(harness, harness.received("urgent"), urgent);
  expect_oracle(harness, harness.received("stream-0"), stream(0));
}

TEST(OpenPrefill, AFailedSliceFailsItsRequestsOnly) {
  CoreHarness harness(sliced_options());
  start_streams(harness);
  open_two(harness);
  harness.state().fail_next_pieces = true;
  harness.step();
  for (const char* id : {"long", "other"}) {
    EXPECT_EQ(harness.received(id).finish_reason, FinishReason::kError);
    EXPECT_THAT(harness.received(id).error, HasSubstr("injected failure"));
  }
  EXPECT_EQ(harness.core().num_consecutive_failures(), 1);
  harness.run_to_end();
  for (int64_t i = 0; i < 8; ++i) expect_oracle(harness, harness.received(stream(i).request_id), stream(i));
  EXPECT_EQ(harness.core().num_consecutive_failures(), 0);
}

// A whole step may fail beside an open one, which goes on.
TEST(OpenPrefill, AFailedDecodeLeavesTheOpenStepAlone) {
  CoreHarness harness(sliced_options());
  start_streams(harness);
  open_two(harness);
  harness.state().num_failures_to_come = 1;
  harness.step();
  for (int64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(harness.received(stream(i).request_id).finish_reason, FinishReason::kError);
  }
  harness.run_to_end();
  expect_oracle(harness, harness.received("long"), prompt_of(4));
}

TEST(OpenPrefill, AModelWithoutPiecesIsRefused) {
  class Whole final : public ForwardModel {
   public:
    int64_t vocab_size() const override { return 8; }
    int64_t max_position_embeddings() const override { return 4096; }
    int64_t kv_bytes_per_token() const override { return 1; }
    Status allocate_kv(int64_t, int64_t, int64_t) override { return {}; }
    PartialLogits partial_logits(int64_t) const override { return {}; }
    Status forward(const StepInput&, float*) override { return {}; }
    const StepProfile& profile() const override { return profile_; }
    void fill_kv(uint64_t) override {}

   private:
    StepProfile profile_;
  };
  const auto engine = make_engine(std::make_unique<Whole>(), sliced_options());
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(engine.error().message, HasSubstr("max_itl_ms"));
}

}  // namespace
}  // namespace hadal
