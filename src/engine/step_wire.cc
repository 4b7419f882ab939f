#include "engine/step_wire.h"

#include <bit>
#include <cstring>

#include "base/check.h"

namespace hadal {
namespace {

static_assert(std::endian::native == std::endian::little, "the wire format is the memory's");

constexpr uint32_t kMagic = 0x32505448;  // "HTP2"
constexpr auto kFirstOp = static_cast<uint32_t>(StepOp::kPing), kLastOp = static_cast<uint32_t>(StepOp::kGatherRanges);
constexpr int64_t kMaxPosition = int64_t{1} << 40;

// The head on the wire. Sizes of the arrays that follow it.
struct WireHead {
  uint32_t num_bytes = 0;  // of the whole message
  uint32_t magic = kMagic;
  uint32_t op = 0;
  uint32_t generation = 0;
  uint64_t number = 0;
  int64_t arguments[3] = {};
  uint32_t num_sequences = 0;
  uint32_t num_tokens = 0;
  uint32_t num_blocks = 0;
  uint32_t num_logit_rows = 0;  // with what is wanted of each
};
static_assert(sizeof(WireHead) == kStepHeadBytes);

struct WireSequence {
  int64_t first_position = 0;
  int64_t expanded_end = 0;
  uint32_t num_tokens = 0;
  uint32_t num_blocks = 0;
};
static_assert(sizeof(WireSequence) == 24);

static_assert(sizeof(LogitWant) == 24);

bool is_known(uint32_t op) { return op >= kFirstOp && op <= kLastOp; }
bool has_step(uint32_t op) {
  return op == static_cast<uint32_t>(StepOp::kForward) || op == static_cast<uint32_t>(StepOp::kOpenStep);
}

uint64_t message_bytes(const WireHead& head) {
  return sizeof(WireHead) + uint64_t{head.num_sequences} * sizeof(WireSequence) +
         (uint64_t{head.num_tokens} + head.num_blocks + head.num_logit_rows) * sizeof(int32_t) +
         uint64_t{head.num_logit_rows} * sizeof(LogitWant);
}

class Writer {
 public:
  explicit Writer(std::byte* to) : to_(to) {}
  void put(const void* data, size_t num_bytes) {
    if (num_bytes > 0) std::memcpy(to_, data, num_bytes);
    to_ += num_bytes;
  }
  void put(std::span<const int32_t> ids) { put(ids.data(), ids.size_bytes()); }

 private:
  std::byte* to_;
};

class Reader {
 public:
  explicit Reader(const std::byte* from) : from_(from) {}
  void take(void* data, size_t num_bytes) {
    if (num_bytes > 0) std::memcpy(data, from_, num_bytes);
    from_ += num_bytes;
  }
  void take(std::vector<int32_t>& ids, size_t count) {
    ids.resize(count);
    take(ids.data(), count * sizeof(int32_t));
  }

