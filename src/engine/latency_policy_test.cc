#include "engine/latency_policy.h"

#include <gtest/gtest.h>

#include <vector>

namespace hadal {
namespace {

RecentMean steady(double value) {
  RecentMean mean;
  for (int i = 0; i < 100; ++i) mean.add(value);
  return mean;
}

LatencyEstimates estimates_of(double projections, double mlp) {
  LatencyEstimates estimates;
  estimates.seconds_per_work[static_cast<size_t>(PieceKind::kProjections)].add(projections);
  estimates.seconds_per_work[static_cast<size_t>(PieceKind::kMlp)].add(mlp);
  return estimates;
}

TEST(RecentMean, FollowsSamplesAndTheirSpread) {
  RecentMean mean;
  EXPECT_TRUE(mean.empty());
  mean.add(3);
  EXPECT_EQ(mean.mean(), 3);
  EXPECT_EQ(mean.high(), 3);
  for (int i = 0; i < 200; ++i) mean.add(i % 2 == 0 ? 1.0 : 2.0);
  EXPECT_NEAR(mean.mean(), 1.5, 0.1);
  // Samples lie 0.5 from their mean, so twice the deviation above it lies 1.
  EXPECT_NEAR(mean.high(), 2.5, 0.15);
  EXPECT_NEAR(steady(7).high(), 7, 1e-9);
}

TEST(SliceBudget, IsWhatTheTargetLeavesAndNeverNothing) {
  EXPECT_NEAR(slice_budget_s(0.1, steady(0.03)), 0.06, 1e-9);
  EXPECT_NEAR(slice_budget_s(0.1, steady(0.085)), 0.01, 1e-9);
  EXPECT_NEAR(slice_budget_s(0.1, steady(5)), 0.01, 1e-9);
}

TEST(PiecesWithin, FillsTheBudget) {
  const LatencyEstimates estimates = estimates_of(1, 10);
  const std::vector<StepPiece> pieces = {{PieceKind::kProjections, 2},
                                         {PieceKind::kMlp, 1},
                                         {PieceKind::kProjections, 2},
                                         {PieceKind::kMlp, 1},
                                         {PieceKind::kHead, 1}};
  const auto within = [&](double budget_s, int64_t begin) {
    return pieces_within(budget_s, estimates, begin, 5, [&](int64_t idx) { return pieces.at(idx); });
  };
  EXPECT_EQ(within(0.5, 0), 1);  // always one
  EXPECT_EQ(within(2, 0), 1);
  EXPECT_EQ(within(11.9, 0), 1);
  EXPECT_EQ(within(12, 0), 2);
  EXPECT_EQ(within(14, 0), 3);
  EXPECT_EQ(within(12, 1), 2);
  EXPECT_EQ(within(1e9, 0), 4);  // the head was never measured
  EXPECT_EQ(within(1e9, 4), 1);
}

TEST(NextChunkSize, FollowsTheLongestPiece) {
  const ChunkSize size{.tokens = 256};
  EXPECT_EQ(next_chunk_size(size, 0.5, 1, 2048).tokens, 512);
  EXPECT_EQ(next_chunk_size(size, 0.5, 1, 300).tokens, 300);
  EXPECT_EQ(next_chunk_size(size, 0.6, 1, 2048).tokens, 256);
  EXPECT_EQ(next_chunk_size(size, 1.2, 1, 2048).tokens, 192);  // 213 in steps of 32
  EXPECT_EQ(next_chunk_size(size, 50, 1, 2048).tokens, 128);   // at most halved
  EXPECT_EQ(next_chunk_size({.tokens = 32}, 50, 1, 2048).tokens, 32);
}

// Pieces whose length is mostly the reading of weights: fewer tokens only make the prompt slower.
TEST(NextChunkSize, TakesBackWhatDoesNotHelp) {
  ChunkSize size{.tokens = 256};
  size = next_chunk_size(size, 3.0, 1, 2048);
  EXPECT_EQ(size.tokens, 128);
  size = next_chunk_size(size, 2.9, 1, 2048);
  EXPECT_EQ(size.tokens, 256);
  for (int i = 0; i < 5; ++i) size = next_chunk_size(size, 3.0, 1, 2048);
  EXPECT_EQ(size.tokens, 256);
  // It goes back to what it was, no further.
  EXPECT_EQ(next_chunk_size(next_chunk_size({.tokens = 256}, 1.2, 1, 2048), 1.1, 1, 2048).tokens, 256);
  // Once pieces fit (the decodes became fewer, say) smaller ones may be tried again.
  size = next_chunk_size(size, 3.0, 4, 2048);
  size = next_chunk_size(size, 9.0, 4, 2048);
  EXPECT_EQ(size.tokens, 128);
}

// As a chunk's longest piece is proportional to its tokens, the size settles where the piece fits.
TEST(NextChunkSize, Settles) {
  ChunkSize size{.tokens = 256};
  for (int i = 0; i < 20; ++i) size = next_chunk_size(size, 0.01 * static_cast<double>(size.tokens), 1, 2048);
  EXPECT_LE(size.tokens, 100);
  EXPECT_GE(size.tokens, 50);
}

}  // namespace
}  // namespace hadal
