// The fields of LayerRanges and RangeDims as tables: one place that sizes, checks, merges and writes them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/range_set.h"

namespace hadal {

enum class RangeExtent : uint8_t { kHeads, kLeaves, kExperts };

struct RangeScalarField {
  const char* name;
  float LayerRanges::*member;
};
struct RangeListField {
  const char* name;
  std::vector<float> LayerRanges::*member;
  RangeExtent extent;
};
struct RangeDimField {
  const char* name;
  int64_t RangeDims::*member;
  int64_t min, max;
};

std::span<const RangeScalarField> range_scalar_fields();
std::span<const RangeListField> range_list_fields();
std::span<const RangeDimField> range_dim_fields();

// Length of such a list in this layer.
int64_t range_extent(const RangeDims& dims, int64_t layer, RangeExtent extent);

}  // namespace hadal
