// How much of an open prefill step (forward_model.h) fits between two decode steps, so that running streams keep their
// pace (EngineOptions::max_itl_ms): small values and pure functions, no clock and no state of the engine.
//
// What a step without its slice takes, and what a unit of work takes by kind of piece, is measured as it goes and
// followed slowly; a slice is as many pieces as are expected to fit. The size of a prefill chunk follows from its
// largest piece: with more tokens weights are read and keys are rebuilt less often, but pieces get longer.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "model/forward_model.h"

namespace hadal {

// Mean and mean deviation of recent samples, the way TCP follows round-trip times.
class RecentMean {
 public:
  void add(double sample);
  bool empty() const { return is_empty_; }
  double mean() const { return mean_; }
  double high() const { return mean_ + 2 * deviation_; }  // seldom exceeded

 private:
  bool is_empty_ = true;
  double mean_ = 0, deviation_ = 0;
};

struct LatencyEstimates {
  RecentMean decode_s;  // a step without its slice
  std::array<RecentMean, kNumPieceKinds> seconds_per_work;

  const RecentMean& rate_of(PieceKind kind) const { return seconds_per_work[static_cast<size_t>(kind)]; }
  double seconds(const StepPiece& piece) const { return rate_of(piece.kind).mean() * piece.work; }
};

// Seconds that a slice may take: what the decode step leaves of nine tenths of the target (the rest is for what nobody
// foresees), and always a tenth of it, so that prompts advance where decoding alone is too slow for it.
double slice_budget_s(double target_s, const RecentMean& decode_s);

// How many of the pieces [begin, end) to run, at least one. A kind that was never measured ends the slice.
using PieceAt = std::function<StepPiece(int64_t idx)>;
int64_t pieces_within(double budget_s, const LatencyEstimates& estimates, int64_t begin, int64_t end,
                      const PieceAt& piece_at);

// Prefill tokens of the next open step.
struct ChunkSize {
  static constexpr int64_t kLeastTokens = 32;

  int64_t tokens = 256;
  int64_t floor_tokens = kLeastTokens;  // fewer did not make pieces shorter
  double largest_piece_s = 0;           // of the step before; 0: none yet
  int64_t shrank_from = 0;              // tokens of the step before where that was larger; 0: it was not
};

// After a step of size.tokens tokens whose longest piece took so long. Halves at most, doubles at most; a step that was
// smaller without being faster is taken back and not tried again while pieces are too long.
ChunkSize next_chunk_size(const ChunkSize& size, double largest_piece_s, double budget_s, int64_t most_tokens);

}  // namespace hadal
