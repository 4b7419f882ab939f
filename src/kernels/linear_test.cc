// Linear, gate_up and down of every table: against the reference within a derived bound, and bit-equal to themselves
// however tokens and panels are grouped.
#include <gmock/gmock.h>

#include <algorithm>

#include "kernels/kernel_test_support.h"

namespace hadal {
namespace {

// Sums of n terms in FP32 err by at most half a unit in the last place of a partial sum per addition. Partial sums are
// at most sum|x w| = `magnitude`, errors are independent: sqrt(n) of them, taken at full size, bound the total amply.
float sum_tolerance(int64_t n, float magnitude) { return kEpsF32 * std::sqrt(static_cast<float>(n) + 1) * magnitude; }

struct LinearCase {
  int64_t rows, cols, tokens;
  bool gather = false;
};

constexpr LinearCase kLinearCases[] = {
    {1, 1, 1},     {32, 128, 1},   {33, 127, 2},         {31, 129, 3, true}, {64, 256, 7},
    {96, 384, 8},  {50, 301, 9},   {128, 130, 10, true}, {40, 640, 11},      {7, 77, 12},
    {65, 200, 13}, {32, 1000, 25}, {100, 96, 33, true},  {17, 5, 40},        {160, 576, 0},
};

std::vector<float> run_linear(const KernelTable& table, const PackedMatrix& w, const std::vector<float>& x,
                              int64_t x_count, const std::vector<int32_t>& rows, int64_t tokens, int64_t panel_begin,
                              int64_t panel_end) {
  const int64_t ldx = w.cols + 3, ldy = w.rows + 5;
  const ActBuffer act(x, x_count, w.cols, ldx);
  std::vector<float> y(tokens * ldy, ActOutput::kPoison);
  table.linear({.w = &w,
                .x = act.in(table.act_dtype),
                .ldx = ldx,
                .x_rows = rows.empty() ? nullptr : rows.data(),
                .num_tokens = tokens,
                .y = y.data(),
                .ldy = ldy},
               panel_begin, panel_end);
  return y;
}

std::vector<int32_t> random_rows(Random& random, int64_t tokens, int64_t x_count) {
  std::vector<int32_t> rows(tokens);
  for (int32_t& row : rows) row = static_cast<int32_t>(random() % x_count);
  return rows;
}

class Linear : public TableTest {};

TEST_P(Linear, AgreesWithReference) {
  Random random(1);
  for (DType dtype : kWeightDTypes) {
    for (const LinearCase& c : kLinearCases) {
      SCOPED_TRACE(fmt::format("{} {}x{} tokens {}", dtype_name(dtype), c.rows, c.cols, c.tokens));
      const int64_t x_count = c.tokens + 2;
      const TestMatrix m = random_matrix(random, dtype, c.rows, c.cols);
      const TestMatrix m_abs = absolute(m);
      const auto x = random_bf16_values(random, x_count * c.cols);
      const auto rows = c.gather ? random_rows(random, c.tokens, x_count) : std::vector<int32_t>{};
      const int64_t panels = m.w.num_panels();
      const auto want = run_linear(reference(), m.w, x, x_count, rows, c.tokens, 0, panels);
      const auto magnitude = run_linear(reference(), m_abs.w, absolute(x), x_count, rows, c.tokens, 0, panels);
      const auto got = run_linear(table(), m.w, x, x_count, rows, c.tokens, 0, panels);
      for (size_t i = 0; i < want.size(); ++i) {
        const bool inside = static_cast<int64_t>(i) % (c.rows + 5) < c.rows;
        if (!inside) {
          ASSERT_EQ(got[i], ActOutput::kPoison) << "wrote past the row's end";
        } else {
          ASSERT_NEAR(got[i], want[i], sum_tolerance(c.cols, magnitude[i])) << "at " << i;
        }
      }
    }
  }
}

TEST_P(Linear, BitsDoNotDependOnGrouping) {
  Random random(2);
  for (DType dtype : kWeightDTypes) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{70, 333}, {64, 512}}) {
      constexpr int64_t kTokens = 41;
      const TestMatrix m = random_matrix(random, dtype, rows, cols);
      const auto x = random_bf16_values(random, kTokens * cols);
      const int64_t panels = m.w.num_panels();
      const auto all = run_linear(table(), m.w, x, kTokens, {}, kTokens, 0, panels);
      for (int64_t count : {1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14, 17, 23, 29, 36}) {
        // The last `count` tokens in reverse, so that each has other neighbours than before.
        std::vector<int32_t> reversed;
        for (int64_t t = 0; t < count; ++t) reversed.push_back(static_cast<int32_t>(kTokens - 1 - t));
        const auto part = run_linear(table(), m.w, x, kTokens, reversed, count, 0, panels);
        const int64_t ldy = rows + 5;
        for (int64_t t = 0; t < count; ++t) {
          ASSERT_EQ(std::memcmp(&part[t * ldy], &all[reversed[t] * ldy], rows * sizeof(float)), 0)
              << dtype_name(dtype) << " token " << t << " of " << count;
        }
      }
      auto by_panel = run_linear(table(), m.w, x, kTokens, {}, kTokens, 0, 1);
      for (int64_t panel = 1; panel < panels; ++panel) {
        const auto part = run_linear(table(), m.w, x, kTokens, {}, kTokens, panel, panel + 1);
        for (size_t i = 0; i < part.size(); ++i) {
          if (part[i] != ActOutput::kPoison) by_panel[i] = part[i];
        }
      }
      EXPECT_TRUE(same_bits(by_panel, all));
    }
  }
}

