// Fills the weight store from a checkpoint: shards are read and packed into panels side by side.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "model/node_shares.h"
#include "model/weights.h"

namespace hadal {

// Called on the loading thread, now and then, with bytes of the checkpoint read so far and to be read.
using LoadProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

// Bytes of RAM the weights (of a rank) will take with kernels of this act dtype. Requires a checkpoint that matches the
// plan.
uint64_t weight_memory_bytes(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                             const Checkpoint& checkpoint, DType act_dtype, const NumericsPlan& numerics = {},
                             const RankSlice& slice = {});

// Requires a checkpoint without problems (check_checkpoint). MTP layers are not read. Starts its own threads, at least
// 16, since they wait for the disk half of the time, and puts every panel on the NUMA node that will read it. Layers
// are complete in ascending order. Beside the weights it holds less than 1 GB. Errors: kResourceExhausted before
// reading anything, kIo, kCorrupt (a shard shrank meanwhile). `numerics`: how matrices are held. Where it has one
// weight scale for a whole module, the shards are read twice. slice: only the rank's bytes are read; of a matrix that
// is cut by columns, all bytes where the gaps are smaller than a page.
Expected<ModelWeights> load_weights(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                                    const Checkpoint& checkpoint, DType act_dtype, const NodeShares& shares,
                                    const LoadProgress& progress = {}, NumericsPlan numerics = {},
                                    const RankSlice& slice = {});

}  // namespace hadal
