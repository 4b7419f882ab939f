// An EngineCore over the fake model, with what each request received. Checks invariants after every step.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "engine/engine_core.h"
#include "engine/request_check.h"
#include "engine/testing/fake_model.h"

namespace hadal::testing {

struct Received {
  std::vector<TokenOutput> tokens;
  std::vector<TokenOutput> prompt_tokens;
  FinishReason finish_reason = FinishReason::kNone;
  int32_t stop_token_id = -1;
  std::string error;
  int64_t num_cached_tokens = 0;
};

inline EngineOptions small_options() {
  EngineOptions options;
  options.max_model_len = 512;
  options.max_num_seqs = 32;
  options.max_num_batched_tokens = 64;
  options.block_size = 4;
  options.num_blocks = 2048;
  options.prompt_tile_tokens = 8;
  options.check_invariants = true;
  return options;
}

inline bool same_logprob(const TokenLogprob& a, const TokenLogprob& b) {
  return a.token_id == b.token_id && a.rank == b.rank && std::memcmp(&a.logprob, &b.logprob, sizeof a.logprob) == 0;
}

inline bool same_output(const TokenOutput& a, const TokenOutput& b) {
  if (a.token_id != b.token_id || a.logprob.has_value() != b.logprob.has_value()) return false;
  if (a.logprob && !same_logprob(*a.logprob, *b.logprob)) return false;
  return std::equal(a.top_logprobs.begin(), a.top_logprobs.end(), b.top_logprobs.begin(), b.top_logprobs.end(),
                    same_logprob);
}

// Byte-equal tokens and logprobs.
inline bool same_outputs(const std::vector<TokenOutput>& a, const std::vector<TokenOutput>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_output);
}

class CoreHarness {
 public:
  explicit CoreHarness(EngineOptions options) : options_(options) {
    set_log_level(LogLevel::kOff);  // injected failures are many
    auto model = std::make_unique<FakeModel>(state_);
    const Status valid = check_options(options, *model);
    EXPECT_TRUE(valid) << valid.error().message;
    EXPECT_TRUE(model->allocate_kv(options.num_blocks, options.block_size, options.max_num_batched_tokens));
    if (options.max_itl_ms > 0) {
      EXPECT_TRUE(model->prepare_pieces(options.max_num_seqs));
    }
    core_ = std::make_unique<EngineCore>(
        std::move(model), options_, [this](const StepRecord& record) { records_.push_back(record); },
        EngineCore::EndObserver{}, [state = state_] { return state->now_s.load(); });
  }

  void add(Request request) {
    const Status valid = check_request(request, options_, kFakeVocabSize);
    ASSERT_TRUE(valid) << valid.error().message;
    Received& received = received_[request.request_id];
    received = {};
    core_->add(std::move(request), [&received](RequestOutput&& output) {
      EXPECT_EQ(received.finish_reason, FinishReason::kNone) << "an output after the last";
      for (auto& token : output.tokens) received.tokens.push_back(std::move(token));
      for (auto& token : output.prompt_tokens) received.prompt_tokens.push_back(std::move(token));
      received.finish_reason = output.finish_reason;
      received.stop_token_id = output.stop_token_id;
      received.error = output.error;
      received.num_cached_tokens = output.num_cached_tokens;
    });
  }

  void step() {
    core_->step();
    ASSERT_EQ(find_violation(core_->snapshot(), options_), "");
    ASSERT_EQ(state_->violation, "");
  }

  void run_to_end() {
    for (int64_t i = 0; core_->has_work(); ++i) {
      ASSERT_LT(i, 100000) << "the engine makes no progress";
      step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    EXPECT_EQ(core_->stats().num_free_blocks, options_.num_blocks);
  }

  Received run_one(const Request& request) {
    add(request);
    run_to_end();
    return received(request.request_id);
  }

  const Received& received(const std::string& id) { return received_.at(id); }
  EngineCore& core() { return *core_; }
  FakeModelState& state() { return *state_; }
  const std::vector<StepRecord>& records() const { return records_; }
  const EngineOptions& options() const { return options_; }

 private:
  EngineOptions options_;
  std::shared_ptr<FakeModelState> state_ = std::make_shared<FakeModelState>();
  std::map<std::string, Received> received_;
  std::vector<StepRecord> records_;
  std::unique_ptr<EngineCore> core_;
};

// A prompt of `length` ids below kNanToken, the same for the same seed.
inline std::vector<int32_t> make_prompt(int64_t length, uint32_t seed) {
  std::vector<int32_t> ids;
  uint32_t state = seed * 2654435761u + 12345;
  for (int64_t i = 0; i < length; ++i) {
    state = state * 1664525u + 1013904223u;
    ids.push_back(static_cast<int32_t>((state >> 8) % kNanToken));
  }
  return ids;
}

inline Request make_request(const std::string& id, std::vector<int32_t> prompt_ids, int64_t max_tokens = 12) {
  Request request;
  request.request_id = id;
  request.prompt_ids = std::move(prompt_ids);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = max_tokens;
  return request;
}

inline constexpr int64_t kPromptLengths[] = {1, 5, 7, 8, 9, 16, 40, 200};

// A prompt for the oracle, with log-probabilities to compare.
inline Request probe(int64_t length, int64_t max_tokens = 12) {
  Request request = make_request(fmt::format("probe-{}", length), make_prompt(length, 99), max_tokens);
  request.sampling.num_logprobs = 3;
  return request;
}

// The answer is the oracle's, whatever the options about batching.
inline void expect_oracle(const Received& received, const Request& request, const EngineOptions& options) {
  const OracleAnswer oracle = oracle_answer(request, options);
  EXPECT_EQ(received.finish_reason, FinishReason::kLength) << received.error;
  EXPECT_TRUE(same_outputs(received.tokens, oracle.tokens)) << request.request_id;
  EXPECT_TRUE(same_outputs(received.prompt_tokens, oracle.prompt_tokens)) << request.request_id;
}

}  // namespace hadal::testing
