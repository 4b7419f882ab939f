// Seeded random inputs for kernel tests, and what it takes to run one case on tables of different activation dtypes.
// All inputs are BF16-exact, so that every table sees the same numbers.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/kernels.h"
#include "tensor/bf16.h"
#include "tensor/fp8.h"

namespace hadal {

inline constexpr float kEpsF32 = 0x1p-23f;      // spacing at 1
inline constexpr float kHalfUlpBf16 = 0x1p-8f;  // largest relative rounding error
inline const float kNaN = std::numeric_limits<float>::quiet_NaN();

using Random = std::mt19937;

inline std::vector<float> random_bf16_values(Random& random, int64_t count, float sigma = 1.0f) {
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> values(count);
  for (float& v : values) v = round_to_bf16(normal(random));
  return values;
}

// 64-byte aligned bytes.
class AlignedBytes {
 public:
  explicit AlignedBytes(int64_t size_bytes) : storage_(static_cast<size_t>(size_bytes) + 64) {}
  std::byte* data() {
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    return storage_.data() + (64 - address % 64) % 64;
  }

 private:
  std::vector<std::byte> storage_;
};

// Numbers in the activation dtype of any table. Rows may be padded with NaN, which no kernel may let through.
class ActBuffer {
 public:
  ActBuffer() = default;
  ActBuffer(const std::vector<float>& values, int64_t rows, int64_t cols, int64_t stride) {
    f32_.assign(rows * stride, kNaN);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy(values.begin() + r * cols, values.begin() + (r + 1) * cols, f32_.begin() + r * stride);
    }
    for (float v : f32_) bf16_.push_back(f32_to_bf16(v));
  }
  const void* in(DType act) const {
    return act == DType::kF32 ? static_cast<const void*>(f32_.data()) : static_cast<const void*>(bf16_.data());
  }

 private:
  std::vector<float> f32_;
  std::vector<bf16_t> bf16_;
};

// An output of act elements, poisoned before the run; read back as floats.
class ActOutput {
 public:
  ActOutput(DType act, int64_t count) : act_(act), f32_(count, kPoison), bf16_(count, f32_to_bf16(kPoison)) {}
  void* data() { return act_ == DType::kF32 ? static_cast<void*>(f32_.data()) : static_cast<void*>(bf16_.data()); }
  std::vector<float> values() const {
    if (act_ == DType::kF32) return f32_;
    std::vector<float> out;
    for (bf16_t v : bf16_) out.push_back(bf16_to_f32(v));
    return out;
  }
  static constexpr float kPoison = -12288.0f;

 private:
  DType act_;
  std::vector<float> f32_;
  std::vector<bf16_t> bf16_;
};

// A packed random matrix that owns its memory.
struct TestMatrix {
  PackedMatrix w;
  std::vector<std::byte> source;  // row-major [rows, cols] of w.dtype
  std::vector<float> block_scales;
  AlignedBytes panels{0};
  std::vector<float> panel_scales;

  TestMatrix(DType dtype, int64_t rows, int64_t cols, std::vector<std::byte> source_in, std::vector<float> scales_in)
      : source(std::move(source_in)), block_scales(std::move(scales_in)) {
    w = {.dtype = dtype, .rows = rows, .cols = cols};
    panels = AlignedBytes(w.panels_bytes());
    pack_panels(w, source.data(), cols, panels.data(), 0, w.num_panels());
    w.panels = panels.data();
    if (dtype == DType::kF8E4M3) {
      panel_scales.resize(w.num_scales());
      pack_scales(w, block_scales.data(), panel_scales.data());
      w.scales = panel_scales.data();
    }
  }
  TestMatrix(TestMatrix&&) = delete;

