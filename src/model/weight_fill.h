// From rows of a tensor as a checkpoint stores them to where the kernels read them. Internal to model/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "formats/checkpoint.h"
#include "model/weights.h"

namespace hadal {

struct WeightSource {
  WeightDestination to;
  const NumericsPlan* numerics = nullptr;
  const Checkpoint::Entry* entry = nullptr;
  const Checkpoint::Entry* scale = nullptr;  // F8_E4M3 only
  bool stored_row_scales = false;            // `scale` is [rows], not of 128 x 128 blocks
  int64_t rows = 0, cols = 0;                // of to.part; a vector is one row
  int64_t stored_cols = 0;                   // of the whole tensor
  int64_t row_unit = 1;                      // fill in multiples of this: a panel, a head
  int64_t element_bytes() const { return static_cast<int64_t>(dtype_size_bytes(entry->info.dtype)); }
  int64_t row_bytes() const { return cols * element_bytes(); }
  int64_t stored_row_bytes() const { return stored_cols * element_bytes(); }
  // Rows that a first panel has before the part's own.
  int64_t row_lead() const { return to.matrix != nullptr ? to.matrix->row_offset : 0; }
  // Becomes FP8 with scales of our own: the codes of the checkpoint are not kept.
  bool is_requantised() const;
};

// One thread's conversion memory, reused from call to call.
struct FillScratch {
  std::vector<std::byte> gathered;  // rows as stored, without the columns of other ranks
  std::vector<std::byte> converted;
  std::vector<uint8_t> codes;
  std::vector<float> row_scales;
  std::vector<float> scales;  // of the whole tensor, filled by the caller for F8_E4M3
};

// Packs, converts or copies rows [row_begin, row_begin + num_rows) of the part, given as stored. row_begin + row_lead()
// is a multiple of row_unit, or row_begin is 0. module_amax: largest magnitude of the module, where the plan has one
// scale for all its rows. Thread-safe for disjoint rows.
void fill_weights(const WeightSource& source, const std::byte* stored, int64_t row_begin, int64_t num_rows,
                  FillScratch& scratch, std::optional<float> module_amax);

// Largest magnitude of the rows' BF16 values.
float largest_weight(const WeightSource& source, const std::byte* stored, int64_t row_begin, int64_t num_rows,
                     FillScratch& scratch);

}  // namespace hadal
