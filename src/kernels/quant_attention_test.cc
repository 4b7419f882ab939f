// FP8 attention. Inputs of the exact tests are small integers times powers of two, chosen so that every FP32 sum of
// products is exact in any order (scales may be anything: they come after the sums). Then the definition leaves no
// freedom, and all tables, the reference and the transcription have to agree in every bit.
#include "kernels/quant_attention_test_support.h"

namespace hadal {
namespace {

using namespace quant_attention_test;

// Which products of the decode form are quantised: bits 0 to 3.
AbsorbedCase exact_absorbed(Random& random, const Dims& d, int64_t heads, int64_t positions, const CacheKind& kind,
                            unsigned quantised) {
  AbsorbedCase c = {.d = d, .kind = kind};
  c.q = integers(random, heads * d.width(), 8);
  c.rows = integers(random, positions * d.width(), 4, kind.f8 ? 1.0f : 0.5f);
  c.kind.scale = 0.5f;
  c.quant.max_finite = quantised % 2 ? 240 : 448;
  c.quant.base.scale = 0x1p-7f;
  c.quant.matmul_av = {{0.0631f, 16}, {0.2539f, 3.9375f}};
  if (quantised & 1) c.quant.matmul_qk = {{0.0157f, 64}, {0.2559f, 4}};
  if (quantised & 2) c.quant.batch2block = {{0.00418f, 239}, {0.0157f, 63.5f}};
  if (quantised & 4) c.quant.block2batch = {{1.01f, 1}, {0.123f, 8}};
  if (quantised & 4 && quantised & 2) c.quant.batch2block->in1 = {0.515f, 1.9375f};
  return c;
}

class QuantAbsorbed : public TableTest {};

TEST_P(QuantAbsorbed, EqualsTheDefinitionWhereSumsAreExact) {
  Random random(41);
  for (const Dims& d : {Dims{512, 0, 64, 0}, Dims{33, 0, 6, 0}}) {
    for (const int64_t positions : {1, 2, 127, 128, 129, 300, 1100, 2999}) {
      if (positions > 300 && d.kv_lora_rank == 512) continue;  // keep it quick
      for (unsigned quantised = 0; quantised < 8; ++quantised) {
        for (const bool f8 : {false, true}) {
          const int64_t heads = positions > 300 ? 3 : 1 + static_cast<int64_t>(random() % 9);
          SCOPED_TRACE(
              fmt::format("lora {} positions {} quantised {} f8 {}", d.kv_lora_rank, positions, quantised, f8));
          const CacheKind kind = {.f8 = f8, .block_size = quantised % 2 ? 64 : 128};
          const AbsorbedCase c = exact_absorbed(random, d, heads, positions, kind, quantised);
          std::vector<AbsorbedMagnitudes> seen_want(heads), seen_reference(heads), seen(heads);
          const auto want = direct(c, seen_want.data());
          ASSERT_TRUE(same_bits(run(reference(), c, 0, heads, seen_reference.data()), want));
          ASSERT_TRUE(same_bits(run(table(), c, 0, heads, seen.data()), want));
          ASSERT_EQ(seen_reference, seen_want);
          ASSERT_EQ(seen, seen_want);
          float largest = 0;
          for (const float v : want) largest = std::max(largest, std::fabs(v));
          ASSERT_GT(largest, positions > 128 ? 0.05f : 0.25f);  // the case is not all zeros
        }
      }
    }
  }
}

TEST_P(QuantAbsorbed, BitsDependOnHeadAndVisibleRowsOnly) {
  Random random(42);
  const Dims d{64, 0, 8, 0};
  for (const bool f8 : {false, true}) {
    AbsorbedCase c = {.d = d, .q = random_bf16_values(random, 32 * d.width())};
    c.rows = random_bf16_values(random, 700 * d.width());
    c.quant = exact_absorbed(random, d, 1, 1, {}, 7).quant;
    c.quant.base.scale = 0.1f;
    c.kind = {.f8 = f8, .scale = 0.7f, .block_size = 128};
    const auto all = run(table(), c);
    for (const int64_t block_size : {1, 16, 64, 100}) {
      c.kind.block_size = block_size;
      EXPECT_TRUE(same_bits(all, run(table(), c))) << block_size;
    }
    std::vector<float> pieces;
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {1, 9}, {9, 29}, {29, 32}}) {
      const auto part = run(table(), c, begin, end);
      pieces.insert(pieces.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(same_bits(all, pieces));
  }
}

// Nothing quantised. FP32 sums differ in order, so each BF16 rounding may go one step (u = 2^-7, relative) the other
// way: that of a query no (it has no sum); a score, its distance to the maximum, and the maximum of its block and of
// the group, each by u |score|: a weight moves by the factor e^(4 u |score|max) and u for its own rounding; a part, the
// block's and the group's sum, the block's factor, the scaled part and the output by u each.
TEST_P(QuantAbsorbed, AgreesWithReferenceOnRandomNumbers) {
  Random random(43);
  constexpr double kUlp = 0x1p-7;
  for (const Dims& d : {Dims{512, 0, 64, 0}, Dims{33, 0, 6, 0}}) {
    for (const int64_t positions : {1, 100, 129, 700, 3000}) {
      if (positions > 1000 && d.kv_lora_rank == 512) continue;  // keep it quick
      AbsorbedCase c = {.d = d, .q = random_bf16_values(random, 5 * d.width())};
      c.rows = random_bf16_values(random, positions * d.width());
      c.quant.base.scale = 0.5f / std::sqrt(static_cast<float>(d.width()));
      const auto want = run(reference(), c), got = run(table(), c);
      double largest_score = 0;
      for (int64_t h = 0; h < c.heads(); ++h) {
        for (int64_t t = 0; t < positions; ++t) {
          double score = 0;
          for (int64_t i = 0; i < d.width(); ++i) score += c.q[h * d.width() + i] * c.rows[t * d.width() + i];
          largest_score = std::max(largest_score, std::fabs(score) * c.quant.base.scale);
        }
      }
      const double relative = std::expm1(4 * kUlp * largest_score) + 7 * kUlp;
      for (size_t i = 0; i < want.size(); ++i) {
        double value_max = 0;
        for (int64_t t = 0; t < positions; ++t) {
          value_max =
              std::max<double>(value_max, std::fabs(c.rows[t * d.width() + static_cast<int64_t>(i) % d.kv_lora_rank]));
        }
        ASSERT_NEAR(got[i], want[i], relative * value_max) << d.kv_lora_rank << " " << positions << " at " << i;
      }
    }
  }
}

struct ExactExpanded {
  TestMatrix w_uk, w_uv;
  ExpandedCase c;

