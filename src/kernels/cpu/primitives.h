// What an instruction set has to supply: a handful of functions on plain pointers. Everything else of a CPU table
// (grouping tokens, cutting leaves, paging, merging segments) is in the drivers, once for all, compiled for the
// baseline.
//
// This header is included into files compiled with AVX-512 flags. It must stay free of inline functions and library
// templates: the linker may pick such a file's copy of a shared inline function for the whole program, and the program
// would then die on a processor without AVX-512.
//
// Determinism: each output depends on its own token (lane, row) alone; sums run in a fixed order.
#pragma once

#include <cstdint>

#include "tensor/bf16.h"

namespace hadal::cpu {

inline constexpr int64_t kLanes = 32;           // rows of a weight panel, heads or queries of an attention panel
inline constexpr int64_t kBlockCols = 128;      // k that share one weight scale
inline constexpr int64_t kMaxTokens = 96;       // largest token group of any table's calls
inline constexpr int64_t kRegisterTokens = 12;  // largest of a table that keeps all its sums in registers
inline constexpr int64_t kValueLanes = 8;       // lanes that one weighted_values call serves

// Part of one panel (packed_matrix.h: [k / 2][32 rows][2]) times a group of tokens.
struct DotArgs {
  const void* panel;       // F8 E4M3 codes, BF16 or F32, whole panel
  const float* scales;     // F8: [ceil(cols / 128)] of this panel
  int64_t k_begin, k_end;  // any, also odd; nothing outside is read from x
  const bf16_t* const* x;  // [num_tokens], each pointing at k = 0
  int64_t num_tokens;      // 1 .. Primitives::max_group
  float* out;              // [num_tokens][32], overwritten
  int64_t prefetch_bytes;  // how far ahead in the panel to prefetch
  int64_t num_rows;        // 1 .. 32 rows whose sums are wanted; the others may be left out
};

// The same cut into equal leaves of k, for row-parallel linears: sums[t][leaf][0..31] += weights[t] * (leaf's dot).
// Weight and block scale may be one factor, each block's product may be fused with its addition.
struct LeavesArgs {
  const void* panel;
  const float* scales;
  int64_t k_begin;    // of the first leaf; as in DotArgs
  int64_t leaf_cols;  // any, also odd; a leaf may begin inside a scale block
  int64_t num_leaves;
  const bf16_t* const* x;  // [num_tokens], each pointing at k = 0
  int64_t num_tokens;      // 1 .. Primitives::max_group
  const float* weights;    // [num_tokens]
  float* const* sums;      // [num_tokens], each f32 [num_leaves][32]
  int64_t prefetch_bytes;
};

// One segment of keys for one panel of 32 lanes (heads, or queries of one head).
struct SoftmaxArgs {
  const float* scores;    // [num_keys][32], unscaled
  int64_t num_keys;       // 1 .. kAttentionSegment
  int64_t num_lanes;      // 1 .. 32 lanes that are wanted; the others may be left out
  const int32_t* limits;  // [32] keys that each lane sees; the others weigh exactly zero. <= 0: none
  float scale;            // positive
  float* max;             // [32] out: largest scaled score, -inf for a lane that sees none
  float* sum;             // [32] out: sum of the lane's weights as rounded
  bf16_t* weights;        // [ceil(num_keys / 2)][32][2] out; e^(score - max); the partner of a last odd key is zero
};

// out[l][c] = sum_t weights[t][lane_begin + l] * values[t][col_begin + c].
struct ValuesArgs {
  const bf16_t* weights;  // as SoftmaxArgs.weights
  int64_t num_keys;
  int64_t lane_begin;           // serves kValueLanes lanes from here
  const bf16_t* const* values;  // [num_keys] rows
  int64_t col_begin, num_cols;  // num_cols 1 .. 32
  float* out;                   // [kValueLanes][32]
};

// For one dtype of weights.
struct DotPrimitives {
  void (*dot)(const DotArgs&);
  void (*add_leaves)(const LeavesArgs&);
};

struct Primitives {
  int64_t max_group;   // largest token group of one call, at most kMaxTokens
  int64_t group_unit;  // token groups are multiples of this where there are enough tokens
  DotPrimitives f8, bf16;
  DotPrimitives f32;  // for matrices that a checkpoint stores in F32
  // out[i] = bf16(silu(gate[i]) * up[i]), n <= 32.
  void (*silu_mul)(const float* gate, const float* up, int64_t n, bf16_t* out);
  // out[i] = bf16(in[i]).
  void (*round_row)(const float* in, int64_t n, bf16_t* out);
  // out[i] = value of the E4M3 code, exact; a NaN becomes a quiet one of its sign.
  void (*decode_f8_row)(const uint8_t* codes, int64_t n, bf16_t* out);
  void (*softmax_segment)(const SoftmaxArgs&);
  void (*weighted_values)(const ValuesArgs&);
};

}  // namespace hadal::cpu
