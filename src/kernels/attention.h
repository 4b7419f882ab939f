// Multi-head latent attention over a paged latent cache: contracts of the attention kernels.
// Formulas: DeepSeek-V2 report section 2.1; both forms read keys and values from the cache only, in cache dtype.
//
// Positions are visited in segments of kAttentionSegment absolute positions, merged ascending by the online-softmax
// rule, so a query's bits depend on its own position and the cache content alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_matrix.h"
#include "tensor/dtype.h"

namespace hadal {

inline constexpr int64_t kAttentionSegment = 1024;

// One layer of the cache: rows of [kv_lora_rank latent (after norm), qk_rope_head_dim key (after RoPE)] elements,
// either act or FP8 E4M3 codes with scale 1 (vLLM's, for a checkpoint without k_scale). Block b, slot s lies at base +
// b * block_stride_bytes + s * row_bytes. Non-owning.
//
// FP8 rows are decoded exactly: attention over them equals, bit for bit, attention over act rows of the same values.
struct PagedKvView {
  DType dtype = DType::kBF16;  // the table's act dtype, or kF8E4M3
  std::byte* base = nullptr;
  int64_t block_stride_bytes = 0;
  int64_t block_size = 0;    // slots (tokens) per block
  int64_t row_elements = 0;  // kv_lora_rank + qk_rope_head_dim
  int64_t row_bytes = 0;

  std::byte* row(const int32_t* block_table, int64_t position) const {
    return base + block_table[position / block_size] * block_stride_bytes + (position % block_size) * row_bytes;
  }
};

// c = RMSNorm(kv[0:kv_lora_rank]) and k_pe = RoPE(kv[kv_lora_rank:]), each rounded once, into one cache row. FP8 ends
// at +-448, infinities included; NaN stays NaN.
struct WriteLatentArgs {
  const float* kv = nullptr;      // [kv_lora_rank + qk_rope_head_dim], output of kv_a_proj_with_mqa
  const float* weight = nullptr;  // [kv_lora_rank] kv_a_layernorm
  float eps = 0;
  int64_t kv_lora_rank = 0, qk_rope_head_dim = 0;
  const float* cos = nullptr;  // [qk_rope_head_dim / 2]
  const float* sin = nullptr;
  DType row_dtype = DType::kBF16;  // as PagedKvView::dtype
  void* row = nullptr;             // [kv_lora_rank + qk_rope_head_dim]
};

constexpr int64_t num_attention_segments(int64_t num_positions) {
  return (num_positions + kAttentionSegment - 1) / kAttentionSegment;
}

// Heads that one call of the absorbed form serves at most: they share every key that is read.
inline constexpr int64_t kMaxAbsorbedHeads = 32;

// Decode form, one query token, heads [0, num_heads): out_h = sum_t softmax_t(scale * (q_h . row_t)) * latent_t over
// positions t = 0 .. num_positions - 1.
struct AbsorbedAttentionArgs {
  const void* q_latent = nullptr;  // act [num_heads, kv_lora_rank], W_UKᵀ q_nope, heads q_latent_stride elements apart
  int64_t q_latent_stride = 0;
  const void* q_rope = nullptr;  // act [num_heads, qk_rope_head_dim], heads q_rope_stride elements apart
  int64_t q_rope_stride = 0;
  int64_t num_heads = 0;  // 1 .. kMaxAbsorbedHeads
  int64_t kv_lora_rank = 0, qk_rope_head_dim = 0;
  float scale = 0;
  const PagedKvView* kv = nullptr;
  const int32_t* block_table = nullptr;
  int64_t num_positions = 0;  // the query's own position + 1
  void* out = nullptr;        // act [num_heads, kv_lora_rank], heads out_stride elements apart
  int64_t out_stride = 0;
};

// Prefill form, one head, consecutive query tokens at positions first_position .. + num_queries - 1, causal. Keys and
// values are expanded from the cache: k_nope[t] = W_UK c_t and v[t] = W_UV c_t, rounded to act.
struct ExpandedAttentionArgs {
  const void* q = nullptr;  // act [num_queries, qk_nope + qk_rope] of this head, tokens q_stride elements apart
  int64_t q_stride = 0;
  int64_t num_queries = 0, first_position = 0;
  int64_t kv_lora_rank = 0, qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;
  const PackedMatrix* w_uk = nullptr;  // [qk_nope_head_dim, kv_lora_rank] of this head
  const PackedMatrix* w_uv = nullptr;  // [v_head_dim, kv_lora_rank] of this head
  float scale = 0;
  const PagedKvView* kv = nullptr;
  const int32_t* block_table = nullptr;
  void* out = nullptr;  // act [num_queries, v_head_dim] of this head, tokens out_stride elements apart
  int64_t out_stride = 0;
};

}  // namespace hadal
