// Quantised rows: bit-equal in every table, and the definition of the cast over all inputs.
#include "kernels/quantise.h"

#include "kernels/kernel_test_support.h"

namespace hadal {
namespace {

struct Quantised {
  std::vector<float> values, scales;
};

Quantised quantise(const KernelTable& table, const std::vector<float>& x, QuantiseArgs args) {
  const auto n = static_cast<int64_t>(x.size());
  const ActBuffer act(x, 1, n, n);
  ActOutput out(table.act_dtype, n);
  Quantised result;
  result.scales.assign(static_cast<size_t>(n / kQuantiseGroup + 1), -1.0f);
  args.x = act.in(table.act_dtype);
  args.n = n;
  args.out = out.data();
  args.scales = result.scales.data();
  table.quantise_row(args);
  result.values = out.values();
  return result;
}

class Quantise : public TableTest {};

// Every BF16 input at once, NaN and infinities included.
TEST_P(Quantise, CastsEveryBf16InputAsTheCodes) {
  std::vector<float> x;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) x.push_back(bf16_to_f32({static_cast<uint16_t>(bits)}));
  for (const float max_finite : {240.0f, 448.0f}) {
    for (const float inv : {1.0f, 0.37f, 35.0f}) {
      const QuantiseArgs args = {.kind = QuantiseKind::kStatic, .max_finite = max_finite, .inv = inv};
      const auto got = quantise(table(), x, args).values;
      for (size_t i = 0; i < x.size(); ++i) {
        const uint8_t code = f32_to_e4m3(x[i] * inv, max_finite);
        const float want = e4m3_to_f32(code);
        if (std::isnan(x[i])) {
          ASSERT_TRUE(std::isnan(got[i])) << i;
        } else {
          ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want)) << x[i] << " * " << inv;
          ASSERT_LE(std::fabs(got[i]), max_finite);
        }
      }
    }
  }
}

TEST_P(Quantise, EqualsTheReferenceBitForBit) {
  Random random(5);
  for (const int64_t n : {1, 127, 128, 129, 576, 7168}) {
    for (const float sigma : {1e-6f, 1.0f, 900.0f}) {
      const auto x = random_bf16_values(random, n, sigma);
      for (const QuantiseKind kind : {QuantiseKind::kStatic, QuantiseKind::kToken, QuantiseKind::kGroup}) {
        for (const bool pow2 : {false, true}) {
          const QuantiseArgs args = {.kind = kind, .max_finite = 240, .inv = 1.5f, .pow2 = pow2};
          const Quantised want = quantise(reference(), x, args), got = quantise(table(), x, args);
          EXPECT_TRUE(same_bits(got.values, want.values)) << n << " " << sigma;
          EXPECT_TRUE(same_bits(got.scales, want.scales)) << n << " " << sigma;
        }
      }
    }
  }
}

TEST_P(Quantise, ScalesAreTheDefinitions) {
  std::vector<float> x(256, 0.5f);
  x[3] = -6.84375f;
  x[200] = 0;
  const Quantised token = quantise(table(), x, {.kind = QuantiseKind::kToken, .max_finite = 240});
  EXPECT_EQ(token.scales[0], 0.028564453125f);
  EXPECT_EQ(token.values[3], -240.0f);
  const Quantised group = quantise(table(), x, {.kind = QuantiseKind::kGroup});
  EXPECT_EQ(group.scales[0], 6.84375f / 448);
  EXPECT_EQ(group.scales[1], 0.5f / 448);
  EXPECT_EQ(group.values[130], 448.0f);
  EXPECT_EQ(group.values[200], 0.0f);
  const Quantised pow2 = quantise(table(), x, {.kind = QuantiseKind::kGroup, .pow2 = true});
  EXPECT_EQ(pow2.scales[0], 0x1p-6f);
  const Quantised zero = quantise(table(), std::vector<float>(4, 0.0f), {.kind = QuantiseKind::kToken});
  EXPECT_EQ(zero.values[0], 0.0f);
}

HADAL_FOR_EVERY_TABLE(Quantise);

// Products of quantised rows with quantised matrices. Values are small integers and scales powers of two: every sum is
// exact in FP32, so all tables must agree to the bit.
class ScaledProducts : public TableTest {
 protected:
  static constexpr int64_t kRows = 70, kCols = 384, kTokens = 21, kLeaves = 4;

  ScaledProducts() : random_(17), w_(integer_matrix()), up_(integer_matrix()), x_(integers(kTokens * kCols)) {
    row_scales_ = powers(w_.w.num_panels() * kPanelRows);
    w_.w.row_scales = up_.w.row_scales = row_scales_.data();
    x_scales_ = powers(kTokens * 3);
  }