// What a rank has of the rows: wherever it begins, inside panels and scale blocks.
TEST_P(Linear, PartsOfTheRowsGiveTheSameBits) {
  Random random(6);
  constexpr int64_t kRows = 300, kCols = 301, kTokens = 14;
  for (DType dtype : kWeightDTypes) {
    const TestMatrix whole = random_matrix(random, dtype, kRows, kCols);
    const auto x = random_bf16_values(random, kTokens * kCols);
    const auto want = run_linear(table(), whole.w, x, kTokens, {}, kTokens, 0, whole.w.num_panels());
    for (const auto& [begin, end] :
         {std::pair<int64_t, int64_t>{0, 150}, {7, 8}, {100, 150}, {120, 290}, {128, 300}, {96, 129}, {250, 300}}) {
      SCOPED_TRACE(fmt::format("{} rows {} to {}", dtype_name(dtype), begin, end));
      const TestMatrix part(whole, begin, end, 0, kCols);
      const auto got = run_linear(table(), part.w, x, kTokens, {}, kTokens, 0, part.w.num_panels());
      for (int64_t t = 0; t < kTokens; ++t) {
        const float* row = &got[t * (end - begin + 5)];
        ASSERT_EQ(std::memcmp(row, &want[t * (kRows + 5) + begin], (end - begin) * sizeof(float)), 0) << "token " << t;
        for (int64_t i = end - begin; i < end - begin + 5; ++i) ASSERT_EQ(row[i], ActOutput::kPoison);
      }
    }
  }
}

TEST_P(Linear, DecodesEveryCodeExactly) {
  // One column per code and x = 1 in one place at a time: y is the code's value itself.
  std::vector<std::byte> codes(256 * 2);
  for (int i = 0; i < 256; ++i) {
    codes[2 * i] = std::byte(i);
    codes[2 * i + 1] = std::byte(255 - i);
  }
  const TestMatrix m(DType::kF8E4M3, 256, 2, codes, {1.0f, 1.0f});
  const auto y = run_linear(table(), m.w, {1.0f, 0.0f, 0.0f, 1.0f}, 2, {}, 2, 0, m.w.num_panels());
  for (int i = 0; i < 256; ++i) {
    const float even = e4m3_to_f32(static_cast<uint8_t>(i)), odd = e4m3_to_f32(static_cast<uint8_t>(255 - i));
    if (std::isnan(even) || std::isnan(odd)) {  // 0 * NaN is NaN too
      EXPECT_TRUE(std::isnan(y[i]) && std::isnan(y[261 + i])) << i;
    } else {
      EXPECT_EQ(y[i], even) << i;
      EXPECT_EQ(y[261 + i], odd) << i;
    }
  }
}

