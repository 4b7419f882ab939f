// The forward pass of a DeepseekV3ForCausalLM model on one machine's CPUs: MLA (expanded and absorbed), dense and MoE
// layers, paged latent cache. Mathematics: DeepSeek-V3 report sections 2.1 and 2.2 (without MTP).
// Residual stream F32; inputs of linears in the kernel table's act dtype.
#pragma once

#include <memory>
#include <thread>

#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "model/forward_model.h"
#include "model/forward_observer.h"
#include "model/memory_needs.h"
#include "model/rope.h"
#include "model/step_context.h"
#include "model/weights.h"

namespace hadal {

class DeepseekV3Model final : public ForwardModel {
 public:
  // `weights` as load_weights() fills them for kernels.act_dtype. kv_dtype: of the latent cache, kernels.act_dtype or
  // kF8E4M3.
  DeepseekV3Model(ModelConfig config, ModelWeights weights, const KernelTable& kernels, DType kv_dtype,
                  std::unique_ptr<ThreadPool> pool, NodeShares shares, ForwardObserver observer,
                  RangeObserver* ranges = nullptr);

  int64_t vocab_size() const override { return config_.vocab_size; }
  int64_t max_position_embeddings() const override { return config_.max_position_embeddings; }
  int64_t kv_bytes_per_token() const override { return hadal::kv_bytes_per_token(config_, kv_dtype_); }
  Status allocate_kv(int64_t num_blocks, int64_t block_size, int64_t max_tokens_per_step) override;
  // Allocates nothing. Errors also: kInvalidArgument for input that contradicts itself or the allocated sizes.
  Status forward(const StepInput& input, float* logits) override;
  const StepProfile& profile() const override { return runner_.profile(); }
  void fill_kv(uint64_t seed) override;

 private:
  Status check_input(const StepInput& input) const;
  void plan_attention(const StepInput& input);
  void embed(const StepInput& input);
  void compute_logits(const StepContext& step, std::span<const int32_t> rows, float* logits);
  void observe_residual(const StepContext& step, int64_t layer) const;

  const ModelConfig config_;
  const ModelWeights weights_;
  const KernelTable& kernels_;
  const DType kv_dtype_;
  const std::unique_ptr<ThreadPool> pool_;
  StepRunner runner_;
  const ForwardObserver observer_;
  RangeObserver* const ranges_;  // null unless calibrating
  const RopeParameters rope_;

  // Set by allocate_kv().
  int64_t num_blocks_ = 0, block_size_ = 0, max_tokens_ = 0;
  AlignedBuffer kv_memory_;
  std::vector<PagedKvView> kv_layers_;
  Workspace ws_;
  AttentionPlan plan_;
  std::thread::id worker_0_;  // the thread that last called forward(), kept on its NUMA node
};

}  // namespace hadal
