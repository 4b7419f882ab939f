// From rows of a tensor as a checkpoint stores them to where the kernels read them. Internal to model/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/checkpoint.h"
#include "model/weights.h"

namespace hadal {

struct WeightSource {
  WeightDestination to;
  const Checkpoint::Entry* entry = nullptr;
  const Checkpoint::Entry* scale = nullptr;  // F8_E4M3 only
  int64_t rows = 0, cols = 0;                // a vector is one row
  int64_t row_unit = 1;                      // fill in multiples of this: a panel, a head
  int64_t row_bytes() const { return cols * static_cast<int64_t>(dtype_size_bytes(entry->info.dtype)); }
};

// One thread's conversion memory, reused from call to call.
struct FillScratch {
  std::vector<std::byte> converted;
  std::vector<float> scales;  // of the whole tensor, filled by the caller for F8_E4M3
};

// Packs, converts or copies rows [row_begin, row_begin + num_rows), given as stored. row_begin is a multiple of
// row_unit. Thread-safe for disjoint rows.
void fill_weights(const WeightSource& source, const std::byte* stored, int64_t row_begin, int64_t num_rows,
                  FillScratch& scratch);

}  // namespace hadal
