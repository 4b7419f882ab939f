// Attention in FP8 as Intel Neural Compressor (branch r1-woq) patches it into vLLM's Gaudi fork: contracts of the
// kernels. Facts: spec/gaudi-pipeline.md 4.3, 5.3 and 5.4.
//
// Numerics. cast(x): to the nearest E4M3 value, ties to even, saturating at max_finite; a scale pair turns a value into
// the code cast(value * inv) and back into code * scale. Products of codes are summed in FP32 and multiplied by the
// FP32 product of the two scales. bf16(): to nearest, ties to even. Exponentials are those of the C library in FP32.
// All tables round at the same places, the reference too: where the FP32 sums of products are exact, all tables give
// the same bits, otherwise they differ by the order of those sums alone.
//
// Determinism: a query's bits depend on its own position and the cache content alone; not on num_queries, num_heads or
// the cache's block size. No allocation; any thread, on scratch of its own.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/attention.h"
#include "kernels/quantise.h"

namespace hadal {

// Positions that the peer's decode attention handles as one block, whatever the cache's own block size.
inline constexpr int64_t kQuantAttentionBlock = 128;

struct QuantScale {
  float scale = 1;  // value = code * scale
  float inv = 1;    // code = cast(value * inv); about 1 / scale
  friend bool operator==(const QuantScale&, const QuantScale&) = default;
};

// fused_scaled_dot_product_attention
struct SdpaScales {
  QuantScale q, k, v, probabilities, output;
};

// A product of two quantised inputs: matmul_qk (query, key), matmul_av (probabilities, latent), batch2block_matmul and
// block2batch_matmul (0/1 mapping, data).
struct MatmulScales {
  QuantScale in0, in1;
};

// Prefill form: as ExpandedAttentionArgs (`base`), with
//   cache rows  act, or FP8 codes of bf16(code * cache_scale)
//   kv_b        x = cast(latent * inv), s_x as `latent_input` says; k_nope, v = bf16(((x . w) * s_x) * row scale)
//   sdpa        qc = cast(q), kc = cast([k_nope, k_pe]), vc = cast(v); score = (sum qc kc * (s_q * s_k)) * base.scale;
//               p = bf16(exp(score - max) / sum of exp) over all visible positions; pc = cast(p);
//               o = bf16(sum pc vc * (s_p * s_v)); out = bf16(cast(o * inv_o) * s_o). No renormalisation.
// Masked positions weigh exactly zero. Without sdpa: attend_expanded() over the keys and values above.
struct QuantExpandedArgs {
  ExpandedAttentionArgs base;  // w_uk, w_uv: BF16, or FP8 with block scales 1; either with or without row scales
  float cache_scale = 1;       // kF8E4M3 rows
  float max_finite = 448;      // of every cast: 448 or 240 (Gaudi 2)
  // Absent: the latent is not quantised. kStatic: by `latent`. kToken: by the latent's own maximum. Not kGroup.
  std::optional<QuantiseKind> latent_input;
  QuantScale latent;
  std::optional<SdpaScales> sdpa;
};

// Largest magnitudes that entered the products of the decode form, before any cast. For calibration.
struct AbsorbedMagnitudes {
  float query = 0;        // matmul_qk's input 0
  float batch2block = 0;  // its data: q, and the sums of the group
  float block2batch = 0;  // its data: the blocks' sums, and their parts as rescaled
  friend bool operator==(const AbsorbedMagnitudes&, const AbsorbedMagnitudes&) = default;
};

// Decode form: as AbsorbedAttentionArgs (`base`), in blocks b of kQuantAttentionBlock positions, with
//   q   = bf16(base.scale * [q_latent, q_rope]), spread over the blocks by batch2block
//   score = bf16(matmul_qk(q, row)), m_b = max, p = bf16(exp(bf16(score - m_b))), sum_b = bf16(sum p),
//   part_b = bf16(matmul_av(p, latent));  M = max m_b, adj_b = bf16(exp(bf16(m_b - M))), sadj_b = bf16(sum_b * adj_b),
//   g = batch2block(block2batch(sadj)), r_b = bf16(adj_b / max(g, sadj_b)), out = block2batch(bf16(part_b * r_b)).
// block2batch is a sum over blocks, batch2block a copy; both are products with ones, bf16((sum cast(1 * inv0)
// cast(data * inv1)) * (s0 * s1)). A product without scales is bf16(sum of products) of its BF16 inputs.
struct QuantAbsorbedArgs {
  AbsorbedAttentionArgs base;
  float cache_scale = 1;
  float max_finite = 448;
  std::optional<MatmulScales> matmul_qk, matmul_av, batch2block, block2batch;
  AbsorbedMagnitudes* magnitudes = nullptr;  // [num_heads], raised by this call; null: nobody asks
};

}  // namespace hadal
