#include "kernels/tuning.h"

#include "kernels/cpu/primitives.h"

namespace hadal {
namespace {

constexpr int64_t kMaxPrefetchBytes = 65536;
KernelTuning g_tuning;

}  // namespace

Status set_kernel_tuning(const KernelTuning& tuning) {
  if (tuning.max_group_tokens < 0 || tuning.max_group_tokens > cpu::kMaxTokens) {
    return make_error(ErrorCode::kInvalidArgument, "max_group_tokens {}: expected 0 to {}", tuning.max_group_tokens,
                      cpu::kMaxTokens);
  }
  if (tuning.prefetch_bytes < 0 || tuning.prefetch_bytes > kMaxPrefetchBytes) {
    return make_error(ErrorCode::kInvalidArgument, "prefetch_bytes {}: expected 0 to {}", tuning.prefetch_bytes,
                      kMaxPrefetchBytes);
  }
  g_tuning = tuning;
  return {};
}

const KernelTuning& kernel_tuning() { return g_tuning; }

}  // namespace hadal
