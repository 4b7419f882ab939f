// Norms and rotary embeddings of every table (the reference included) against formulas in double.
#include <algorithm>

#include "kernels/kernel_test_support.h"

namespace hadal {
namespace {

class Rows : public ::testing::TestWithParam<Isa> {
 protected:
  const KernelTable& table() const { return kernels_for(GetParam()); }
  float unit_roundoff() const { return table().act_dtype == DType::kF32 ? kEpsF32 : kHalfUlpBf16; }
};

std::vector<double> normalised(const float* x, const std::vector<float>& weight, float eps) {
  double squares = 0;
  for (size_t i = 0; i < weight.size(); ++i) squares += static_cast<double>(x[i]) * x[i];
  std::vector<double> y(weight.size());
  for (size_t i = 0; i < y.size(); ++i) {
    y[i] = weight[i] * x[i] / std::sqrt(squares / static_cast<double>(y.size()) + eps);
  }
  return y;
}

// One rounding to the output; in FP32 the sum's error (half a unit per 16 terms and a few more) and two products.
double tolerance(double want, size_t dim, float unit) {
  return std::fabs(want) * (unit + kEpsF32 * (4 + std::sqrt(static_cast<double>(dim)) / 2)) + 1e-38;
}

TEST_P(Rows, RmsNorm) {
  Random random(31);
  for (int64_t dim : {1, 2, 15, 16, 17, 255, 256, 257, 1536, 7168}) {
    const auto x = random_bf16_values(random, dim, 3.0f);
    const auto weight = random_bf16_values(random, dim);
    ActOutput out(table().act_dtype, dim + 1);
    table().rms_norm({.x = x.data(), .weight = weight.data(), .dim = dim, .eps = 1e-6f, .out = out.data()});
    const auto got = out.values();
    const auto want = normalised(x.data(), weight, 1e-6f);
    for (int64_t i = 0; i < dim; ++i) ASSERT_NEAR(got[i], want[i], tolerance(want[i], dim, unit_roundoff()));
    EXPECT_EQ(got[dim], ActOutput::kPoison);
  }
}

struct Angles {
  std::vector<float> cos, sin;
  Angles(Random& random, int64_t pairs) {
    for (int64_t i = 0; i < pairs; ++i) {
      const float angle = std::uniform_real_distribution<float>(-3, 3)(random);
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
  }
};

void expect_rotated(const float* in, const float* got, const Angles& angles, float unit) {
  for (size_t i = 0; i < angles.cos.size(); ++i) {
    const double a = in[2 * i], b = in[2 * i + 1], c = angles.cos[i], s = angles.sin[i];
    const double slack = 2 * kEpsF32 * (std::fabs(a) + std::fabs(b));
    ASSERT_NEAR(got[2 * i], a * c - b * s, slack + unit * std::fabs(a * c - b * s));
    ASSERT_NEAR(got[2 * i + 1], a * s + b * c, slack + unit * std::fabs(a * s + b * c));
  }
}

TEST_P(Rows, QueryRope) {
  Random random(32);
  for (const auto& [nope, rope] : {std::pair<int64_t, int64_t>{128, 64}, {5, 2}, {16, 300}}) {
    const int64_t heads = 3, head_dim = nope + rope;
    const auto q = random_bf16_values(random, heads * head_dim);
    const Angles angles(random, rope / 2);
    ActOutput out(table().act_dtype, heads * head_dim);
    table().query_rope({.q = q.data(),
                        .num_heads = heads,
                        .qk_nope_head_dim = nope,
                        .qk_rope_head_dim = rope,
                        .cos = angles.cos.data(),
                        .sin = angles.sin.data(),
                        .out = out.data()});
    const auto got = out.values();
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < nope; ++i) ASSERT_EQ(got[h * head_dim + i], q[h * head_dim + i]);
      expect_rotated(&q[h * head_dim + nope], &got[h * head_dim + nope], angles, unit_roundoff());
    }
  }
}

TEST_P(Rows, WriteLatent) {
  Random random(33);
  const int64_t rank = 512, rope = 64;
  const auto kv = random_bf16_values(random, rank + rope);
  const auto weight = random_bf16_values(random, rank);
  const Angles angles(random, rope / 2);
  ActOutput row(table().act_dtype, rank + rope + 1);
  table().write_latent({.kv = kv.data(),
                        .weight = weight.data(),
                        .eps = 1e-6f,
                        .kv_lora_rank = rank,
                        .qk_rope_head_dim = rope,
                        .cos = angles.cos.data(),
                        .sin = angles.sin.data(),
                        .row_dtype = table().act_dtype,
                        .row = row.data()});
  const auto got = row.values();
  const auto want = normalised(kv.data(), weight, 1e-6f);
  for (int64_t i = 0; i < rank; ++i) ASSERT_NEAR(got[i], want[i], tolerance(want[i], rank, unit_roundoff()));
  expect_rotated(&kv[rank], &got[rank], angles, unit_roundoff());
  EXPECT_EQ(got[rank + rope], ActOutput::kPoison);
}

// Latents that are exactly `weight` (all inputs 1, no epsilon), keys that are not rotated: each meets the rounding
// alone.
TEST_P(Rows, WriteLatentRoundsToF8) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::pair<float, uint8_t> cases[] = {
      {0.0f, 0x00},     {1.0f, 0x38},     {-1.5f, 0xBC},           {1.0625f, 0x38},  // ties: to even
      {1.1875f, 0x3A},  {-1.1875f, 0xBA}, {1.0626f, 0x39},         {0x1p-6f, 0x08},  // smallest normal
      {0x1p-9f, 0x01},  {0x1p-10f, 0x00}, {0x1.000002p-10f, 0x01}, {0x3p-10f, 0x02}, {0xFp-10f, 0x08},
      {-0x7p-9f, 0x87}, {448.0f, 0x7E},  // saturates
      {464.0f, 0x7E},   {480.0f, 0x7E},   {-1e30f, 0xFE},          {inf, 0x7E},      {-inf, 0xFE},
  };
  constexpr int64_t kCases = std::size(cases), kRank = kCases + 1, kRope = 2 * kCases + 2;
  std::vector<float> kv(kRank, 1.0f), weight;
  for (const auto& [value, code] : cases) {
    weight.push_back(value);
    kv.insert(kv.end(), {std::clamp(value, -1e38f, 1e38f), 0.0f});  // 0 * inf would be a NaN beside it
  }
  weight.push_back(kNaN);
  kv.insert(kv.end(), {kNaN, 1.0f});
  const std::vector<float> cos(kRope / 2, 1.0f), sin(kRope / 2, 0.0f);
  std::vector<uint8_t> row(kRank + kRope + 1, 0x55);
  table().write_latent({.kv = kv.data(),
                        .weight = weight.data(),
                        .eps = 0,
                        .kv_lora_rank = kRank,
                        .qk_rope_head_dim = kRope,
                        .cos = cos.data(),
                        .sin = sin.data(),
                        .row_dtype = DType::kF8E4M3,
                        .row = row.data()});
  for (int64_t i = 0; i < kCases; ++i) {
    EXPECT_EQ(row[i], cases[i].second) << cases[i].first;
    EXPECT_EQ(row[kRank + 2 * i], cases[i].second) << cases[i].first;
    EXPECT_EQ(row[kRank + 2 * i + 1] & 0x7F, 0);
  }
  EXPECT_EQ(row[kRank - 1] & 0x7F, kE4m3NaN);
  EXPECT_EQ(row[kRank + 2 * kCases] & 0x7F, kE4m3NaN);
  EXPECT_EQ(row.back(), 0x55);
}

