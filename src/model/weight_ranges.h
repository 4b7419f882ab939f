// Largest magnitudes of packed matrices, for calibration (quant/range_set.h). Internal to model/.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/packed_matrix.h"

namespace hadal {

// Raises slots[i] to the largest |bf16(element * bf16(block scale))| of rows [i, i + 1) * w.rows / slots.size(), a
// matrix without block scales to that of its elements; NaN when one is NaN. Row scales count. Requires slots.size() to
// divide w.rows. Cost: reads the matrix once.
void raise_by_rows(const PackedMatrix& w, std::span<float> slots);

// The same of columns.
void raise_by_cols(const PackedMatrix& w, std::span<float> slots);

}  // namespace hadal
