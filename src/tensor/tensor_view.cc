#include "tensor/tensor_view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/check.h"

namespace hadal {

Shape::Shape(std::initializer_list<int64_t> dims) {
  const auto shape = from_dims({dims.begin(), dims.size()});
  HADAL_CHECK(shape.has_value(), "{} dimensions [{}]", dims.size(), fmt::join(dims, ", "));
  *this = *shape;
}

std::optional<Shape> Shape::from_dims(std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank) return std::nullopt;
  if (std::any_of(dims.begin(), dims.end(), [](int64_t dim) { return dim < 0; })) return std::nullopt;
  Shape shape;
  std::copy(dims.begin(), dims.end(), shape.dims_.begin());
  shape.rank_ = dims.size();
  return shape;
}

std::optional<int64_t> Shape::checked_num_elements() const {
  int64_t count = 1;
  bool overflow = false;
  for (const int64_t dim : dims()) {
    if (dim == 0) return 0;
    overflow |= __builtin_mul_overflow(count, dim, &count);
  }
  if (overflow) return std::nullopt;
  return count;
}

int64_t Shape::num_elements() const {
  const auto count = checked_num_elements();
  HADAL_CHECK(count.has_value(), "product of {} overflows", to_string());
  return *count;
}

std::optional<uint64_t> Shape::checked_size_bytes(DType dtype) const {
  const auto count = checked_num_elements();
  uint64_t size_bytes = 0;
  if (!count || __builtin_mul_overflow(static_cast<uint64_t>(*count), dtype_size_bytes(dtype), &size_bytes)) {
    return std::nullopt;
  }
  return size_bytes;
}

std::string Shape::to_string() const { return fmt::format("[{}]", fmt::join(dims(), ", ")); }

}  // namespace hadal