// Rows long enough for every chunk: the F8 row is the act row within the two roundings.
TEST_P(Rows, WriteLatentF8AgreesWithTheFormulas) {
  Random random(34);
  const int64_t rank = 512, rope = 64;
  const auto kv = random_bf16_values(random, rank + rope);
  const auto weight = random_bf16_values(random, rank);
  const Angles angles(random, rope / 2);
  std::vector<uint8_t> row(rank + rope);
  table().write_latent({.kv = kv.data(),
                        .weight = weight.data(),
                        .eps = 1e-6f,
                        .kv_lora_rank = rank,
                        .qk_rope_head_dim = rope,
                        .cos = angles.cos.data(),
                        .sin = angles.sin.data(),
                        .row_dtype = DType::kF8E4M3,
                        .row = row.data()});
  std::vector<double> want = normalised(kv.data(), weight, 1e-6f);
  for (int64_t i = 0; i < rope; i += 2) {
    const double a = kv[rank + i], b = kv[rank + i + 1], c = angles.cos[i / 2], s = angles.sin[i / 2];
    want.insert(want.end(), {a * c - b * s, a * s + b * c});
  }
  for (int64_t i = 0; i < rank + rope; ++i) {
    // Half a step: 2^-4 of a normal number, half of 2^-9 below. FP32 errors are far smaller and can only swap
    // neighbours.
    const double half_step = std::max(std::fabs(want[i]) * 0x1p-4, 0x1p-10);
    ASSERT_NEAR(e4m3_to_f32(row[i]), want[i], half_step * 1.001) << "at " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, Rows, ::testing::ValuesIn(available_isas()), isa_test_name);

}  // namespace
}  // namespace hadal