  ExactExpanded(Random& random, const Dims& d, int64_t positions, DType weights, const CacheKind& kind,
                std::optional<QuantiseKind> latent_input)
      : w_uk(sparse_matrix(random, weights, d.qk_nope, d.kv_lora_rank)),
        w_uv(sparse_matrix(random, weights, d.v_head_dim, d.kv_lora_rank)) {
    c = {.d = d, .w_uk = &w_uk, .w_uv = &w_uv, .kind = kind};
    c.kind.scale = 0.5f;
    c.q = integers(random, positions * d.head_dim(), 4);
    c.rows = integers(random, positions * d.width(), 2, kind.f8 ? 1.0f : 0.5f);
    if (weights == DType::kF8E4M3) {
      for (int64_t n = 0; n < (std::max(d.qk_nope, d.v_head_dim) + 31) / 32 * 32; ++n) {
        c.row_scales.push_back(0.5f + 0.01f * static_cast<float>(random() % 100));
      }
    }
    c.quant.max_finite = kind.f8 ? 240 : 448;
    c.quant.latent_input = latent_input;
    c.quant.latent = {0.2509f, 4};
    c.quant.sdpa = {
        .q = {1.01f, 1}, .k = {0.99f, 1}, .v = {0.1279f, 8}, .probabilities = {0.0308f, 32}, .output = {0.026f, 37.5f}};
    c.quant.base.scale = 0.02f;
  }
};

class QuantExpanded : public TableTest {};

TEST_P(QuantExpanded, EqualsTheDefinitionWhereSumsAreExact) {
  Random random(44);
  for (const Dims& d : {Dims{512, 128, 64, 128}, Dims{64, 32, 8, 48}, Dims{33, 20, 6, 17}}) {
    for (const int64_t positions : {1, 2, 33, 64, 130, 1100}) {
      if (positions > 64 && d.kv_lora_rank != 33) continue;  // keep it quick
      for (const auto latent_input :
           {std::optional<QuantiseKind>(), std::optional(QuantiseKind::kStatic), std::optional(QuantiseKind::kToken)}) {
        for (const DType weights : {DType::kBF16, DType::kF8E4M3}) {
          SCOPED_TRACE(fmt::format("lora {} positions {} weights {} latent {}", d.kv_lora_rank, positions,
                                   dtype_name(weights), latent_input ? static_cast<int>(*latent_input) : -1));
          const CacheKind kind = {.f8 = random() % 2 == 0, .block_size = random() % 2 ? 64 : 128};
          const ExactExpanded e(random, d, positions, weights, kind, latent_input);
          const auto want = direct(e.c);
          ASSERT_TRUE(same_bits(run(reference(), e.c), want));
          ASSERT_TRUE(same_bits(run(table(), e.c), want));
          const auto is_zero = [](float v) { return v == 0; };
          ASSERT_LT(std::count_if(want.begin(), want.end(), is_zero), static_cast<int64_t>(want.size() / 2));
        }
      }
    }
  }
}

TEST_P(QuantExpanded, BitsDependOnPositionAndVisibleRowsOnly) {
  Random random(45);
  const Dims d{64, 32, 8, 48};
  const int64_t positions = 1200;
  const TestMatrix w_uk = random_matrix(random, DType::kF8E4M3, d.qk_nope, d.kv_lora_rank);
  const TestMatrix w_uv = random_matrix(random, DType::kBF16, d.v_head_dim, d.kv_lora_rank);
  for (const bool sdpa : {false, true}) {
    ExpandedCase c = {.d = d, .w_uk = &w_uk, .w_uv = &w_uv, .kind = {.f8 = sdpa, .scale = 0.7f, .block_size = 128}};
    c.q = random_bf16_values(random, positions * d.head_dim());
    c.rows = random_bf16_values(random, positions * d.width());
    c.quant = ExactExpanded(random, d, 1, DType::kBF16, {}, QuantiseKind::kToken).c.quant;
    if (!sdpa) c.quant.sdpa.reset();
    const auto all = run(table(), c);
    c.kind.block_size = 48;
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {1, 40}, {41, 900}, {1000, 100}, {1199, 1}}) {
      const std::vector<float> want(all.begin() + first * d.v_head_dim, all.begin() + (first + count) * d.v_head_dim);
      EXPECT_TRUE(same_bits(want, run(table(), c, first, count))) << first << " + " << count << " sdpa " << sdpa;
    }
  }
}

