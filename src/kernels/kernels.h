// The operations of the model on one thread, as a table of functions per instruction set. The model cuts work into
// ranges and runs them on its thread pool; a kernel never starts threads, allocates or locks.
//
// Numerics (design.md section 4, "canonical arithmetic"). Inside one table the bits of a token's result depend on that
// token's inputs alone: never on num_tokens, on the panel range, or on which tokens share a call. Sums run over k
// ascending in FP32. With FP8 weights: inside a 128-wide scale block first, then block sums times scale, ascending;
// other weights have no blocks, their sum runs through. Different tables may round differently. "act" is the table's
// activation dtype: BF16, or F32 in the reference table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/attention.h"
#include "kernels/packed_matrix.h"
#include "kernels/quant_attention.h"
#include "kernels/quantise.h"
#include "tensor/dtype.h"

namespace hadal {

// Scales of an input that was quantised (quantise.h): the true input is x * scale. Rows as x's, found through x_rows.
// per_block: one scale for 128 columns, applied to each block's sum before it is added; otherwise applied to the whole
// sum. Then come the matrix's row scales: y = (sum * scale) * row_scale.
struct ActScales {
  const float* scales = nullptr;  // f32 [rows, ld]; null: x is not quantised
  int64_t ld = 0;                 // 0: one scale for all rows
  bool per_block = false;         // [rows, ceil(cols / 128)], from column 0 of x on, whatever w.col_offset

  const float* row(int64_t row) const { return scales + row * ld; }
};

// y[t, n] = sum_k x[row(t), k] * W[n, k] for n in panels [panel_begin, panel_end).
struct LinearArgs {
  const PackedMatrix* w = nullptr;
  const void* x = nullptr;          // act [*, w.cols], rows ldx elements apart
  int64_t ldx = 0;                  // rows a multiple of 4 KiB apart share cache sets: up to 15 % slower, pad them
  const int32_t* x_rows = nullptr;  // [num_tokens] row of x for each token; null: row t
  ActScales x_scales;
  int64_t num_tokens = 0;  // 0 is legal
  void* y = nullptr;       // [num_tokens, w.rows], rows ldy elements apart
  int64_t ldy = 0;
  DType y_dtype = DType::kF32;  // kF32, or act (rounded once)
  bool round_to_bf16 = false;   // F32 results hold BF16 values
};

// h[t, n] = silu(x W_gateᵀ) * (x W_upᵀ), rounded once to act. gate and up have one shape and dtype.
struct GateUpArgs {
  const PackedMatrix* gate = nullptr;
  const PackedMatrix* up = nullptr;
  const void* x = nullptr;  // as in LinearArgs
  int64_t ldx = 0;
  const int32_t* x_rows = nullptr;
  ActScales x_scales;
  int64_t num_tokens = 0;
  void* h = nullptr;  // act [num_tokens, gate.rows], rows ldh elements apart
  int64_t ldh = 0;
  bool round_to_bf16 = false;  // the two products are rounded to BF16 first
};

// One addend of a row-parallel linear: y[y_rows[i]] += weights[i] * (h[i] Wᵀ).
struct DownSource {
  const PackedMatrix* w = nullptr;
  const void* h = nullptr;  // act [num_tokens, w.cols], rows ldh elements apart
  int64_t ldh = 0;
  ActScales h_scales;
  int64_t num_tokens = 0;
  const int32_t* y_rows = nullptr;  // [num_tokens] output row; null: row i
  const float* weights = nullptr;   // [num_tokens]; null: 1
  int64_t leaf = -1;                // >= 0: added to this leaf whole, all its columns
};

// Row-parallel linears (o_proj; dense down_proj; all experts' down_proj and the shared one together). K is cut into
// num_leaves equal leaves, except that a source may belong to one leaf as a whole. Inside leaf j the sources are added
// in the given order, acc_j += weight * partial_j (f32); then the leaves are joined pairwise as a binary tree.
// Overwrites y.
struct DownArgs {
  std::span<const DownSource> sources;  // experts ascending, then the shared expert; all w.rows equal, row_offset 0
  int64_t num_leaves = 1;               // power of two that divides the w.cols of every source that is cut
  int64_t num_tokens = 0;
  float* y = nullptr;  // f32 [num_tokens, rows], rows ldy elements apart
  int64_t ldy = 0;
};

struct RmsNormArgs {
  const float* x = nullptr;       // [dim]
  const float* weight = nullptr;  // [dim]
  int64_t dim = 0;
  float eps = 0;
  void* out = nullptr;  // act [dim], rounded once
};

// Interleaved RoPE (pairs 2i, 2i+1) on f32, rounded once. cos/sin: [qk_rope_head_dim / 2].
struct QueryRopeArgs {
  const float* q = nullptr;  // [num_heads, qk_nope + qk_rope]
  int64_t num_heads = 0, qk_nope_head_dim = 0, qk_rope_head_dim = 0;
  const float* cos = nullptr;
  const float* sin = nullptr;
  void* out = nullptr;  // act, same shape; the nope part is only rounded
};

enum class Isa { kReference, kPortable, kAvx2, kAvx512, kAvx512Bf16 };

struct KernelTable {
  Isa isa;
  const char* name;  // as --isa spells it
  DType act_dtype;

