// How a server divides memory between weights, KV cache and workspace, and whether it fits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace hadal {

struct MemoryRequest {
  uint64_t limit_bytes = 0;  // what the process may use, utilization applied; 0: unknown, everything fits
  uint64_t weight_bytes = 0;
  uint64_t workspace_bytes = 0;
  int64_t kv_bytes_per_token = 0;  // over all layers
  int64_t block_size = 0;          // tokens
  int64_t num_blocks = 0;          // 0: as many as are useful and fit
  int64_t max_model_len = 0;       // tokens
  int64_t max_num_seqs = 0;
};

struct MemoryPlan {
  int64_t num_blocks = 0;
  uint64_t kv_bytes = 0;
  uint64_t total_bytes = 0;
  double max_concurrency = 0;  // sequences of max_model_len tokens that the cache holds
};

// At most max_num_seqs sequences of full length are given blocks. Errors: kResourceExhausted with the arithmetic and
// what to change, when weights, workspace and one full-length sequence do not fit.
Expected<MemoryPlan> plan_memory(const MemoryRequest& request);

// "weights 11.0 MB + KV cache 838.9 MB (1280 blocks of 64 tokens) + workspace 12.1 MB = 862.0 MB of 20.4 GB"
std::string describe_memory(const MemoryRequest& request, const MemoryPlan& plan);

// "1.50 GB"; decimal units.
std::string format_bytes(uint64_t bytes);

}  // namespace hadal
