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

// Columns of a panel that share one scale.
struct Piece {
  int64_t begin, end;  // in its chunk
  const char* at;      // the pair of columns that it begins with, or in the middle of
  int64_t k_begin;     // of the panel
  float scale;
  alignas(32) float multipliers[kLanes];
};

// At most kBlockCols columns, so at most two scale blocks meet.
struct Chunk {
  int num_pieces = 0;
  Piece pieces[2];
  alignas(64) float room[kBlockCols + 2][kLanes];  // pairs are staged whole: one row of room on either side

  float* weights() { return room[1]; }  // [column][32]
};

struct F8Format {
  static constexpr bool kScaled = true;
  static constexpr int64_t kPairBytes = 2 * kLanes;
  F8Seen seen;

  // 16 rows x 2 k as codes / 2^8 to `to` and `to` + kLanes, except for NaN codes: those show in the multipliers. Leaves
  // registers to the sums around it: constants are loaded anew, and what was seen lives in memory.
  [[gnu::always_inline]] void stage_half(const char* at, float* to, int half, uint32_t counted) {
    const auto* codes = reinterpret_cast<const Bytes*>(at);
    store_halves(codes, kEvenFactors, to);
    store_halves(codes, kOddFactors, to + kLanes);
    __m256i twice = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    if (counted != kBothCodes) twice = _mm256_and_si256(twice, _mm256_set1_epi32(static_cast<int>(counted)));
    twice = _mm256_add_epi8(twice, twice);
    __asm__ volatile("vpmaxub %1, %0, %0\n\tvmovdqa %0, %1" : "+x"(twice), "+m"(seen.largest[half]));
  }
  void finish(float scale, float* multipliers) const {
    for (int u = 0; u < kUnits; ++u) Avx2::store(multipliers + u * Avx2::kWidth, seen.multiplier(scale, u));
  }

 private:
  struct [[gnu::may_alias]] Bytes {
    char bytes[32];
  };
  struct alignas(32) Constant {
    uint16_t words[16];
  };
#define HADAL_SIXTEEN(x)                               \
  {                                                    \
    { x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x } \
  }
  static constexpr Constant kEvenFactors = HADAL_SIXTEEN(0x0080), kOddFactors = HADAL_SIXTEEN(0x8000),
                            kBits = HADAL_SIXTEEN(static_cast<uint16_t>(kF8Bits));
#undef HADAL_SIXTEEN

  [[gnu::always_inline]] static void store_halves(const Bytes* codes, const Constant& factors, float* to) {
    __m256i halves;
    __asm__ volatile("vmovdqa %2, %0\n\tvpmaddubsw %1, %0, %0\n\tvpand %3, %0, %0"
                     : "=&x"(halves)
                     : "m"(*codes), "m"(factors), "m"(kBits));
    Avx2::store(to, _mm256_cvtph_ps(_mm256_castsi256_si128(halves)));
    Avx2::store(to + Avx2::kWidth, _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)));
  }
};

struct Bf16Format {
  static constexpr bool kScaled = false;
  static constexpr int64_t kPairBytes = 4 * kLanes;

  [[gnu::always_inline]] void stage_half(const char* at, float* to, int, uint32_t) {
    constexpr int64_t kUnitBytes = 4 * Avx2::kWidth;
    Avx2::store(to, Avx2::bf16_even(at));
    Avx2::store(to + kLanes, Avx2::bf16_odd(at));
    Avx2::store(to + Avx2::kWidth, Avx2::bf16_even(at + kUnitBytes));
    Avx2::store(to + kLanes + Avx2::kWidth, Avx2::bf16_odd(at + kUnitBytes));
  }
  void finish(float, float*) const {}
};

// Stages a piece: its first columns at once, the others while a tile multiplies what is there.
template <typename Format>
class Stager {
 public:
  static constexpr int64_t kStep = 8;  // columns

  Stager(const Piece& piece, float* weights) : at_(piece.at), to_(weights + piece.begin * kLanes) {
    int64_t num_cols = piece.end - piece.begin;
    if (piece.k_begin % 2 != 0) {
      to_ -= kLanes;
      stage_pair(at_, to_, kOddCodes);
      advance(1);
      --num_cols;
    }
    if (num_cols % 2 != 0)
      stage_pair(at_ + num_cols / 2 * Format::kPairBytes, to_ + (num_cols - 1) * kLanes, kEvenCodes);
    num_pairs_ = num_cols / 2;
    stage_some(kStep / 2);
  }
  bool has_step() const { return num_pairs_ >= kStep / 2; }
  // One of kStep parts of a step.
  [[gnu::always_inline]] void run_part(int part) {
    const int pair = part / 2, half = part % 2;
    format_.stage_half(at_ + pair * Format::kPairBytes + half * (Format::kPairBytes / 2),
                       to_ + pair * 2 * kLanes + half * (kLanes / 2), half, kBothCodes);
  }
  void end_step() {
    advance(kStep / 2);
    num_pairs_ -= kStep / 2;
  }
  void finish(Piece& piece) {
    stage_some(num_pairs_);
    format_.finish(piece.scale, piece.multipliers);
  }