  void (*linear)(const LinearArgs&, int64_t panel_begin, int64_t panel_end);
  void (*gate_up)(const GateUpArgs&, int64_t panel_begin, int64_t panel_end);
  // scratch: at least down_scratch_bytes(args) bytes, 64-byte aligned, any content.
  void (*down)(const DownArgs&, int64_t panel_begin, int64_t panel_end, std::byte* scratch);
  int64_t (*down_scratch_bytes)(const DownArgs&);
  void (*rms_norm)(const RmsNormArgs&);
  void (*query_rope)(const QueryRopeArgs&);
  void (*quantise_row)(const QuantiseArgs&);
  void (*write_latent)(const WriteLatentArgs&);
  // The absorbed form, one segment of positions per call: fills `partial` (absorbed_partial_bytes(args), 64-byte
  // aligned) from the segment's keys alone. join_absorbed() adds a later segment to an earlier `state` (a partial
  // itself), in ascending order; finish_absorbed() writes args.out. Scratch as above; of args.kv, the functions that
  // count bytes read dtype alone.
  void (*attend_absorbed_segment)(const AbsorbedAttentionArgs&, int64_t segment, std::byte* partial,
                                  std::byte* scratch);
  void (*join_absorbed)(const AbsorbedAttentionArgs&, std::byte* state, std::byte* partial);
  void (*finish_absorbed)(const AbsorbedAttentionArgs&, std::byte* state);
  int64_t (*absorbed_partial_bytes)(const AbsorbedAttentionArgs&);
  int64_t (*absorbed_segment_scratch_bytes)(const AbsorbedAttentionArgs&);
  void (*attend_expanded)(const ExpandedAttentionArgs&, std::byte* scratch);
  int64_t (*expanded_scratch_bytes)(const ExpandedAttentionArgs&);
  // attend_expanded() in parts, one range of segments after the other from 0 on; the part that reaches the last segment
  // writes args.out. Between the parts of one call the scratch must stay as it is; in every part args must be the same.
  // Null where the table has only the whole.
  void (*attend_expanded_part)(const ExpandedAttentionArgs&, int64_t segment_begin, int64_t segment_end,
                               std::byte* scratch);
  // Both forms in FP8 (quant_attention.h). Scratch as above; the functions that count its bytes read dimensions, kv
  // dtype and which scales are present.
  void (*attend_quant_expanded)(const QuantExpandedArgs&, std::byte* scratch);
  int64_t (*quant_expanded_scratch_bytes)(const QuantExpandedArgs&);
  void (*attend_quant_absorbed)(const QuantAbsorbedArgs&, std::byte* scratch);
  int64_t (*quant_absorbed_scratch_bytes)(const QuantAbsorbedArgs&);
};

// All segments of the absorbed form in one call. scratch: absorbed_scratch_bytes(kernels, args), 64-byte aligned.
void attend_absorbed(const KernelTable& kernels, const AbsorbedAttentionArgs& args, std::byte* scratch);
int64_t absorbed_scratch_bytes(const KernelTable& kernels, const AbsorbedAttentionArgs& args);

const char* isa_name(Isa isa);
// Tables that this processor can run, slowest first.
std::vector<Isa> available_isas();
const KernelTable& kernels_for(Isa isa);  // Requires isa to be available.
// "auto" or a name. Errors: kInvalidArgument (unknown, nearest name given), kUnsupported (this CPU lacks it).
Expected<const KernelTable*> select_kernels(std::string_view isa);
// Dtype of the latent cache by its name in vLLM: "auto" and "bfloat16" are the table's act dtype, "fp8" and "fp8_e4m3"
// kF8E4M3. Errors: kInvalidArgument, nearest name given.
Expected<DType> select_kv_dtype(std::string_view name, const KernelTable& kernels);

}  // namespace hadal
