// The kernel calls that a model of a given config makes, on made-up numbers: what `bench kernels` and `bench tune`
// time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "model/config.h"

namespace hadal {

enum class KernelOp { kLinear, kGateUp, kDown, kAbsorbed, kExpanded };

struct KernelCase {
  KernelOp op = KernelOp::kLinear;
  std::string name;            // "q_b", "expert gate+up", "absorbed attention"
  DType dtype = DType::kBF16;  // of the matrices
  int64_t rows = 0, cols = 0;  // matrices; attention: heads and kv_lora_rank
  int64_t tokens = 0;          // per matrix; attention: positions (absorbed), tokens (expanded)
};

// The distinct matrix shapes of a model, tokens not set.
std::vector<KernelCase> matrix_cases(const ModelConfig& config);

// Runs cases on one pool. Matrices are many views into one memory larger than any cache, each with its own bytes, so
// that every call streams its weights from DRAM. Work is handed out as the model does it, in ranges of panels.
class KernelRunner {
 public:
  // memory_bytes: several times the last-level caches, so that matrices come from DRAM. Errors: kResourceExhausted.
  static Expected<KernelRunner> create(const ModelConfig& config, const KernelTable& kernels, uint64_t memory_bytes);

  // What a case reads and multiplies in one run.
  struct Work {
    double bytes = 0, flops = 0;
    int64_t num_copies = 0;  // matrices or sequences
  };
  // Runs the case once on the pool; the outputs stay in output(). Requires tokens > 0.
  Work run(const KernelCase& what, ThreadPool& pool);

  // What the last run wrote, for comparing bits.
  const std::vector<std::byte>& output() const { return output_; }

 private:
  KernelRunner(const ModelConfig& config, const KernelTable& kernels, AlignedBuffer memory);

  Work run_matrices(const KernelCase& what, ThreadPool& pool);
  Work run_absorbed(const KernelCase& what, ThreadPool& pool);
  Work run_expanded(const KernelCase& what, ThreadPool& pool);
  PackedMatrix matrix(DType dtype, int64_t rows, int64_t cols, int64_t idx) const;
  void run_panels(const KernelCase& what, int64_t copy, int64_t panel_begin, int64_t panel_end, int worker_idx);
  PagedKvView cache_view();  // sets block_table_
  void use_inputs(int64_t elements);
  // Sets scratch_of() up for a case.
  void make_scratch(int64_t bytes_each, const ThreadPool& pool);
  std::byte* scratch_of(int worker_idx);
  int64_t act_bytes() const { return static_cast<int64_t>(dtype_size_bytes(kernels_->act_dtype)); }

  ModelConfig config_;
  const KernelTable* kernels_;
  AlignedBuffer memory_;           // weights and cache rows: numbers near 1 in every dtype
  std::vector<float> scales_;      // all matrices share them
  std::vector<std::byte> inputs_;  // activations
  std::vector<std::byte> output_, scratch_;
  int64_t scratch_bytes_ = 0;  // of each worker
  std::vector<int32_t> block_table_;
};

}  // namespace hadal
