#include "engine/step_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace hadal {
namespace {

using ::testing::HasSubstr;

StepPlan example_plan() {
  StepPlan plan;
  plan.token_ids = {5, 6, 7, 8, 9};
  plan.block_ids = {3, 1, 4};
  plan.logit_rows = {3, 4};
  plan.logit_wants = {{}, {.num_valid = 9, .num_best = 2, .exp_scale = 0.5f, .nucleus = 0.9f, .temperature = 2}};
  plan.sequences = {{.token_begin = 0, .num_tokens = 4, .first_position = 4, .expanded_end = 8, .num_blocks = 2},
                    {.token_begin = 4, .num_tokens = 1, .first_position = 0, .block_begin = 2, .num_blocks = 1}};
  return plan;
}

std::vector<std::byte> encode(const StepHead& head, const StepPlan& plan) {
  std::vector<SequenceSpan> spans;
  const StepInput input = make_step_input(plan, spans);
  std::vector<std::byte> bytes;
  encode_step(head, &input, bytes);
  return bytes;
}

const StepHead kStepHead{.op = StepOp::kForward, .generation = 3, .number = 1234567890123, .arguments = {1, -2, 3}};
constexpr StepLimits kLimits{.vocab_size = 10, .num_blocks = 5, .block_size = 4, .max_tokens = 5};

TEST(StepWire, StepsArriveWhole) {
  const StepPlan plan = example_plan();
  const auto bytes = encode(kStepHead, plan);
  StepMessage message;
  ASSERT_EQ(step_message_bytes(bytes).value(), bytes.size());
  ASSERT_TRUE(decode_step(bytes, message));
  EXPECT_EQ(message.head.op, StepOp::kForward);
  EXPECT_EQ(message.head.generation, 3u);
  EXPECT_EQ(message.head.number, 1234567890123u);
  EXPECT_EQ(message.head.arguments[1], -2);
  EXPECT_EQ(message.plan.token_ids, plan.token_ids);
  EXPECT_EQ(message.plan.block_ids, plan.block_ids);
  EXPECT_EQ(message.plan.logit_rows, plan.logit_rows);
  ASSERT_EQ(message.plan.logit_wants.size(), 2u);
  EXPECT_EQ(message.plan.logit_wants[0].num_valid, 0);
  EXPECT_EQ(message.plan.logit_wants[1].num_best, 2);
  EXPECT_EQ(message.plan.logit_wants[1].temperature, 2);
  ASSERT_EQ(message.plan.sequences.size(), 2u);
  EXPECT_EQ(message.plan.sequences[0].expanded_end, 8);
  EXPECT_EQ(message.plan.sequences[1].token_begin, 4);
  EXPECT_EQ(message.plan.sequences[1].block_begin, 2);
  EXPECT_TRUE(check_step(message.plan, kLimits));
  EXPECT_EQ(encode(message.head, message.plan), bytes) << "and go back";
}

TEST(StepWire, OperationsWithoutAStep) {
  for (const StepOp op : {StepOp::kPing, StepOp::kRunPieces, StepOp::kDropStep, StepOp::kAllocateKv,
                          StepOp::kPreparePieces, StepOp::kFillKv, StepOp::kStop, StepOp::kGatherRanges}) {
    std::vector<std::byte> bytes;
    encode_step({.op = op, .arguments = {7, 8, 9}}, nullptr, bytes);
    EXPECT_EQ(bytes.size(), kStepHeadBytes);
    StepMessage message;
    ASSERT_TRUE(decode_step(bytes, message)) << step_op_name(op);
    EXPECT_EQ(message.head.arguments[2], 9);
    EXPECT_TRUE(message.plan.token_ids.empty());
  }
}

struct Damage {
  const char* what;
  size_t offset;  // of a u32
  uint32_t value;
  const char* message;
};

// Offsets: the head of step_wire.cc, then sequences of 24 bytes.
TEST(StepWire, DamagedBytesAreRefused) {
  constexpr size_t kFirstSequence = 64, kTokens = 64 + 2 * 24, kLogitRows = kTokens + 5 * 4 + 3 * 4;
  const Damage table[] = {
      {"length", 0, 1 << 30, "says"},
      {"mark", 4, 0, "same version"},
      {"operation", 8, 77, "same version"},
      {"operation that has no step", 8, static_cast<uint32_t>(StepOp::kPing), "2 sequences"},
      {"no sequences", 48, 0, "its parts have"},
      {"huge sequence count", 48, 0xffffffff, "its parts have"},
      {"huge token count", 52, 0xfffffff0, "its parts have"},
      {"empty sequence", kFirstSequence + 16, 0, "a sequence of 0 tokens"},
      {"sequence without blocks", kFirstSequence + 20, 0, "in 0 blocks"},
      {"sequence of other tokens", kFirstSequence + 16, 5, "sequences of 6 tokens"},
      {"negative position", kFirstSequence + 4, 0x80000000, "a sequence of"},
      {"endless position", kFirstSequence + 4, 0x70000000, "a sequence of"},
      {"negative expanded end", kFirstSequence + 12, 0x80000000, "a sequence of"},
      {"row beyond the step", kLogitRows + 4, 5, "row 5"},
      {"rows in no order", kLogitRows + 4, 3, "row 3 after row 3"},
      {"negative row", kLogitRows, 0xffffffff, "row -1"},
  };
  for (const Damage& damage : table) {
    auto bytes = encode(kStepHead, example_plan());
    std::memcpy(bytes.data() + damage.offset, &damage.value, sizeof damage.value);
    StepMessage message;
    const Status status = decode_step(bytes, message);
    ASSERT_FALSE(status) << damage.what;
    EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(status.error().message, HasSubstr(damage.message)) << damage.what;
  }
}

TEST(StepWire, EveryCutIsRefused) {
  const auto bytes = encode(kStepHead, example_plan());
  StepMessage message;
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(decode_step(std::span(bytes).first(length), message)) << length;
  }
}

TEST(StepWire, StepsBeyondTheLimitsAreRefused) {
  const auto refused = [](const StepLimits& limits, auto&& change) {
    StepPlan plan = example_plan();
    change(plan);
    const Status status = check_step(plan, limits);
    return status ? "" : status.error().message;
  };
  const auto nothing = [](StepPlan&) {};
  EXPECT_EQ(refused(kLimits, nothing), "");
  EXPECT_THAT(refused({}, nothing), HasSubstr("at most 0")) << "before the cache is there";
  EXPECT_THAT(refused({.vocab_size = 9, .num_blocks = 5, .block_size = 4, .max_tokens = 5}, nothing),
              HasSubstr("token id 9"));
  EXPECT_THAT(refused({.vocab_size = 10, .num_blocks = 4, .block_size = 4, .max_tokens = 5}, nothing),
              HasSubstr("block 4 of 4"));
  EXPECT_THAT(refused({.vocab_size = 10, .num_blocks = 5, .block_size = 4, .max_tokens = 4}, nothing),
              HasSubstr("a step of 5 tokens"));
  EXPECT_THAT(refused({.vocab_size = 10, .num_blocks = 5, .block_size = 8, .max_tokens = 5}, nothing),
              HasSubstr("with 2 blocks of 8"));
  EXPECT_THAT(refused(kLimits, [](StepPlan& plan) { plan.token_ids[2] = -1; }), HasSubstr("token id -1"));
  EXPECT_THAT(refused(kLimits, [](StepPlan& plan) { plan.block_ids[0] = -1; }), HasSubstr("block -1"));
}

}  // namespace
}  // namespace hadal