// Wherever in a long row a NaN code lies, its row is NaN for every token, even one that multiplies it by zero, and no
// other row is.
TEST_P(Linear, NaNCodesReachTheirRowsOnly) {
  Random random(5);
  constexpr int64_t kRows = 70, kCols = 301;
  std::vector<std::byte> codes = random_elements(random, DType::kF8E4M3, kRows * kCols);
  const std::pair<int64_t, int64_t> places[] = {{0, 0}, {5, 127}, {18, 128}, {31, 255}, {40, 299}, {69, 300}};
  for (const auto& [row, col] : places) codes[row * kCols + col] = std::byte{row % 2 == 0 ? kE4m3NaN : uint8_t{0xFF}};
  const TestMatrix m(DType::kF8E4M3, kRows, kCols, codes, random_scales(random, 3));
  for (int64_t tokens : {1, 2, 3, 6, 7, 8, 12}) {
    auto x = random_bf16_values(random, tokens * kCols);
    for (const auto& [row, col] : places) x[col] = 0.0f;
    const auto y = run_linear(table(), m.w, x, tokens, {}, tokens, 0, m.w.num_panels());
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t n = 0; n < kRows; ++n) {
        const bool poisoned = std::any_of(std::begin(places), std::end(places), [n](auto p) { return p.first == n; });
        ASSERT_EQ(std::isnan(y[t * (kRows + 5) + n]), poisoned) << "token " << t << " of " << tokens << " row " << n;
      }
    }
  }
}

// Denormal activations are numbers. (The BF16 dot products of AVX-512 take them for zero: avx512_bf16.h.)
TEST_P(Linear, MultipliesDenormals) {
  if (table().isa == Isa::kAvx512Bf16) GTEST_SKIP() << "flushes denormals by design";
  const TestMatrix f8(DType::kF8E4M3, 1, 1, {std::byte{0x7E}}, {0x1p100f});  // 448
  const TestMatrix bf16(DType::kBF16, 1, 1, {std::byte{0x80}, std::byte{0x71}}, {});
  ASSERT_EQ(packed_element(bf16.w, 0, 0), 0x1p100f);
  for (int64_t tokens : {1, 12}) {
    const std::vector<float> x(tokens, 0x1p-130f);
    EXPECT_EQ(run_linear(table(), f8.w, x, tokens, {}, tokens, 0, 1)[0], 448 * 0x1p-30f);
    EXPECT_EQ(run_linear(table(), bf16.w, x, tokens, {}, tokens, 0, 1)[0], 0x1p-30f);
  }
}

TEST_P(Linear, RoundsOnceToActivations) {
  Random random(3);
  const TestMatrix m = random_matrix(random, DType::kF8E4M3, 45, 150);
  const auto x = random_bf16_values(random, 5 * 150);
  const ActBuffer act(x, 5, 150, 150);
  const auto wide = run_linear(table(), m.w, x, 5, {}, 5, 0, m.w.num_panels());
  ActOutput y(table().act_dtype, 5 * 45);
  table().linear({.w = &m.w,
                  .x = act.in(table().act_dtype),
                  .ldx = 150,
                  .num_tokens = 5,
                  .y = y.data(),
                  .ldy = 45,
                  .y_dtype = table().act_dtype},
                 0, m.w.num_panels());
  const auto narrow = y.values();
  for (int64_t t = 0; t < 5; ++t) {
    for (int64_t n = 0; n < 45; ++n) EXPECT_EQ(narrow[t * 45 + n], round_to_bf16(wide[t * 50 + n]));
  }
}

std::vector<float> run_gate_up(const KernelTable& table, const PackedMatrix& gate, const PackedMatrix& up,
                               const std::vector<float>& x, int64_t x_count, const std::vector<int32_t>& rows) {
  const int64_t ldx = gate.cols + 1, tokens = static_cast<int64_t>(rows.size());
  const ActBuffer act(x, x_count, gate.cols, ldx);
  ActOutput h(table.act_dtype, tokens * gate.rows);
  table.gate_up({.gate = &gate,
                 .up = &up,
                 .x = act.in(table.act_dtype),
                 .ldx = ldx,
                 .x_rows = rows.data(),
                 .num_tokens = tokens,
                 .h = h.data(),
                 .ldh = gate.rows},
                0, gate.num_panels());
  return h.values();
}

class GateUp : public TableTest {};

