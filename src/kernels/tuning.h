// Knobs of the CPU kernels that depend on the machine's memory system. They change speed, never bits.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace hadal {

struct KernelTuning {
  int64_t max_group_tokens =
      0;  // tokens that one pass over a panel serves: up to 96; 0, or more than the table can: its own
  int64_t prefetch_bytes = 4096;  // how far ahead of a weight stream to prefetch: 0 .. 65536
};

// Process-wide, like the choice of an instruction set. Set it before a model runs: kernels read it on every call.
// Errors: kInvalidArgument, naming the field.
Status set_kernel_tuning(const KernelTuning& tuning);
const KernelTuning& kernel_tuning();

}  // namespace hadal
