// Shapes and non-owning views of dense row-major tensors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>

#include "tensor/dtype.h"

namespace hadal {

// Up to four dimensions, outermost first. A plain value; rank 0 is a scalar (one element).
class Shape {
 public:
  static constexpr size_t kMaxRank = 4;

  Shape() = default;
  // Requires at most kMaxRank dimensions, none negative. Not for foreign numbers: see from_dims().
  Shape(std::initializer_list<int64_t> dims);

  // Nothing when there are more than kMaxRank dimensions or one is negative.
  static std::optional<Shape> from_dims(std::span<const int64_t> dims);

  size_t rank() const { return rank_; }
  int64_t operator[](size_t i) const { return dims_[i]; }
  std::span<const int64_t> dims() const { return {dims_.data(), rank_}; }

  // Product of the dimensions. Requires that it fits (checked).
  int64_t num_elements() const;
  // Nothing when the product leaves int64_t.
  std::optional<int64_t> checked_num_elements() const;
  // num_elements x size of dtype; nothing on overflow.
  std::optional<uint64_t> checked_size_bytes(DType dtype) const;

  std::string to_string() const;  // "[576, 7168]"

  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  size_t rank_ = 0;
};

// Memory that somebody else owns and keeps alive, rows contiguous, no gaps.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;

  uint64_t size_bytes() const { return static_cast<uint64_t>(shape.num_elements()) * dtype_size_bytes(dtype); }

  // Requires sizeof(T) == dtype_size_bytes(dtype).
  template <typename T>
  std::span<const T> elements() const {
    return {static_cast<const T*>(data), static_cast<size_t>(shape.num_elements())};
  }
};

}  // namespace hadal
