// Proves a converted folder: reads input and output anew and compares every byte of every tensor with what the
// definitions make of the input, code by code.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "quant/convert_plan.h"

namespace hadal {

struct VerifyContext {
  const Checkpoint* checkpoint = nullptr;  // the input's
  const ConvertPlan* plan = nullptr;
  ThreadPool* pool = nullptr;
  std::filesystem::path input, output;
  std::function<void(uint64_t)> on_progress;  // bytes compared since the last call; on the calling thread
};

struct VerifyResult {
  uint64_t num_tensors = 0;
  uint64_t num_bytes = 0;
};

// Besides the bytes: names, dtypes, shapes and places of the tensors, "__metadata__", the sidecars (that they restore
// the input), and for a reversed folder that the sidecar's checksums hold. Errors: kCorrupt with the first difference:
// tensor, byte, found and expected.
Expected<VerifyResult> verify_conversion(const VerifyContext& context);

}  // namespace hadal
