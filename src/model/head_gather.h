// The ranks' shares of the logits on their way to rank 0: rows whole, or digests where less is wanted. Internal to
// model/.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/logit_digest.h"
#include "model/step_context.h"

namespace hadal {

class HeadGather {
 public:
  // Both outlive it. isa: of the kernels, and so of the sampler's RowMath.
  HeadGather(const ModelConfig& whole_config, const RankLayout& layout, Isa isa, int num_threads);

  // Before the rows of a step. Allocates when it has more rows than any before.
  void begin(int64_t num_rows);
  // Completes rows of logits f32 [.., vocab_size] on rank 0, which has its own share in them already; the others have
  // theirs in ws.head_logits [rows.size(), share]. wants: of all rows of the step, or empty. rows: at most
  // kHeadBatchRows. Moves a row's other shares, or digest_bytes() of each and 8 bytes to every rank. Errors: the
  // communicator's; kCorrupt.
  Status gather(const StepContext& step, const IndexRange& rows, std::span<const LogitWant> wants, float* logits);
  // Of a row that was gathered since begin().
  PartialLogits partial(int64_t row) const;

 private:
  // Rows of a batch, as bits.
  using RowBits = uint64_t;
  static_assert(kHeadBatchRows <= 64);
  struct Batch {
    IndexRange rows;
    std::span<const LogitWant> wants;
    float* logits;
  };

  IndexRange share_of(int rank) const { return vocab_share(config_, layout_.slice.world_size, rank); }
  RowBits rows_for_digests(const Batch& batch) const;
  void write_digests(const StepContext& step, const Batch& batch, RowBits rows, const float* shares, int64_t stride);
  Status read_digests(const Batch& batch, RowBits rows, int rank);
  // Returns those rows that are needed whole after all.
  Expected<RowBits> exchange_digests(const StepContext& step, const Batch& batch, RowBits rows);
  Status exchange_rows(const StepContext& step, const Batch& batch, RowBits rows);

  const ModelConfig& config_;  // of the whole model
  const RankLayout& layout_;
  const Isa isa_;
  std::vector<DigestWriter> writers_;  // of each thread
  std::vector<std::byte> buffer_;      // digests of a batch
  std::vector<RowDigest> digests_;     // rank 0: of every row of a step
};

}  // namespace hadal
