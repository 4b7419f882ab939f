// Fills the weight store from a checkpoint: bounded reads of the shards, packed into panels by all workers.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "model/weights.h"

namespace hadal {

// Called on the loading thread, now and then, with bytes of the checkpoint read so far and to be read.
using LoadProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

// Bytes of RAM the weights will take with kernels of this act dtype. Requires a checkpoint that matches the plan.
uint64_t weight_memory_bytes(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                             const Checkpoint& checkpoint, DType act_dtype);

// Requires a checkpoint without problems (check_checkpoint). MTP layers are not read. Beside the weights it holds a few
// MiB per worker. Errors: kResourceExhausted before reading anything, kIo, kCorrupt (a shard shrank meanwhile).
Expected<ModelWeights> load_weights(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                                    const Checkpoint& checkpoint, DType act_dtype, ThreadPool& pool,
                                    const LoadProgress& progress = {});

}  // namespace hadal
