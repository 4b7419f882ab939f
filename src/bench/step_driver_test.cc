#include "bench/step_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace hadal {
namespace {

using ::testing::ElementsAre;

struct RecordedStep {
  std::vector<int32_t> token_ids, logit_rows;
  std::vector<SequenceSpan> spans;
  std::vector<std::vector<int32_t>> tables;
};

class RecordingModel final : public ForwardModel {
 public:
  int64_t vocab_size() const override { return 11; }
  int64_t max_position_embeddings() const override { return 1 << 20; }
  int64_t kv_bytes_per_token() const override { return 1; }
  Status allocate_kv(int64_t, int64_t, int64_t) override { return {}; }
  PartialLogits partial_logits(int64_t) const override { return {}; }
  Status forward(const StepInput& input, float* logits) override {
    RecordedStep& step = steps.emplace_back();
    step.token_ids.assign(input.token_ids.begin(), input.token_ids.end());
    step.logit_rows.assign(input.logit_rows.begin(), input.logit_rows.end());
    step.spans.assign(input.sequences.begin(), input.sequences.end());
    for (const SequenceSpan& span : input.sequences)
      step.tables.emplace_back(span.block_table.begin(), span.block_table.end());
    std::fill(logits, logits + static_cast<int64_t>(step.logit_rows.size()) * vocab_size(), 0.0F);
    return {};
  }
  const StepProfile& profile() const override { return profile_; }
  void fill_kv(uint64_t) override {}

  std::vector<RecordedStep> steps;

 private:
  StepProfile profile_;
};

TEST(StepDriver, CutsPromptsAtTilesAsTheSchedulerDoes) {
  RecordingModel model;
  StepDriver driver(model, {.num_blocks = 100, .max_num_batched_tokens = 600, .max_batch = 1}, 1);
  ASSERT_TRUE(driver.prefill(1300));
  std::vector<int64_t> ends;
  int64_t position = 0;
  for (const RecordedStep& step : model.steps) {
    ASSERT_EQ(step.spans.size(), 1u);
    EXPECT_EQ(step.spans[0].first_position, position);
    EXPECT_EQ(step.spans[0].expanded_end, 1280) << "the full tiles of the whole prompt";
    EXPECT_EQ(step.spans[0].num_tokens, static_cast<int64_t>(step.token_ids.size()));
    position += step.spans[0].num_tokens;
    EXPECT_EQ(static_cast<int64_t>(step.tables[0].size()), (position + 63) / 64);
    ends.push_back(position);
  }
  EXPECT_THAT(ends, ElementsAre(512, 1024, 1300));
  EXPECT_THAT(model.steps.back().logit_rows, ElementsAre(275));
  EXPECT_TRUE(model.steps.front().logit_rows.empty());
}

TEST(StepDriver, DecodesDistinctSequencesAtTheDepthWithNewTokens) {
  RecordingModel model;
  StepDriver driver(model, {.num_blocks = 100, .max_num_batched_tokens = 600, .max_batch = 3}, 1);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(driver.decode(3, 640));
  std::set<int32_t> blocks;
  std::set<std::vector<int32_t>> tokens;
  for (const RecordedStep& step : model.steps) {
    ASSERT_EQ(step.spans.size(), 3u);
    tokens.insert(step.token_ids);
    EXPECT_THAT(step.logit_rows, ElementsAre(0, 1, 2));
    for (const SequenceSpan& span : step.spans) {
      EXPECT_EQ(span.first_position, 640);
      EXPECT_LE(span.expanded_end, 640) << "a generated token is absorbed";
    }
  }
  for (const auto& table : model.steps[0].tables) {
    EXPECT_EQ(table.size(), 11u) << "640 tokens and one more";
    blocks.insert(table.begin(), table.end());
  }
  EXPECT_EQ(blocks.size(), 33u) << "no block is shared";
  EXPECT_GT(tokens.size(), 4u);
}

}  // namespace
}  // namespace hadal
