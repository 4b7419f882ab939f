// The operations of a CPU table on top of its primitives: grouping tokens, cutting leaves, paging, merging segments.
// Compiled for the baseline instruction set, shared by all tables. Contracts: kernels.h, attention.h.
#pragma once

#include "kernels/cpu/primitives.h"
#include "kernels/kernels.h"
#include "kernels/tuning.h"

namespace hadal::cpu {

void linear(const Primitives& p, const LinearArgs& args, int64_t panel_begin, int64_t panel_end);
void gate_up(const Primitives& p, const GateUpArgs& args, int64_t panel_begin, int64_t panel_end);
void down(const Primitives& p, const DownArgs& args, int64_t panel_begin, int64_t panel_end, std::byte* scratch);
int64_t down_scratch_bytes(const DownArgs& args);

void quantise_row(const QuantiseArgs& args);
void rms_norm(const Primitives& p, const RmsNormArgs& args);
void query_rope(const Primitives& p, const QueryRopeArgs& args);
void write_latent(const Primitives& p, const WriteLatentArgs& args);

void attend_absorbed_segment(const Primitives& p, const AbsorbedAttentionArgs& args, int64_t segment,
                             std::byte* partial, std::byte* scratch);
void join_absorbed(const AbsorbedAttentionArgs& args, std::byte* state, std::byte* partial);
void finish_absorbed(const Primitives& p, const AbsorbedAttentionArgs& args, std::byte* state);
int64_t absorbed_partial_bytes(const AbsorbedAttentionArgs& args);
int64_t absorbed_segment_scratch_bytes(const AbsorbedAttentionArgs& args);
void attend_expanded(const Primitives& p, const ExpandedAttentionArgs& args, std::byte* scratch);
void attend_expanded_part(const Primitives& p, const ExpandedAttentionArgs& args, int64_t segment_begin,
                          int64_t segment_end, std::byte* scratch);
int64_t expanded_scratch_bytes(const ExpandedAttentionArgs& args);
void attend_quant_expanded(const Primitives& p, const QuantExpandedArgs& args, std::byte* scratch);
int64_t quant_expanded_scratch_bytes(const QuantExpandedArgs& args);
void attend_quant_absorbed(const Primitives& p, const QuantAbsorbedArgs& args, std::byte* scratch);
int64_t quant_absorbed_scratch_bytes(const QuantAbsorbedArgs& args);

// The primitives count k from the beginning of the scale block that column 0 of w lies in: of a part of a matrix,
// col_offset columns before the data. Where k = 0 of a panel, and of a row of activations, would be; for addresses
// only.
const std::byte* panel_origin(const PackedMatrix& w, int64_t panel);
const bf16_t* row_origin(const PackedMatrix& w, const bf16_t* x);

// Which rows of w a panel's lanes are: [row, row + count) from `lane` on.
struct PanelRows {
  int64_t lane, row, count;
};
inline PanelRows rows_of_panel(const PackedMatrix& w, int64_t panel) {
  const int64_t lane = panel == 0 ? w.row_offset : 0, row = panel * kLanes + lane - w.row_offset;
  return {lane, row, kLanes - lane < w.rows - row ? kLanes - lane : w.rows - row};
}

// out[t][0..31] = one panel times a group of at most Primitives::max_group tokens; picks the primitive of the matrix's
// dtype. x: row origins.
void dot_panel(const Primitives& p, const PackedMatrix& w, int64_t panel, const bf16_t* const* x, int64_t num_tokens,
               float* out);

// Whether products of w need dot_scaled().
bool is_scaled(const PackedMatrix& w, const ActScales& scales);

struct ScaledTokens {
  const bf16_t* const* x;      // [num_tokens] row origins
  const float* const* scales;  // [num_tokens] the row's scales; unused where the activations have none
  int64_t num_tokens;          // 1 .. Primitives::max_group
};
// Columns [k_begin, k_end) of w in one panel times a token group, scales of activations and rows applied.
void dot_scaled(const Primitives& p, const PackedMatrix& w, int64_t panel, const ScaledTokens& tokens,
                const ActScales& scales, int64_t k_begin, int64_t k_end, float* out);

const DotPrimitives& primitives_for(const Primitives& p, DType dtype);
const float* panel_scales(const PackedMatrix& w, int64_t panel);  // null where the dtype has none
// Starts the stream of the panel that is read next; the primitives prefetch only along the panel they are in.
void prefetch_panel_start(const PackedMatrix& w, int64_t panel);

// Size of the next token group when `left` tokens remain: as few groups as possible, of nearly equal size, rounded up
// to what the primitives are cut for.
inline int64_t next_group(const Primitives& p, int64_t left) {
  const int64_t tuned = kernel_tuning().max_group_tokens;
  const int64_t largest = tuned > 0 && tuned < p.max_group ? tuned : p.max_group;
  const int64_t groups = (left + largest - 1) / largest;
  const int64_t even = (left + groups - 1) / groups;
  const int64_t rounded = (even + p.group_unit - 1) / p.group_unit * p.group_unit;
  return rounded <= largest && rounded <= left ? rounded : even;
}

// A table whose functions are the drivers bound to one set of primitives.
template <const Primitives& kPrimitives>
constexpr KernelTable make_table(Isa isa, const char* name) {
  return {
      .isa = isa,
      .name = name,
      .act_dtype = DType::kBF16,
      .linear = [](const LinearArgs& a, int64_t begin, int64_t end) { linear(kPrimitives, a, begin, end); },
      .gate_up = [](const GateUpArgs& a, int64_t begin, int64_t end) { gate_up(kPrimitives, a, begin, end); },
      .down = [](const DownArgs& a, int64_t begin, int64_t end,
                 std::byte* scratch) { down(kPrimitives, a, begin, end, scratch); },
      .down_scratch_bytes = down_scratch_bytes,
      .rms_norm = [](const RmsNormArgs& a) { rms_norm(kPrimitives, a); },
      .query_rope = [](const QueryRopeArgs& a) { query_rope(kPrimitives, a); },
      .quantise_row = quantise_row,
      .write_latent = [](const WriteLatentArgs& a) { write_latent(kPrimitives, a); },
      .attend_absorbed_segment =
          [](const AbsorbedAttentionArgs& a, int64_t segment, std::byte* partial, std::byte* scratch) {
            attend_absorbed_segment(kPrimitives, a, segment, partial, scratch);
          },
      .join_absorbed = join_absorbed,
      .finish_absorbed = [](const AbsorbedAttentionArgs& a,
                            std::byte* state) { finish_absorbed(kPrimitives, a, state); },
      .absorbed_partial_bytes = absorbed_partial_bytes,
      .absorbed_segment_scratch_bytes = absorbed_segment_scratch_bytes,
      .attend_expanded = [](const ExpandedAttentionArgs& a,
                            std::byte* scratch) { attend_expanded(kPrimitives, a, scratch); },
      .expanded_scratch_bytes = expanded_scratch_bytes,
      .attend_expanded_part =
          [](const ExpandedAttentionArgs& a, int64_t segment_begin, int64_t segment_end, std::byte* scratch) {
            attend_expanded_part(kPrimitives, a, segment_begin, segment_end, scratch);
          },
      .attend_quant_expanded = [](const QuantExpandedArgs& a,
                                  std::byte* scratch) { attend_quant_expanded(kPrimitives, a, scratch); },
      .quant_expanded_scratch_bytes = quant_expanded_scratch_bytes,
      .attend_quant_absorbed = [](const QuantAbsorbedArgs& a,
                                  std::byte* scratch) { attend_quant_absorbed(kPrimitives, a, scratch); },
      .quant_absorbed_scratch_bytes = quant_absorbed_scratch_bytes,
  };
}

}  // namespace hadal::cpu
