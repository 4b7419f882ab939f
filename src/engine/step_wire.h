// What rank 0 tells the other ranks, as bytes: a step whole, or what to do with the open one, and what comes before
// steps. Foreign bytes: every length is bounded before it is believed, and a step that decodes keeps the contract of
// StepInput.
//
// Wire format, version 2, little-endian: a head of kStepHeadBytes (see step_wire.cc), then per sequence its counts,
// then token ids, block ids and logit rows as i32, then a LogitWant for each of these rows. Numbers never change their
// meaning; a reader refuses unknown ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/step_plan.h"

namespace hadal {

enum class StepOp : uint32_t {
  kPing = 1,
  kForward = 2,    // a step
  kOpenStep = 3,   // a step
  kRunPieces = 4,  // argument 0: count
  kDropStep = 5,
  kAllocateKv = 6,     // arguments: num_blocks, block_size, max_tokens_per_step
  kPreparePieces = 7,  // argument 0: max_tokens_between
  kFillKv = 8,         // argument 0: seed
  kStop = 9,
  kGatherRanges = 10,
};
const char* step_op_name(StepOp op);

struct StepHead {
  StepOp op = StepOp::kPing;
  uint32_t generation = 0;  // of the group
  uint64_t number = 0;      // of the message in its generation, from 1
  int64_t arguments[3] = {};
};

struct StepMessage {
  StepHead head;
  StepPlan plan;  // of kForward and kOpenStep; else empty
};

inline constexpr size_t kStepHeadBytes = 64;
inline constexpr size_t kMaxStepBytes = size_t{256} << 20;

// Into `bytes`, whose storage is reused. `input`: null for operations without a step. Requires that it fits
// kMaxStepBytes.
void encode_step(const StepHead& head, const StepInput* input, std::vector<std::byte>& bytes);

// Of the whole message that begins with these bytes. Requires kStepHeadBytes of them. Errors: kCorrupt.
Expected<size_t> step_message_bytes(std::span<const std::byte> head);

// Into `message`, whose storage is reused. Errors: kCorrupt naming what does not fit; `message` is then undefined.
Status decode_step(std::span<const std::byte> bytes, StepMessage& message);

// What a rank's cache and vocabulary allow; 0: not known yet, so no step may come.
struct StepLimits {
  int64_t vocab_size = 0;
  int64_t num_blocks = 0;
  int64_t block_size = 0;
  int64_t max_tokens = 0;  // in a step
};
// Whether a decoded step can be run: ids and tables within the limits. Errors: kCorrupt.
Status check_step(const StepPlan& plan, const StepLimits& limits);

}  // namespace hadal
