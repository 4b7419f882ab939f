// Panels times large token groups on AVX2. A chunk of a panel's columns is staged as FP32 in L1 once for the group;
// tiles of 3 tokens x 32 rows then run over it, and each widens the activations of the next tile in the slots that its
// multiply-adds leave free. Bits as in fp32_dot.h: sums over k ascending, block by block.
//
// Internal linkage throughout: see primitives.h.
#pragma once

#include "kernels/cpu/avx2_f8.h"
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/primitives.h"

namespace hadal::cpu {
namespace {

constexpr int kUnits = kLanes / Avx2::kWidth;
constexpr int kTileTokens = 3;  // 12 sums, 3 activations and a weight are all 16 registers

// Columns of a panel, at most kBlockCols of them, in pieces that share one scale: at most two scale blocks meet.
struct Chunk {
  struct Piece {
    int64_t begin, end;  // in the chunk
    alignas(32) float multipliers[kLanes];
  };
  int num_pieces = 0;
  Piece pieces[2];
  alignas(64) float room[kBlockCols + 2][kLanes];  // pairs are staged whole: one row of room on either side

  float* weights() { return room[1]; }  // [column][32]
  const float* weights() const { return room[1]; }
};

struct F8Format {
  static constexpr bool kScaled = true;
  static constexpr int64_t kPairBytes = 2 * kLanes;

  // Codes / 2^8, except for NaN codes: those show in the multipliers.
  static void stage(const char* panel, int64_t k_begin, int64_t k_end, float scale, float* weights,
                    float* multipliers) {
    F8Seen seen;
    const char* at = panel + k_begin / 2 * kPairBytes;
    float* to = weights - k_begin % 2 * kLanes;
    const auto decode = [&](uint32_t counted) __attribute__((always_inline)) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at) + half);
        const __m256i even = F8Halves::even(codes), odd = F8Halves::odd(codes);
        float* first = to + half * 2 * Avx2::kWidth;
        Avx2::store(first, _mm256_cvtph_ps(_mm256_castsi256_si128(even)));
        Avx2::store(first + Avx2::kWidth, _mm256_cvtph_ps(_mm256_extracti128_si256(even, 1)));
        Avx2::store(first + kLanes, _mm256_cvtph_ps(_mm256_castsi256_si128(odd)));
        Avx2::store(first + kLanes + Avx2::kWidth, _mm256_cvtph_ps(_mm256_extracti128_si256(odd, 1)));
        seen.see(half, codes, counted);
      }
      at += kPairBytes;
      to += 2 * kLanes;
    };
    for_each_pair(k_begin, k_end, decode);
    for (int u = 0; u < kUnits; ++u) Avx2::store(multipliers + u * Avx2::kWidth, seen.multiplier(scale, u));
  }
};

struct Bf16Format {
  static constexpr bool kScaled = false;
  static constexpr int64_t kPairBytes = 4 * kLanes;

  static void stage(const char* panel, int64_t k_begin, int64_t k_end, float, float* weights, float*) {
    for (int64_t k = k_begin & ~int64_t{1}; k < k_end; k += 2) {
      const char* at = panel + k / 2 * kPairBytes;
      float* to = weights + (k - k_begin) * kLanes;
#pragma GCC unroll 4
      for (int u = 0; u < kUnits; ++u) {
        Avx2::store(to + u * Avx2::kWidth, Avx2::bf16_even(at + u * 32));
        Avx2::store(to + kLanes + u * Avx2::kWidth, Avx2::bf16_odd(at + u * 32));
      }
    }
  }
};

// Activations of a tile for one chunk, widened.
struct WideTile {
  alignas(64) float x[kTileTokens][kBlockCols];
};

// Where a chunk's dot products go. They are added to `totals`, or start them; the last chunk of a leaf adds the totals
// to sums instead, times the token's weight.
struct ChunkTarget {
  float* totals;                         // [num_tokens][32]
  const float* token_weights = nullptr;  // [num_tokens]
  float* const* sums = nullptr;          // [num_tokens]
  int64_t sums_at = 0;                   // of the leaf, in sums
  bool begins = false, ends = false;
};