 private:
  void stage_pair(const char* at, float* to, uint32_t counted) {
    for (int half = 0; half < 2; ++half) {
      format_.stage_half(at + half * (Format::kPairBytes / 2), to + half * (kLanes / 2), half, counted);
    }
  }
  void stage_some(int64_t num_pairs) {
    for (; num_pairs > 0 && num_pairs_ > 0; --num_pairs, --num_pairs_) {
      stage_pair(at_, to_, kBothCodes);
      advance(1);
    }
  }
  void advance(int64_t num_pairs) {
    at_ += num_pairs * Format::kPairBytes;
    to_ += num_pairs * 2 * kLanes;
  }

  const char* at_;
  float* to_;
  int64_t num_pairs_ = 0;  // to stage
  Format format_;
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

// One tile, tokens `first` on, times a chunk; the first tile (kStages) stages it. Widens `following` rows, which begin
// at the chunk's first column, into next.
template <typename Format, bool kStages, int kTokens>
[[gnu::noinline]] void multiply_tile(Chunk& chunk, const WideTile& tile, const bf16_t* const* following, WideTile& next,
                                     int64_t first, const ChunkTarget& to) {
  constexpr bool kScaled = Format::kScaled;
  constexpr int kStep = Avx2::kWidth;
  const bf16_t* const from[kTileTokens] = {following[0], following[1], following[2]};
  float* totals = to.totals + first * kLanes;
  for (int p = 0; p < chunk.num_pieces; ++p) {
    Piece& piece = chunk.pieces[p];
    const bool begins = to.begins && p == 0, ends = to.ends && p + 1 == chunk.num_pieces;
    Avx2::Float sums[kTokens][kUnits];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int u = 0; u < kUnits; ++u) {
        sums[t][u] = kScaled || begins ? Avx2::zero() : Avx2::load(totals + t * kLanes + u * Avx2::kWidth);
      }
    }
    const float* weights = chunk.weights();
    const auto widen = [&](int64_t k) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int t = 0; t < kTileTokens; ++t) Avx2::store(next.x[t] + k, Avx2::load_bf16(from[t] + k));
    };
    int64_t k = piece.begin;
    if constexpr (kStages) {
      static_assert(Stager<Format>::kStep == kStep);
      Stager<Format> stager(piece, chunk.weights());
      for (; stager.has_step(); k += kStep) {
        widen(k);
#pragma GCC unroll 8
        for (int i = 0; i < kStep; ++i) {
          add_column(weights + (k + i) * kLanes, tile.x[0] + k + i, sums);
          stager.run_part(i);
        }
        stager.end_step();
      }
      stager.finish(piece);
    }
    for (; k + kStep <= piece.end; k += kStep) {
      widen(k);
#pragma GCC unroll 8
      for (int i = 0; i < kStep; ++i) add_column(weights + (k + i) * kLanes, tile.x[0] + k + i, sums);
    }
    for (; k < piece.end; ++k) {
      for (int t = 0; t < kTileTokens; ++t) next.x[t][k] = bf16_to_f32(from[t][k]);
      add_column(weights + k * kLanes, tile.x[0] + k, sums);
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

// A chunk times all tokens, more than a tile of them, whose rows begin at the chunk. Fetches what the next chunk will
// stage, evenly spread.
template <typename Format>
inline void multiply_chunk(Chunk& chunk, const bf16_t* const* rows, int64_t num_tokens, const char* ahead,
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
    const auto run = first == 0    ? multiply_tile<Format, true, 3>
                     : tokens == 3 ? multiply_tile<Format, false, 3>
                     : tokens == 2 ? multiply_tile<Format, false, 2>
                                   : multiply_tile<Format, false, 1>;
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
      Piece& piece = chunk.pieces[chunk.num_pieces++];
      piece.begin = at - k;
      piece.end = piece_end - k;
      piece.at = bytes + at / 2 * Format::kPairBytes;
      piece.k_begin = at;
      piece.scale = Format::kScaled ? scales[at / kBlockCols] : 1.0f;
      at = piece_end;
    }
    const bf16_t* rows[kMaxTokens];
    for (int64_t t = 0; t < num_tokens; ++t) rows[t] = x[t] + k;
    to.begins = k == k_begin;
    to.ends = adds && end == k_end;
    multiply_chunk<Format>(chunk, rows, num_tokens, bytes + end / 2 * Format::kPairBytes,
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
    multiply_columns<Format>(
        a.panel, a.scales, leaf * a.leaf_cols, (leaf + 1) * a.leaf_cols, a.x, a.num_tokens,
        {.totals = totals, .token_weights = a.weights, .sums = a.sums, .sums_at = leaf * kLanes, .ends = true});
  }
}

}  // namespace
}  // namespace hadal::cpu
