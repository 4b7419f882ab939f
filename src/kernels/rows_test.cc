// Norms and rotary embeddings of every table (the reference included) against formulas in double.
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
                        .row = row.data()});
  const auto got = row.values();
  const auto want = normalised(kv.data(), weight, 1e-6f);
  for (int64_t i = 0; i < rank; ++i) ASSERT_NEAR(got[i], want[i], tolerance(want[i], rank, unit_roundoff()));
  expect_rotated(&kv[rank], &got[rank], angles, unit_roundoff());
  EXPECT_EQ(got[rank + rope], ActOutput::kPoison);
}

INSTANTIATE_TEST_SUITE_P(Tables, Rows, ::testing::ValuesIn(available_isas()), isa_test_name);

}  // namespace
}  // namespace hadal