template <int kTokens>
[[gnu::always_inline]] inline void add_column(const float* weights, const float* x,
                                              Avx2::Float (&sums)[kTokens][kUnits]) {
  Avx2::Float factors[kTokens];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) factors[t] = Avx2::set1(x[t * kBlockCols]);
#pragma GCC unroll 4
  for (int u = 0; u < kUnits; ++u) {
    const Avx2::Float w = Avx2::load(weights + u * Avx2::kWidth);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) sums[t][u] = Avx2::accumulate(sums[t][u], w, factors[t]);
  }
}

// One tile, tokens `first` on, times a chunk. Widens `following` rows (at the chunk's first column) into next.
template <bool kScaled, int kTokens>
[[gnu::noinline]] void multiply_tile(const Chunk& chunk, const WideTile& tile, const bf16_t* const* following,
                                     WideTile& next, int64_t first, const ChunkTarget& to) {
  constexpr int kStep = Avx2::kWidth;
  const bf16_t* const from[kTileTokens] = {following[0], following[1], following[2]};
  float* totals = to.totals + first * kLanes;
  for (int p = 0; p < chunk.num_pieces; ++p) {
    const Chunk::Piece& piece = chunk.pieces[p];
    const bool begins = to.begins && p == 0, ends = to.ends && p + 1 == chunk.num_pieces;
    Avx2::Float sums[kTokens][kUnits];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int u = 0; u < kUnits; ++u) {
        sums[t][u] = kScaled || begins ? Avx2::zero() : Avx2::load(totals + t * kLanes + u * Avx2::kWidth);
      }
    }
    int64_t k = piece.begin;
    for (; k + kStep <= piece.end; k += kStep) {
#pragma GCC unroll 4
      for (int t = 0; t < kTileTokens; ++t) Avx2::store(next.x[t] + k, Avx2::load_bf16(from[t] + k));
#pragma GCC unroll 8
      for (int i = 0; i < kStep; ++i) add_column(chunk.weights() + (k + i) * kLanes, tile.x[0] + k + i, sums);
    }
    for (; k < piece.end; ++k) {
      for (int t = 0; t < kTileTokens; ++t) next.x[t][k] = bf16_to_f32(from[t][k]);
      add_column(chunk.weights() + k * kLanes, tile.x[0] + k, sums);
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      float* total = totals + t * kLanes;
      float* sum = ends ? to.sums[first + t] + to.sums_at : nullptr;
      const Avx2::Float weight = Avx2::set1(ends ? to.token_weights[first + t] : 0.0f);
#pragma GCC unroll 4
      for (int u = 0; u < kUnits; ++u) {
        const int at = u * Avx2::kWidth;
        Avx2::Float done = sums[t][u];
        if (kScaled) {
          done = Avx2::fma(done, Avx2::load(piece.multipliers + at), begins ? Avx2::zero() : Avx2::load(total + at));
        }
        if (ends) {
          Avx2::store(sum + at, Avx2::add(Avx2::load(sum + at), Avx2::mul(weight, done)));
        } else {
          Avx2::store(total + at, done);
        }
      }
    }
  }
}

// As few tiles as possible of 3 tokens; rather two of 2 than one of 1, which has too few sums to keep busy.
constexpr int next_tile(int64_t left) {
  return left == 4 ? 2 : left < kTileTokens ? static_cast<int>(left) : kTileTokens;
}

