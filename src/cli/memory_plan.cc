#include "cli/memory_plan.h"

#include <algorithm>
#include <array>

namespace hadal {

std::string format_bytes(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1, kUnits[unit]);
}

Expected<MemoryPlan> plan_memory(const MemoryRequest& request) {
  const uint64_t block_bytes = static_cast<uint64_t>(request.kv_bytes_per_token * request.block_size);
  const int64_t blocks_per_sequence = (request.max_model_len + request.block_size - 1) / request.block_size;
  const uint64_t fixed_bytes = request.weight_bytes + request.workspace_bytes;
  const bool limited = request.limit_bytes > 0;
  const uint64_t kv_limit = limited ? request.limit_bytes - std::min(request.limit_bytes, fixed_bytes) : UINT64_MAX;
  const int64_t blocks_that_fit = static_cast<int64_t>(std::min<uint64_t>(kv_limit / block_bytes, uint64_t{1} << 40));

  MemoryPlan plan;
  plan.num_blocks = request.num_blocks > 0 ? request.num_blocks
                                           : std::min(blocks_that_fit, blocks_per_sequence * request.max_num_seqs);
  plan.kv_bytes = static_cast<uint64_t>(plan.num_blocks) * block_bytes;
  plan.total_bytes = fixed_bytes + plan.kv_bytes;
  plan.max_concurrency = static_cast<double>(plan.num_blocks) / static_cast<double>(blocks_per_sequence);

  const auto need = [&](int64_t num_blocks) {
    return fmt::format("weights {} + workspace {} + KV cache {} ({} blocks of {} tokens, {} per token)",
                       format_bytes(request.weight_bytes), format_bytes(request.workspace_bytes),
                       format_bytes(static_cast<uint64_t>(num_blocks) * block_bytes), num_blocks, request.block_size,
                       format_bytes(static_cast<uint64_t>(request.kv_bytes_per_token)));
  };
  if (limited && fixed_bytes > request.limit_bytes) {
    return make_error(ErrorCode::kResourceExhausted,
                      "does not fit: {} = {}, {} may be used. Use a machine with more "
                      "memory, or raise --memory-utilization",
                      need(0), format_bytes(fixed_bytes), format_bytes(request.limit_bytes));
  }
  if (plan.num_blocks > blocks_that_fit || plan.num_blocks < blocks_per_sequence) {
    const int64_t wanted = std::max(plan.num_blocks, blocks_per_sequence);
    return make_error(ErrorCode::kResourceExhausted,
                      "one request of --max-model-len {} needs {} blocks: {} = {}, {} may be used and {} blocks {}. "
                      "Give --max-model-len {} or less{}",
                      request.max_model_len, blocks_per_sequence, need(wanted),
                      format_bytes(fixed_bytes + static_cast<uint64_t>(wanted) * block_bytes),
                      limited ? format_bytes(request.limit_bytes) : "any amount",
                      request.num_blocks > 0 ? request.num_blocks : blocks_that_fit,
                      request.num_blocks > 0 ? "were asked for" : "fit",
                      std::min(plan.num_blocks, blocks_that_fit) * request.block_size,
                      request.num_blocks > 0 ? ", or change --num-gpu-blocks-override" : "");
  }
  return plan;
}

std::string describe_memory(const MemoryRequest& request, const MemoryPlan& plan) {
  return fmt::format("weights {} + KV cache {} ({} blocks of {} tokens) + workspace {} = {}{}",
                     format_bytes(request.weight_bytes), format_bytes(plan.kv_bytes), plan.num_blocks,
                     request.block_size, format_bytes(request.workspace_bytes), format_bytes(plan.total_bytes),
                     request.limit_bytes > 0 ? " of " + format_bytes(request.limit_bytes) + " usable" : "");
}

}  // namespace hadal
