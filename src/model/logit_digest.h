// A rank's share of a row of logits in a few hundred bytes: the maximum and the sum of exponentials of each block, and
// the best logits. From the digests of all shares rank 0 has what a LogitWant asks for, or knows that it has not.
// Everything is equal to the last bit to what the whole row gives to who uses the same RowMath. Internal to model/, but
// for the sizes, which plans of a network need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/logit_math.h"
#include "model/forward_model.h"
#include "model/rank_layout.h"

namespace hadal {

inline constexpr int64_t kDigestLogits = 64;  // the best of a share

// Whether shares of the vocabulary end where blocks end, for ids below num_valid and from it on.
bool shares_are_blocks(const ModelConfig& config, int world_size, int64_t num_valid);

int64_t digest_bytes(const IndexRange& share);  // enough for any num_valid

// Writes digests. One for each thread.
class DigestWriter {
 public:
  // isa: of the sampler's RowMath (EngineOptions), as in all that follows.
  explicit DigestWriter(Isa isa) : isa_(isa), valid_(row_math_for(isa)), other_(row_math_for(isa)) {}
  // logits: f32 [share.size()]. out: digest_bytes(share).
  void write(std::span<const float> logits, const IndexRange& share, const LogitWant& want, std::byte* out);

 private:
  Isa isa_;
  LogitBlocks valid_, other_;
  std::vector<Candidate> best_;
};

// One row on rank 0, as it comes together. Allocates nothing once warm.
class RowDigest {
 public:
  explicit RowDigest(Isa isa) : isa_(isa), blocks_(row_math_for(isa)) {}
  void begin(int64_t vocab_size, const LogitWant& want);
  // A digest of `share`, written by DigestWriter. row: f32 [vocab_size]; unless rank 0 computed the share itself
  // (is_here), the digest's logits are put into it. False: the bytes contradict themselves.
  bool add(const IndexRange& share, std::span<const std::byte> digest, bool is_here, float* row);
  // After all shares: whether the row holds what is wanted. False: the whole row is needed.
  bool finish(std::span<const float> row);
  void forget() { is_partial_ = false; }  // the whole row is there

  PartialLogits view() const;

 private:
  void put(const Candidate& candidate, float* row);
  bool is_known();

  Isa isa_;
  LogitWant want_;
  bool is_partial_ = false;
  bool is_sound_ = false;  // every share was finite, and summed by the same instructions
  float floor_ = 0;        // logits above it are known
  std::vector<float> maxima_, sums_, known_, other_maxima_, other_sums_;
  LogitBlocks blocks_;
  std::vector<Candidate> best_;
  std::vector<float> scratch_;
};

}  // namespace hadal