// A staged chunk times all tokens, whose rows begin at the chunk. Fetches what the next chunk will stage, evenly
// spread.
template <bool kScaled>
inline void multiply_chunk(const Chunk& chunk, const bf16_t* const* rows, int64_t num_tokens, const char* ahead,
                           int64_t ahead_bytes, const ChunkTarget& to) {
  WideTile tiles[2];
  const int64_t num_cols = chunk.pieces[chunk.num_pieces - 1].end;
  for (int64_t t = 0, end = num_tokens < kTileTokens ? num_tokens : kTileTokens; t < end; ++t) {
    int64_t k = 0;
    for (; k + Avx2::kWidth <= num_cols; k += Avx2::kWidth)
      Avx2::store(tiles[0].x[t] + k, Avx2::load_bf16(rows[t] + k));
    for (; k < num_cols; ++k) tiles[0].x[t][k] = bf16_to_f32(rows[t][k]);
  }
  int64_t fetched = 0;
  for (int64_t first = 0, idx = 0; first < num_tokens; idx ^= 1) {
    const int tokens = next_tile(num_tokens - first);
    const int64_t after = first + tokens;
    const bf16_t* following[kTileTokens];
    for (int i = 0; i < kTileTokens; ++i) following[i] = rows[after + i < num_tokens ? after + i : num_tokens - 1];
    for (const int64_t end = ahead_bytes * after / num_tokens; fetched < end; fetched += kLineBytes) {
      __builtin_prefetch(ahead + fetched);
    }
    if (to.ends) {
      for (int64_t t = after; t < after + kTileTokens && t < num_tokens; ++t) {
        __builtin_prefetch(to.sums[t] + to.sums_at, 1);
        __builtin_prefetch(to.sums[t] + to.sums_at + kLanes / 2, 1);
      }
    }
    const auto run = tokens == 3   ? multiply_tile<kScaled, 3>
                     : tokens == 2 ? multiply_tile<kScaled, 2>
                                   : multiply_tile<kScaled, 1>;
    run(chunk, tiles[idx], following, tiles[idx ^ 1], first, to);
    first = after;
  }
}

// Dot products of columns [k_begin, k_end), chunk by chunk. `to` says what becomes of the whole.
template <typename Format>
inline void multiply_columns(const void* panel, const float* scales, int64_t k_begin, int64_t k_end,
                             const bf16_t* const* x, int64_t num_tokens, ChunkTarget to) {
  const auto* bytes = static_cast<const char*>(panel);
  const bool adds = to.ends;
  for (int64_t k = k_begin; k < k_end;) {
    const int64_t block_end = (k / kBlockCols + 1) * kBlockCols;
    // Never a part of a block unless the range ends there: parts would be rounded apart.
    const int64_t end = k_end - k <= kBlockCols ? k_end : block_end;
    Chunk chunk;
    for (int64_t at = k; at < end;) {
      const int64_t scale_end = (at / kBlockCols + 1) * kBlockCols;
      const int64_t piece_end = !Format::kScaled || scale_end > end ? end : scale_end;
      Chunk::Piece& piece = chunk.pieces[chunk.num_pieces++];
      piece.begin = at - k;
      piece.end = piece_end - k;
      Format::stage(bytes, at, piece_end, Format::kScaled ? scales[at / kBlockCols] : 1.0f,
                    chunk.weights() + piece.begin * kLanes, piece.multipliers);
      at = piece_end;
    }
    const bf16_t* rows[kMaxTokens];
    for (int64_t t = 0; t < num_tokens; ++t) rows[t] = x[t] + k;
    to.begins = k == k_begin;
    to.ends = adds && end == k_end;
    multiply_chunk<Format::kScaled>(chunk, rows, num_tokens, bytes + end / 2 * Format::kPairBytes,
                                    (end - k) / 2 * Format::kPairBytes, to);
    k = end;
  }
}

template <typename Format>
inline void dot_group(const DotArgs& a) {
  multiply_columns<Format>(a.panel, a.scales, a.k_begin, a.k_end, a.x, a.num_tokens, {.totals = a.out});
}

template <typename Format>
inline void add_leaves_group(const LeavesArgs& a) {
  alignas(64) float totals[kMaxTokens * kLanes];
  for (int64_t leaf = 0; leaf < a.num_leaves; ++leaf) {
    const int64_t k_begin = a.k_begin + leaf * a.leaf_cols;
    multiply_columns<Format>(
        a.panel, a.scales, k_begin, k_begin + a.leaf_cols, a.x, a.num_tokens,
        {.totals = totals, .token_weights = a.weights, .sums = a.sums, .sums_at = leaf * kLanes, .ends = true});
  }
}

}  // namespace
}  // namespace hadal::cpu