// Nothing quantised is the BF16 attention.
TEST_P(QuantExpanded, WithoutScalesEqualsAttendExpanded) {
  Random random(46);
  const Dims d{64, 32, 8, 48};
  const TestMatrix w_uk = random_matrix(random, DType::kBF16, d.qk_nope, d.kv_lora_rank);
  const TestMatrix w_uv = random_matrix(random, DType::kBF16, d.v_head_dim, d.kv_lora_rank);
  ExpandedCase c = {.d = d, .w_uk = &w_uk, .w_uv = &w_uv};
  c.q = random_bf16_values(random, 1100 * d.head_dim(), 0.1f);
  c.rows = random_bf16_values(random, 1100 * d.width());
  c.quant.base.scale = 0.1f;
  // The same call by way of the BF16 kernel.
  static const KernelTable* under_test;
  under_test = &table();
  KernelTable plain = table();
  plain.attend_quant_expanded = [](const QuantExpandedArgs& a, std::byte* scratch) {
    under_test->attend_expanded(a.base, scratch);
  };
  plain.quant_expanded_scratch_bytes = [](const QuantExpandedArgs& a) {
    return under_test->expanded_scratch_bytes(a.base);
  };
  EXPECT_TRUE(same_bits(run(table(), c), run(plain, c)));
}

