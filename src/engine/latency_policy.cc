#include "engine/latency_policy.h"

#include <algorithm>
#include <cmath>

namespace hadal {
namespace {

constexpr double kAim = 0.9;         // of the target
constexpr double kLeastShare = 0.1;  // of the target
constexpr double kMeanGain = 0.125;  // RFC 6298's
constexpr double kDeviationGain = 0.25;
constexpr double kWorthwhile = 0.8;  // a smaller chunk must bring its longest piece down to this

}  // namespace

void RecentMean::add(double sample) {
  if (is_empty_) {
    is_empty_ = false;
    mean_ = sample;
    return;
  }
  const double error = sample - mean_;
  deviation_ += kDeviationGain * (std::abs(error) - deviation_);
  mean_ += kMeanGain * error;
}

double slice_budget_s(double target_s, const RecentMean& decode_s) {
  return std::max(kAim * target_s - decode_s.high(), kLeastShare * target_s);
}

int64_t pieces_within(double budget_s, const LatencyEstimates& estimates, int64_t begin, int64_t end,
                      const PieceAt& piece_at) {
  int64_t count = 0;
  for (double spent_s = 0; begin + count < end; ++count) {
    const StepPiece piece = piece_at(begin + count);
    if (estimates.rate_of(piece.kind).empty()) return std::max<int64_t>(count, 1);
    spent_s += estimates.seconds(piece);
    if (spent_s > budget_s) break;
  }
  return std::max<int64_t>(count, 1);
}

ChunkSize next_chunk_size(const ChunkSize& size, double largest_piece_s, double budget_s, int64_t most_tokens) {
  ChunkSize next = size;
  next.largest_piece_s = largest_piece_s;
  next.shrank_from = 0;
  if (largest_piece_s <= budget_s) {
    next.floor_tokens = ChunkSize::kLeastTokens;
    if (2 * largest_piece_s <= budget_s) next.tokens = std::min(2 * size.tokens, most_tokens);
    return next;
  }
  if (size.shrank_from > 0 && largest_piece_s > kWorthwhile * size.largest_piece_s) {
    next.floor_tokens = next.tokens = size.shrank_from;
    return next;
  }
  const auto fitting = static_cast<int64_t>(static_cast<double>(size.tokens) * budget_s / largest_piece_s);
  const int64_t rounded = fitting / ChunkSize::kLeastTokens * ChunkSize::kLeastTokens;
  next.tokens = std::min(size.tokens, std::max({rounded, size.tokens / 2, size.floor_tokens}));
  next.shrank_from = next.tokens < size.tokens ? size.tokens : 0;
  return next;
}

}  // namespace hadal
