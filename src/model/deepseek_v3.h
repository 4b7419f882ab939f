// The forward pass of a DeepseekV3ForCausalLM model, or of one rank's part of it, on one machine's CPUs: MLA (expanded
// and absorbed), dense and MoE layers, paged latent cache. Mathematics: DeepSeek-V3 report sections 2.1 and 2.2
// (without MTP). Residual stream F32; inputs of linears in the kernel table's act dtype.
#pragma once

#include <memory>
#include <optional>
#include <thread>

#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "model/forward_model.h"
#include "model/forward_observer.h"
#include "model/head_gather.h"
#include "model/memory_needs.h"
#include "model/piece_map.h"
#include "model/rope.h"
#include "model/step_context.h"
#include "model/weights.h"

namespace hadal {

class DeepseekV3Model final : public ForwardModel {
 public:
  // `weights` as load_weights() fills them for kernels.act_dtype and `slice`. config: of the whole model. kv_dtype: of
  // the latent cache, kernels.act_dtype or kF8E4M3.
  DeepseekV3Model(ModelConfig config, ModelWeights weights, const KernelTable& kernels, DType kv_dtype,
                  std::unique_ptr<ThreadPool> pool, NodeShares shares, ForwardObserver observer,
                  RangeObserver* ranges = nullptr, const RankSlice& slice = {});

  int64_t vocab_size() const override { return config_.vocab_size; }
  int64_t max_position_embeddings() const override { return config_.max_position_embeddings; }
  int64_t kv_bytes_per_token() const override { return hadal::kv_bytes_per_token(config_, kv_dtype_); }
  Status allocate_kv(int64_t num_blocks, int64_t block_size, int64_t max_tokens_per_step) override;
  // Allocates nothing. Errors also: kInvalidArgument for input that contradicts itself or the allocated sizes.
  Status forward(const StepInput& input, float* logits) override;
  Status prepare_pieces(int64_t max_tokens_between) override;
  Status open_step(const StepInput& input) override;
  int64_t num_pieces() const override { return open_ ? open_->map.num_pieces() : 0; }
  StepPiece piece(int64_t idx) const override { return open_->map.piece(idx); }
  Status run_pieces(int64_t count, float* logits) override;
  void drop_step() override { open_.reset(); }
  void set_communicator(Communicator* communicator) override;
  PartialLogits partial_logits(int64_t idx) const override { return head_.partial(idx); }
  const StepProfile& profile() const override { return runner_.profile(); }
  Status gather_ranges() override;
  void fill_kv(uint64_t seed) override;

 private:
  // Everything that a step in progress keeps.
  struct StepState {
    int64_t max_tokens = 0;
    Workspace ws;
    AttentionPlan plan;
  };
  struct OpenStep {
    StepInput input;
    PieceMap map;
    int64_t next_piece = 0;
    double wall_s = 0;
  };

  Expected<StepState> make_state(const WorkspaceLimits& limits) const;
  WorkspaceLimits limits_for(int64_t max_tokens) const;
  // Whether a step can run with the other ranks.
  Status check_ranks() const;
  Status check_input(const StepInput& input, int64_t max_tokens) const;
  // Checks, plans and embeds: what precedes the first layer.
  Status begin_step(const StepInput& input, StepState& state);
  StepContext context_of(StepState& state, const StepInput& input);
  void plan_attention(const StepInput& input, AttentionPlan& plan) const;
  void embed(const StepInput& input, StepState& state);
  Status run_layer(const StepContext& step, int64_t layer_idx);
  Expected<ExpandedUnits> agreed_units(const StepContext& step);
  Status run_open_pieces(int64_t count, float* logits);
  Status run_range(const StepContext& step, const PieceRange& range, float* logits);
  Status run_head(const StepContext& step, const StepInput& input, float* logits);
  void normalise_rows(const StepContext& step, std::span<const int32_t> rows);
  void compute_logits(const StepContext& step, const IndexRange& rows, float* logits, int64_t ldy);
  void observe_residual(const StepContext& step, int64_t layer) const;

  const ModelConfig whole_config_;
  const RankLayout layout_;
  const ModelConfig config_;  // of this rank
  const ModelWeights weights_;
  const KernelTable& kernels_;
  const DType kv_dtype_;
  const std::unique_ptr<ThreadPool> pool_;
  StepRunner runner_;
  HeadGather head_;
  const ForwardObserver observer_;
  RangeObserver* const ranges_;  // null unless calibrating
  const RopeParameters rope_;

  Communicator* communicator_ = nullptr;
  std::optional<bool> equal_workers_;  // whether all ranks cut a step alike; unknown until the first open_step()

  // Set by allocate_kv().
  int64_t num_blocks_ = 0, block_size_ = 0;
  AlignedBuffer kv_memory_;
  std::vector<PagedKvView> kv_layers_;
  StepState main_;     // of whole steps and of the open one
  StepState between_;  // of whole steps while one is open; set by prepare_pieces()
  std::optional<OpenStep> open_;
  std::thread::id worker_0_;  // the thread that last called forward(), kept on its NUMA node
};

}  // namespace hadal
