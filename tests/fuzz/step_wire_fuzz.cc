// Messages between ranks: whatever decodes keeps the contract of a step, and is encoded to the same bytes again.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "engine/step_wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  hadal::StepMessage message;
  if (size >= hadal::kStepHeadBytes) static_cast<void>(hadal::step_message_bytes(bytes));
  if (!hadal::decode_step(bytes, message)) return 0;
  const hadal::StepPlan& plan = message.plan;
  int64_t num_tokens = 0, num_blocks = 0;
  for (const hadal::PlannedSequence& sequence : plan.sequences) {
    if (sequence.token_begin != num_tokens || sequence.block_begin != num_blocks) std::abort();
    if (sequence.num_tokens < 1 || sequence.num_blocks < 1 || sequence.first_position < 0) std::abort();
    num_tokens += sequence.num_tokens;
    num_blocks += sequence.num_blocks;
  }
  if (num_tokens != static_cast<int64_t>(plan.token_ids.size())) std::abort();
  if (num_blocks != static_cast<int64_t>(plan.block_ids.size())) std::abort();
  static_cast<void>(hadal::check_step(plan, {.vocab_size = 256, .num_blocks = 64, .block_size = 4, .max_tokens = 64}));
  std::vector<hadal::SequenceSpan> spans;
  const hadal::StepInput input = hadal::make_step_input(plan, spans);
  std::vector<std::byte> again;
  hadal::encode_step(message.head, plan.sequences.empty() ? nullptr : &input, again);
  if (again.size() != size || std::memcmp(again.data(), data, size) != 0) std::abort();
  return 0;
}