 private:
  const std::byte* from_;
};

Expected<WireHead> read_head(std::span<const std::byte> bytes) {
  WireHead head;
  std::memcpy(&head, bytes.data(), sizeof head);
  if (head.magic != kMagic || !is_known(head.op)) {
    return make_error(ErrorCode::kCorrupt,
                      "a message of operation {} and mark {:#x}, known are {} to {} and {:#x}: do the ranks run the "
                      "same version?",
                      head.op, head.magic, kFirstOp, kLastOp, kMagic);
  }
  const uint64_t num_bytes = message_bytes(head);
  if (head.num_bytes != num_bytes || num_bytes > kMaxStepBytes) {
    return make_error(ErrorCode::kCorrupt, "a message says {} bytes, its parts have {}, at most {} are allowed",
                      head.num_bytes, num_bytes, kMaxStepBytes);
  }
  const bool is_empty =
      head.num_sequences == 0 && head.num_tokens == 0 && head.num_logit_rows == 0 && head.num_blocks == 0;
  if (has_step(head.op) ? head.num_sequences == 0 : !is_empty) {
    return make_error(ErrorCode::kCorrupt, "operation {} with {} sequences and {} tokens",
                      step_op_name(static_cast<StepOp>(head.op)), head.num_sequences, head.num_tokens);
  }
  return head;
}

Status read_sequences(Reader& reader, const WireHead& head, StepPlan& plan) {
  plan.sequences.resize(head.num_sequences);
  int64_t token_begin = 0, block_begin = 0;
  for (PlannedSequence& sequence : plan.sequences) {
    WireSequence wire;
    reader.take(&wire, sizeof wire);
    if (wire.num_tokens == 0 || wire.num_blocks == 0 || wire.first_position < 0 || wire.first_position > kMaxPosition ||
        wire.expanded_end < 0 || wire.expanded_end > kMaxPosition) {
      return make_error(ErrorCode::kCorrupt, "a sequence of {} tokens at {} in {} blocks, expanded to {}",
                        wire.num_tokens, wire.first_position, wire.num_blocks, wire.expanded_end);
    }
    sequence = {.token_begin = token_begin,
                .num_tokens = wire.num_tokens,
                .first_position = wire.first_position,
                .expanded_end = wire.expanded_end,
                .block_begin = block_begin,
                .num_blocks = wire.num_blocks};
    token_begin += wire.num_tokens;
    block_begin += wire.num_blocks;
  }
  if (token_begin != head.num_tokens || block_begin != head.num_blocks) {
    return make_error(ErrorCode::kCorrupt, "sequences of {} tokens and {} blocks in a step of {} and {}", token_begin,
                      block_begin, head.num_tokens, head.num_blocks);
  }
  return {};
}

}  // namespace

const char* step_op_name(StepOp op) {
  switch (op) {
    case StepOp::kPing:
      return "ping";
    case StepOp::kForward:
      return "step";
    case StepOp::kOpenStep:
      return "opening a step";
    case StepOp::kRunPieces:
      return "a slice of a step";
    case StepOp::kDropStep:
      return "dropping a step";
    case StepOp::kAllocateKv:
      return "allocating the KV cache";
    case StepOp::kPreparePieces:
      return "preparing slices";
    case StepOp::kFillKv:
      return "filling the KV cache";
    case StepOp::kStop:
      return "stop";
    case StepOp::kGatherRanges:
      return "gathering ranges";
  }
  return "unknown operation";
}

void encode_step(const StepHead& head, const StepInput* input, std::vector<std::byte>& bytes) {
  WireHead wire{.op = static_cast<uint32_t>(head.op), .generation = head.generation, .number = head.number};
  std::memcpy(wire.arguments, head.arguments, sizeof wire.arguments);
  uint64_t num_blocks = 0;
  if (input != nullptr) {
    for (const SequenceSpan& sequence : input->sequences) num_blocks += sequence.block_table.size();
    wire.num_sequences = static_cast<uint32_t>(input->sequences.size());
    wire.num_tokens = static_cast<uint32_t>(input->token_ids.size());
    wire.num_blocks = static_cast<uint32_t>(num_blocks);
    wire.num_logit_rows = static_cast<uint32_t>(input->logit_rows.size());
  }
  const uint64_t num_bytes = message_bytes(wire);
  HADAL_CHECK(num_bytes <= kMaxStepBytes, "a step of {} bytes", num_bytes);
  wire.num_bytes = static_cast<uint32_t>(num_bytes);
  bytes.resize(num_bytes);
  Writer writer(bytes.data());
  writer.put(&wire, sizeof wire);
  if (input == nullptr) return;
  for (const SequenceSpan& sequence : input->sequences) {
    const WireSequence out{.first_position = sequence.first_position,
                           .expanded_end = sequence.expanded_end,
                           .num_tokens = static_cast<uint32_t>(sequence.num_tokens),
                           .num_blocks = static_cast<uint32_t>(sequence.block_table.size())};
    writer.put(&out, sizeof out);
  }
  writer.put(input->token_ids);
  for (const SequenceSpan& sequence : input->sequences) writer.put(sequence.block_table);
  writer.put(input->logit_rows);
  if (input->logit_wants.empty()) {
    std::memset(bytes.data() + num_bytes - input->logit_rows.size() * sizeof(LogitWant), 0,
                input->logit_rows.size() * sizeof(LogitWant));
  } else {
    HADAL_CHECK(input->logit_wants.size() == input->logit_rows.size());
    writer.put(input->logit_wants.data(), input->logit_wants.size_bytes());
  }
}

Expected<size_t> step_message_bytes(std::span<const std::byte> head) {
  HADAL_CHECK(head.size() >= kStepHeadBytes);
  HADAL_ASSIGN_OR_RETURN(const WireHead wire, read_head(head));
  return size_t{wire.num_bytes};
}

Status decode_step(std::span<const std::byte> bytes, StepMessage& message) {
  if (bytes.size() < kStepHeadBytes) {
    return make_error(ErrorCode::kCorrupt, "a message of {} bytes, its head alone has {}", bytes.size(),
                      kStepHeadBytes);
  }
  HADAL_ASSIGN_OR_RETURN(const WireHead wire, read_head(bytes));
  if (bytes.size() != wire.num_bytes) {
    return make_error(ErrorCode::kCorrupt, "{} bytes of a message of {}", bytes.size(), wire.num_bytes);
  }
  message.head = {.op = static_cast<StepOp>(wire.op), .generation = wire.generation, .number = wire.number};
  std::memcpy(message.head.arguments, wire.arguments, sizeof wire.arguments);
  StepPlan& plan = message.plan;
  plan.clear();
  Reader reader(bytes.data() + sizeof wire);
  HADAL_RETURN_IF_ERROR(read_sequences(reader, wire, plan));
  reader.take(plan.token_ids, wire.num_tokens);
  reader.take(plan.block_ids, wire.num_blocks);
  reader.take(plan.logit_rows, wire.num_logit_rows);
  plan.logit_wants.resize(wire.num_logit_rows);
  reader.take(plan.logit_wants.data(), plan.logit_wants.size() * sizeof(LogitWant));
  int64_t last = -1;
  for (const int32_t row : plan.logit_rows) {
    if (row <= last || row >= int64_t{wire.num_tokens}) {
      return make_error(ErrorCode::kCorrupt, "logits of row {} after row {} in a step of {} tokens", row, last,
                        wire.num_tokens);
    }
    last = row;
  }
  return {};
}

Status check_step(const StepPlan& plan, const StepLimits& limits) {
  const int64_t num_tokens = static_cast<int64_t>(plan.token_ids.size());
  if (limits.block_size <= 0 || num_tokens > limits.max_tokens) {
    return make_error(ErrorCode::kCorrupt, "a step of {} tokens, at most {} are allowed", num_tokens,
                      limits.block_size > 0 ? limits.max_tokens : 0);
  }
  for (const int32_t id : plan.token_ids) {
    if (id < 0 || id >= limits.vocab_size) {
      return make_error(ErrorCode::kCorrupt, "token id {} is outside the vocabulary of {}", id, limits.vocab_size);
    }
  }
  for (const int32_t block : plan.block_ids) {
    if (block < 0 || block >= limits.num_blocks) {
      return make_error(ErrorCode::kCorrupt, "block {} of {}", block, limits.num_blocks);
    }
  }
  for (const PlannedSequence& sequence : plan.sequences) {
    const int64_t end = sequence.first_position + sequence.num_tokens;
    const int64_t needed = (end + limits.block_size - 1) / limits.block_size;
    if (sequence.num_blocks != needed) {
      return make_error(ErrorCode::kCorrupt, "a sequence of {} positions with {} blocks of {}", end,
                        sequence.num_blocks, limits.block_size);
    }
  }
  return {};
}

}  // namespace hadal