  std::vector<float> integers(int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = static_cast<float>(static_cast<int>(random_() % 9) - 4);
    return values;
  }
  std::vector<float> powers(int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = std::exp2(static_cast<float>(static_cast<int>(random_() % 5) - 2));
    return values;
  }
  TestMatrix integer_matrix() {
    std::vector<std::byte> codes;
    for (const float v : integers(kRows * kCols)) codes.push_back(std::byte{f32_to_e4m3(v)});
    return TestMatrix(DType::kF8E4M3, kRows, kCols, codes, std::vector<float>(9, 1.0f));
  }
  ActScales scales(bool per_block) const {
    return {.scales = x_scales_.data(), .ld = per_block ? 3 : 1, .per_block = per_block};
  }

  // Straight from the definition.
  double wanted(const TestMatrix& m, int64_t token, int64_t row, bool per_block, int64_t k_begin, int64_t k_end) const {
    double sum = 0;
    for (int64_t k = k_begin; k < k_end; ++k) {
      const float scale = x_scales_[static_cast<size_t>(per_block ? token * 3 + k / 128 : token)];
      sum += double{x_[static_cast<size_t>(token * kCols + k)]} * packed_element(m.w, row, k) * scale;
    }
    return sum * row_scales_[static_cast<size_t>(row)];
  }

  Random random_;
  TestMatrix w_, up_;
  std::vector<float> row_scales_, x_, x_scales_;
};

TEST_P(ScaledProducts, LinearIsExact) {
  const ActBuffer act(x_, kTokens, kCols, kCols);
  for (const KernelTable* kernels : {&table(), &reference()}) {
    for (const bool per_block : {false, true}) {
      std::vector<float> y(kTokens * kRows);
      kernels->linear({.w = &w_.w,
                       .x = act.in(kernels->act_dtype),
                       .ldx = kCols,
                       .x_scales = scales(per_block),
                       .num_tokens = kTokens,
                       .y = y.data(),
                       .ldy = kRows,
                       .round_to_bf16 = true},
                      0, w_.w.num_panels());
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t r = 0; r < kRows; ++r) {
          const auto want = static_cast<float>(wanted(w_, t, r, per_block, 0, kCols));
          ASSERT_EQ(y[static_cast<size_t>(t * kRows + r)], round_to_bf16(want)) << kernels->name << t << "," << r;
        }
      }
    }
  }
}

TEST_P(ScaledProducts, GateUpRoundsProductsFirst) {
  const ActBuffer act(x_, kTokens, kCols, kCols);
  ActOutput h(table().act_dtype, kTokens * kRows);
  table().gate_up({.gate = &w_.w,
                   .up = &up_.w,
                   .x = act.in(table().act_dtype),
                   .ldx = kCols,
                   .x_scales = scales(true),
                   .num_tokens = kTokens,
                   .h = h.data(),
                   .ldh = kRows,
                   .round_to_bf16 = true},
                  0, w_.w.num_panels());
  const auto got = h.values();
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t r = 0; r < kRows; ++r) {
      const float gate = round_to_bf16(static_cast<float>(wanted(w_, t, r, true, 0, kCols)));
      const float up = round_to_bf16(static_cast<float>(wanted(up_, t, r, true, 0, kCols)));
      const double want = gate / (1 + std::exp(-double{gate})) * up;
      // One rounding to BF16; the exponential of the tables is within 2^-20.
      ASSERT_NEAR(got[static_cast<size_t>(t * kRows + r)], want, std::fabs(want) * (kHalfUlpBf16 + 0x1p-20f) + 1e-30);
    }
  }
}

TEST_P(ScaledProducts, DownIsExact) {
  const ActBuffer act(x_, kTokens, kCols, kCols);
  const std::vector<float> weights = powers(kTokens);
  for (const KernelTable* kernels : {&table(), &reference()}) {
    for (const bool per_block : {false, true}) {
      const DownSource source = {.w = &w_.w,
                                 .h = act.in(kernels->act_dtype),
                                 .ldh = kCols,
                                 .h_scales = scales(per_block),
                                 .num_tokens = kTokens,
                                 .weights = weights.data()};
      std::vector<float> y(kTokens * kRows);
      const DownArgs args = {
          .sources = {&source, 1}, .num_leaves = kLeaves, .num_tokens = kTokens, .y = y.data(), .ldy = kRows};
      AlignedBytes scratch(kernels->down_scratch_bytes(args));
      kernels->down(args, 0, w_.w.num_panels(), scratch.data());
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t r = 0; r < kRows; ++r) {
          const double want = weights[static_cast<size_t>(t)] * wanted(w_, t, r, per_block, 0, kCols);
          ASSERT_EQ(y[static_cast<size_t>(t * kRows + r)], static_cast<float>(want)) << kernels->name;
        }
      }
    }
  }
}

HADAL_FOR_EVERY_TABLE(ScaledProducts);

}  // namespace
}  // namespace hadal