// Keys and values are the same in both, bit for bit (exact sums), so what differs is what the BF16 attention rounds and
// the reference does not: weights, normaliser and output, half a step of 2^-8 each, of sum p |v| <= max |v|.
TEST_P(QuantExpanded, WithoutSdpaAgreesWithReference) {
  Random random(48);
  const Dims d{64, 32, 8, 48};
  for (const auto latent_input : {QuantiseKind::kStatic, QuantiseKind::kToken}) {
    ExactExpanded e(random, d, 1100, DType::kF8E4M3, {.f8 = true}, latent_input);
    e.c.quant.sdpa.reset();
    const auto want = run(reference(), e.c), got = run(table(), e.c);
    // |v| <= 5 entries of W, latents of 1 (2 * 0.5), row scales below 1.5, and the cast's 2^-4.
    constexpr float kValueMax = 5 * 1.5f * 1.0625f;
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 3 * kHalfUlpBf16 * kValueMax) << i;
  }
}

// Keys and values that are codes already (w is a selection, latents and queries lie on the grid), so the exact softmax
// over them is known. A probability errs by its BF16 rounding and its cast, a relative 2^-8 + 2^-4 where the code is
// normal and half a subnormal step of 2^-9 below; the output by its own cast, 2^-4, or half a subnormal step, and two
// BF16 roundings of 2^-8. Scores err by FP32 rounding, which vanishes beside that.
TEST_P(QuantExpanded, StaysWithinTheGridOfTheExactSoftmax) {
  Random random(47);
  const Dims d{64, 32, 8, 48};
  const int64_t positions = 600;
  const auto selection = [&](int64_t rows) {
    std::vector<std::byte> codes(rows * d.kv_lora_rank);
    for (int64_t n = 0; n < rows; ++n) codes[n * d.kv_lora_rank + n] = std::byte{f32_to_e4m3(1)};
    return codes;
  };
  const TestMatrix w_uk(DType::kF8E4M3, d.qk_nope, d.kv_lora_rank, selection(d.qk_nope), {1.0f});
  const TestMatrix w_uv(DType::kF8E4M3, d.v_head_dim, d.kv_lora_rank, selection(d.v_head_dim), {1.0f});
  const auto on_grid = [&](int64_t count) {
    auto values = random_bf16_values(random, count);
    for (float& v : values) v = e4m3_to_f32(f32_to_e4m3(v));
    return values;
  };
  ExpandedCase c = {.d = d, .w_uk = &w_uk, .w_uv = &w_uv, .q = on_grid(positions * d.head_dim())};
  c.rows = on_grid(positions * d.width());
  c.quant.sdpa = {.probabilities = {1.0f / 256, 256}, .output = {1.0f / 32, 32}};
  c.quant.base.scale = 0.3f;
  const auto got = run(table(), c);
  for (int64_t query = 0; query < positions; query += 7) {
    std::vector<double> p(query + 1);
    double sum = 0;
    for (int64_t t = 0; t <= query; ++t) {
      double score = 0;
      for (int64_t i = 0; i < d.head_dim(); ++i) {
        const int64_t col = i < d.qk_nope ? i : d.kv_lora_rank + i - d.qk_nope;
        score += c.q[query * d.head_dim() + i] * c.rows[t * d.width() + col];
      }
      sum += p[t] = std::exp(score * c.quant.base.scale);
    }
    for (int64_t n = 0; n < d.v_head_dim; ++n) {
      double want = 0, tolerance = 0x1p-10 / 32;
      for (int64_t t = 0; t <= query; ++t) {
        const double v = c.rows[t * d.width() + n], exact = p[t] / sum;
        want += exact * v;
        tolerance += std::max(exact * (0x1p-8 + 0x1p-4), 0x1p-10 / 256) * std::fabs(v);
      }
      tolerance += (std::fabs(want) + tolerance) * (0x1p-4 + 2 * 0x1p-8);
      ASSERT_NEAR(got[query * d.v_head_dim + n], want, tolerance) << query << " " << n;
    }
  }
}

HADAL_FOR_EVERY_TABLE(QuantAbsorbed);
HADAL_FOR_EVERY_TABLE(QuantExpanded);

}  // namespace
}  // namespace hadal