TEST_P(GateUp, AgreesWithReferenceAndWithItself) {
  Random random(4);
  for (DType dtype : {DType::kF8E4M3, DType::kBF16}) {
    for (int64_t tokens : {1, 2, 8, 11, 27}) {
      const int64_t rows = 48 + tokens, cols = 260;
      const TestMatrix gate = random_matrix(random, dtype, rows, cols);
      const TestMatrix up = random_matrix(random, dtype, rows, cols);
      const TestMatrix gate_abs = absolute(gate), up_abs = absolute(up);
      const auto x = random_bf16_values(random, tokens * cols, 0.1f);
      std::vector<int32_t> identity(tokens);
      for (int64_t t = 0; t < tokens; ++t) identity[t] = static_cast<int32_t>(t);
      const auto want = run_gate_up(reference(), gate.w, up.w, x, tokens, identity);
      const auto got = run_gate_up(table(), gate.w, up.w, x, tokens, identity);
      const int64_t panels = gate.w.num_panels();
      const auto g = run_linear(reference(), gate.w, x, tokens, {}, tokens, 0, panels);
      const auto u = run_linear(reference(), up.w, x, tokens, {}, tokens, 0, panels);
      const auto g_mag = run_linear(reference(), gate_abs.w, absolute(x), tokens, {}, tokens, 0, panels);
      const auto u_mag = run_linear(reference(), up_abs.w, absolute(x), tokens, {}, tokens, 0, panels);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t n = 0; n < rows; ++n) {
          // |silu'| <= 1.1 and |silu(z)| <= |z|; a few roundings of silu itself; one to the output.
          const int64_t i = t * rows + n, j = t * (rows + 5) + n;
          const float tolerance = 1.1f * sum_tolerance(cols, g_mag[j]) * std::fabs(u[j]) +
                                  sum_tolerance(cols, u_mag[j]) * std::fabs(g[j]) +
                                  (8 * kEpsF32 + kHalfUlpBf16) * std::fabs(want[i]) + 1e-37f;
          ASSERT_NEAR(got[i], want[i], tolerance) << dtype_name(dtype) << " token " << t << " row " << n;
        }
        const auto alone = run_gate_up(table(), gate.w, up.w, x, tokens, {static_cast<int32_t>(t)});
        ASSERT_EQ(std::memcmp(alone.data(), &got[t * rows], rows * sizeof(float)), 0);
      }
    }
  }
}

TEST_P(GateUp, PartsOfTheRowsGiveTheSameBits) {
  Random random(7);
  constexpr int64_t kRows = 200, kCols = 96, kTokens = 13;
  std::vector<int32_t> identity;
  for (int32_t t = 0; t < kTokens; ++t) identity.push_back(t);
  for (DType dtype : {DType::kF8E4M3, DType::kBF16}) {
    const TestMatrix gate = random_matrix(random, dtype, kRows, kCols), up = random_matrix(random, dtype, kRows, kCols);
    const auto x = random_bf16_values(random, kTokens * kCols, 0.1f);
    const auto want = run_gate_up(table(), gate.w, up.w, x, kTokens, identity);
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 100}, {100, 200}, {120, 137}, {9, 18}}) {
      SCOPED_TRACE(fmt::format("{} rows {} to {}", dtype_name(dtype), begin, end));
      const TestMatrix gate_part(gate, begin, end, 0, kCols), up_part(up, begin, end, 0, kCols);
      const auto got = run_gate_up(table(), gate_part.w, up_part.w, x, kTokens, identity);
      for (int64_t t = 0; t < kTokens; ++t) {
        ASSERT_EQ(std::memcmp(&got[t * (end - begin)], &want[t * kRows + begin], (end - begin) * sizeof(float)), 0);
      }
    }
  }
}

TEST_P(GateUp, SiluAtTheEnds) {
  // One column of ones: gate and up are the weights themselves.
  const float gates[] = {-1e30f, -200, -88.7f, -20, -1e-3f, 0, 1e-3f, 20, 88.7f, 200, 1e30f};
  std::vector<std::byte> gate_bytes, up_bytes;
  for (float g : gates) {
    for (auto [bytes, value] : {std::pair{&gate_bytes, g}, {&up_bytes, 2.0f}}) {
      const bf16_t narrow = f32_to_bf16(value);
      const auto* raw = reinterpret_cast<const std::byte*>(&narrow);
      bytes->insert(bytes->end(), raw, raw + 2);
    }
  }
  const int64_t n = std::size(gates);
  const TestMatrix gate(DType::kBF16, n, 1, gate_bytes, {}), up(DType::kBF16, n, 1, up_bytes, {});
  const auto h = run_gate_up(table(), gate.w, up.w, {1.0f}, 1, {0});
  for (int64_t i = 0; i < n; ++i) {
    const double z = round_to_bf16(gates[i]);
    const double want = 2 * z / (1 + std::exp(-z));
    EXPECT_NEAR(h[i], want, (kHalfUlpBf16 + 4 * kEpsF32) * std::fabs(want) + 1e-30) << z;
  }
}

HADAL_FOR_EVERY_TABLE(Linear);
HADAL_FOR_EVERY_TABLE(GateUp);

}  // namespace
}  // namespace hadal
