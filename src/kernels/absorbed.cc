#include "kernels/kernels.h"

namespace hadal {

void attend_absorbed(const KernelTable& kernels, const AbsorbedAttentionArgs& args, std::byte* scratch) {
  const int64_t partial_bytes = kernels.absorbed_partial_bytes(args);
  std::byte* state = scratch;
  std::byte* partial = state + partial_bytes;
  std::byte* segment_scratch = partial + partial_bytes;
  kernels.attend_absorbed_segment(args, 0, state, segment_scratch);
  for (int64_t segment = 1; segment < num_attention_segments(args.num_positions); ++segment) {
    kernels.attend_absorbed_segment(args, segment, partial, segment_scratch);
    kernels.join_absorbed(args, state, partial);
  }
  kernels.finish_absorbed(args, state);
}

int64_t absorbed_scratch_bytes(const KernelTable& kernels, const AbsorbedAttentionArgs& args) {
  return 2 * kernels.absorbed_partial_bytes(args) + kernels.absorbed_segment_scratch_bytes(args);
}

}  // namespace hadal
