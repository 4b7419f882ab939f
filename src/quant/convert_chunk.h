// One piece of one tensor on its way through a conversion: elements that do not depend on each other. (Rows that get a
// scale of their own are row_requant.h's.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/code_map.h"
#include "quant/convert_plan.h"

namespace hadal {

// How a tensor is cut. Copies count bytes as elements.
struct ChunkLayout {
  uint64_t num_elements = 0;
  uint64_t chunk_elements = 0;  // independent of the number of threads: sidecars are cut the same way
  size_t in_bytes = 0;          // of an element; 0: nothing is read
  size_t out_bytes = 0;

  uint64_t num_chunks() const { return (num_elements + chunk_elements - 1) / chunk_elements; }
};

// Of any action but kRowCodes and kRowScales. No chunk is larger than 1 MiB, read or written.
ChunkLayout chunk_layout(const PlannedOutput& output);

// Fills `out` from `in`, elements of one chunk. `lost`: taken bits of kMapCodes with RangeMap::kExact (may be null
// otherwise), given bits of kRestoreCodes. False: kRestoreCodes met codes that the exact map does not make.
bool transform_chunk(const PlannedOutput& output, RangeMap map, std::span<const std::byte> in, std::span<std::byte> out,
                     LostBits& lost, CodeMapStats& stats);

// The same result by the definitions in range_map.h, code by code, for checking; not for kRestoreCodes.
void define_chunk(const PlannedOutput& output, RangeMap map, std::span<const std::byte> in, std::span<std::byte> out);

}  // namespace hadal