  // Rows [row_begin, row_end) and columns [col_begin, col_end) of another one, as a rank holds them.
  TestMatrix(const TestMatrix& whole, int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end) {
    const auto size = static_cast<int64_t>(dtype_size_bytes(whole.w.dtype));
    for (int64_t row = row_begin; row < row_end; ++row) {
      const auto at = whole.source.begin() + row * whole.w.cols * size;
      source.insert(source.end(), at + col_begin * size, at + col_end * size);
    }
    w = {.dtype = whole.w.dtype,
         .rows = row_end - row_begin,
         .cols = col_end - col_begin,
         .col_offset = col_begin % kScaleBlock,
         .row_offset = row_offset_of_part(row_begin, row_end - row_begin)};
    panels = AlignedBytes(w.panels_bytes());
    pack_panels(w, source.data(), w.cols, panels.data(), 0, w.num_panels());
    w.panels = panels.data();
    if (w.dtype != DType::kF8E4M3) return;
    panel_scales.resize(w.num_scales());
    pack_scales(w, whole.block_scales.data() + col_begin / kScaleBlock, blocks(whole.w.cols), row_begin,
                panel_scales.data());
    w.scales = panel_scales.data();
  }

  static int64_t blocks(int64_t n) { return (n + kScaleBlock - 1) / kScaleBlock; }
};

inline std::vector<std::byte> random_elements(Random& random, DType dtype, int64_t count) {
  std::vector<std::byte> bytes(count * dtype_size_bytes(dtype));
  for (int64_t i = 0; i < count; ++i) {
    if (dtype == DType::kF8E4M3) {
      uint8_t code;
      do code = static_cast<uint8_t>(random());
      while ((code & 0x7F) == kE4m3NaN);
      bytes[i] = std::byte{code};
      continue;
    }
    const float value = round_to_bf16(std::normal_distribution<float>(0, 1)(random));
    const bf16_t narrow = f32_to_bf16(value);
    if (dtype == DType::kBF16) std::memcpy(&bytes[2 * i], &narrow, 2);
    if (dtype == DType::kF32) std::memcpy(&bytes[4 * i], &value, 4);
  }
  return bytes;
}

inline std::vector<float> random_scales(Random& random, int64_t count) {
  std::uniform_real_distribution<float> exponent(-6, -2);
  std::vector<float> scales(count);
  for (float& s : scales) s = std::exp2(exponent(random));
  return scales;
}

inline TestMatrix random_matrix(Random& random, DType dtype, int64_t rows, int64_t cols) {
  return TestMatrix(dtype, rows, cols, random_elements(random, dtype, rows * cols),
                    random_scales(random, TestMatrix::blocks(rows) * TestMatrix::blocks(cols)));
}

// |W|, for error bounds.
inline TestMatrix absolute(const TestMatrix& m) {
  std::vector<std::byte> bytes = m.source;
  const size_t size = dtype_size_bytes(m.w.dtype);
  for (size_t i = size - 1; i < bytes.size(); i += size) bytes[i] &= std::byte{0x7F};
  return TestMatrix(m.w.dtype, m.w.rows, m.w.cols, bytes, m.block_scales);
}

inline std::vector<float> absolute(std::vector<float> values) {
  for (float& v : values) v = std::fabs(v);
  return values;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The dtypes of weights that a table takes.
inline constexpr DType kWeightDTypes[] = {DType::kF8E4M3, DType::kBF16, DType::kF32};

// Tables under test against the reference.
inline std::vector<Isa> tested_isas() {
  std::vector<Isa> isas = available_isas();
  std::erase(isas, Isa::kReference);
  return isas;
}

class TableTest : public ::testing::TestWithParam<Isa> {
 protected:
  const KernelTable& table() const { return kernels_for(GetParam()); }
  const KernelTable& reference() const { return kernels_for(Isa::kReference); }
};

inline std::string isa_test_name(const ::testing::TestParamInfo<Isa>& info) {
  std::string name = isa_name(info.param);
  std::erase(name, '-');
  return name;
}

#define HADAL_FOR_EVERY_TABLE(suite) \
  INSTANTIATE_TEST_SUITE_P(Tables, suite, ::testing::ValuesIn(tested_isas()), isa_test_name)

}  // namespace hadal
