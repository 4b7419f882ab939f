// The oracle: plain loops over the packed layout, F32 activations, sums in double and rounded once to F32. Slow. Also
// what `--numerics reference` runs. Takes matrices of every dtype (kF32, kBF16, kF8E4M3). Same contracts as kernels.h.
#pragma once

#include "kernels/kernels.h"
#include "kernels/row_math.h"

namespace hadal::reference {

// sum over k in [k_begin, k_end) of x[k] * W[row, k], scales included.
double dot(const PackedMatrix& w, int64_t row, const float* x, int64_t k_begin, int64_t k_end);

void attend_absorbed_segment(const AbsorbedAttentionArgs& args, int64_t segment, std::byte* partial,
                             std::byte* scratch);
void join_absorbed(const AbsorbedAttentionArgs& args, std::byte* state, std::byte* partial);
void finish_absorbed(const AbsorbedAttentionArgs& args, std::byte* state);
int64_t absorbed_partial_bytes(const AbsorbedAttentionArgs& args);
int64_t absorbed_segment_scratch_bytes(const AbsorbedAttentionArgs& args);
void attend_expanded(const ExpandedAttentionArgs& args, std::byte* scratch);
int64_t expanded_scratch_bytes(const ExpandedAttentionArgs& args);
void attend_quant_expanded(const QuantExpandedArgs& args, std::byte* scratch);
int64_t quant_expanded_scratch_bytes(const QuantExpandedArgs& args);
void attend_quant_absorbed(const QuantAbsorbedArgs& args, std::byte* scratch);
int64_t quant_absorbed_scratch_bytes(const QuantAbsorbedArgs& args);

extern const KernelTable kTable;
extern const RowMath kRowMath;

}  // namespace hadal::reference
