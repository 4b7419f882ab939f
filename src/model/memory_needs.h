// How much RAM a model takes beside its weights, known before anything is loaded.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "model/config.h"
#include "model/rank_slice.h"

namespace hadal {

// Bytes that one cached token needs over all layers.
int64_t kv_bytes_per_token(const ModelConfig& config, DType kv_dtype);

// The sizes that an activation workspace is made for.
struct WorkspaceLimits {
  int64_t max_tokens = 0;     // tokens per step
  int64_t max_positions = 0;  // longest sequence
  int num_threads = 1;
  DType kv_dtype = DType::kBF16;  // of the latent cache
  bool quantises_inputs = false;  // the numerics plan has layers
  RankSlice slice;                // of the model that config describes
  bool absorbed_only = false;     // no token of these steps is in the expanded form
};

// Bytes of activations and kernel scratch that allocate_kv() reserves beside the cache. config: of the whole model.
uint64_t workspace_bytes(const ModelConfig& config, const KernelTable& kernels, const WorkspaceLimits& limits);

}  // namespace hadal
