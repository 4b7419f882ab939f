// Both attention forms of every table: against the reference, needles that pin the paging and the mask down to one
// position, and bit-equality across cuts of heads and queries, whatever lies in cache slots that are not visible, and
// dtypes of the cache that hold the same values.
#include <algorithm>
#include <numeric>
#include <optional>

#include "kernels/kernel_test_support.h"

namespace hadal {
namespace {

struct Dims {
  int64_t kv_lora_rank, qk_nope, qk_rope, v_head_dim;
};

constexpr int64_t kBlockSize = 16;

// What unseen cache slots hold, and the dtype of the cache: the table's act dtype where not given.
struct CacheKind {
  float garbage = kNaN;
  std::optional<DType> dtype;
};

// A cache of one sequence with shuffled blocks; every slot that was never written holds garbage.
class TestCache {
 public:
  TestCache(DType act, const std::vector<float>& rows, int64_t num_positions, int64_t row_elements,
            const CacheKind& kind) {
    const DType dtype = kind.dtype.value_or(act);
    const int64_t blocks = (num_positions + kBlockSize - 1) / kBlockSize;
    table_.resize(blocks);
    std::iota(table_.begin(), table_.end(), 1);  // block 0 stays garbage
    std::shuffle(table_.begin(), table_.end(), Random(99));
    const int64_t element_bytes = static_cast<int64_t>(dtype_size_bytes(dtype));
    bytes_.resize((blocks + 2) * kBlockSize * row_elements * element_bytes);
    view_ = {.dtype = dtype,
             .base = bytes_.data(),
             .block_stride_bytes = kBlockSize * row_elements * element_bytes,
             .block_size = kBlockSize,
             .row_elements = row_elements,
             .row_bytes = row_elements * element_bytes};
    const std::vector<float> noise(row_elements, kind.garbage);
    for (int64_t row = 0; row < (blocks + 2) * kBlockSize; ++row) {
      store(bytes_.data() + row * view_.row_bytes, noise.data());
    }
    for (int64_t t = 0; t < num_positions; ++t) {
      store(view_.row(table_.data(), t), rows.data() + t * row_elements);
    }
  }
  const PagedKvView& view() const { return view_; }
  const int32_t* table() const { return table_.data(); }

 private:
  void store(std::byte* to, const float* values) {
    if (view_.dtype == DType::kF8E4M3) {
      for (int64_t i = 0; i < view_.row_elements; ++i) to[i] = std::byte{f32_to_e4m3(values[i])};
      return;
    }
    const ActBuffer act_values({values, values + view_.row_elements}, 1, view_.row_elements, view_.row_elements);
    std::memcpy(to, act_values.in(view_.dtype), view_.row_bytes);
  }

  std::vector<std::byte> bytes_;
  std::vector<int32_t> table_;
  PagedKvView view_;
};

std::vector<float> run_absorbed(const KernelTable& table, const Dims& d, const std::vector<float>& q_latent,
                                const std::vector<float>& q_rope, int64_t head_begin, int64_t head_end,
                                const std::vector<float>& rows, int64_t num_positions, float scale,
                                const CacheKind& kind = {}) {
  const int64_t heads = head_end - head_begin, stride = d.kv_lora_rank + 2, rope_stride = d.qk_rope + 5;
  const auto slice = [&](const std::vector<float>& q, int64_t cols) {
    return std::vector<float>(q.begin() + head_begin * cols, q.begin() + head_end * cols);
  };
  const ActBuffer latent(slice(q_latent, d.kv_lora_rank), heads, d.kv_lora_rank, stride);
  const ActBuffer rope(slice(q_rope, d.qk_rope), heads, d.qk_rope, rope_stride);
  const TestCache cache(table.act_dtype, rows, num_positions, d.kv_lora_rank + d.qk_rope, kind);
  ActOutput out(table.act_dtype, heads * d.kv_lora_rank);
  const AbsorbedAttentionArgs args = {.q_latent = latent.in(table.act_dtype),
                                      .q_latent_stride = stride,
                                      .q_rope = rope.in(table.act_dtype),
                                      .q_rope_stride = rope_stride,
                                      .num_heads = heads,
                                      .kv_lora_rank = d.kv_lora_rank,
                                      .qk_rope_head_dim = d.qk_rope,
                                      .scale = scale,
                                      .kv = &cache.view(),
                                      .block_table = cache.table(),
                                      .num_positions = num_positions,
                                      .out = out.data(),
                                      .out_stride = d.kv_lora_rank};
  const int64_t scratch_bytes = absorbed_scratch_bytes(table, args);
  AlignedBytes scratch(scratch_bytes);
  std::memset(scratch.data(), 0xFF, scratch_bytes);
  attend_absorbed(table, args, scratch.data());
  return out.values();
}

// Queries first .. first + count - 1 of `q` ([all queries, nope + rope]).
std::vector<float> run_expanded(const KernelTable& table, const Dims& d, const TestMatrix& w_uk, const TestMatrix& w_uv,
                                const std::vector<float>& q, int64_t first, int64_t count,
                                const std::vector<float>& rows, float scale, const CacheKind& kind = {}) {
  const int64_t head_dim = d.qk_nope + d.qk_rope, stride = 2 * head_dim + 1, out_stride = d.v_head_dim + 3;
  const ActBuffer act({q.begin() + first * head_dim, q.begin() + (first + count) * head_dim}, count, head_dim, stride);
  const TestCache cache(table.act_dtype, rows, first + count, d.kv_lora_rank + d.qk_rope, kind);
  ActOutput out(table.act_dtype, count * out_stride);
  const ExpandedAttentionArgs args = {.q = act.in(table.act_dtype),
                                      .q_stride = stride,
                                      .num_queries = count,
                                      .first_position = first,
                                      .kv_lora_rank = d.kv_lora_rank,
                                      .qk_nope_head_dim = d.qk_nope,
                                      .qk_rope_head_dim = d.qk_rope,
                                      .v_head_dim = d.v_head_dim,
                                      .w_uk = &w_uk.w,
                                      .w_uv = &w_uv.w,
                                      .scale = scale,
                                      .kv = &cache.view(),
                                      .block_table = cache.table(),
                                      .out = out.data(),
                                      .out_stride = out_stride};
  const int64_t scratch_bytes = table.expanded_scratch_bytes(args);
  AlignedBytes scratch(scratch_bytes);
  std::memset(scratch.data(), 0xFF, scratch_bytes);
  table.attend_expanded(args, scratch.data());
  const auto padded = out.values();
  if (table.attend_expanded_part != nullptr) {
    ActOutput in_parts(table.act_dtype, count * out_stride);
    ExpandedAttentionArgs part = args;
    part.out = in_parts.data();
    std::memset(scratch.data(), 0xFF, scratch_bytes);
    const int64_t segments = num_attention_segments(first + count);
    for (int64_t begin = 0, end = 1; begin < segments; begin = end, end = std::min(2 * end + 1, segments)) {
      table.attend_expanded_part(part, begin, end, scratch.data());
    }
    EXPECT_TRUE(same_bits(in_parts.values(), padded)) << "in parts of 1, 2, 4, ... segments";
  }
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.insert(values.end(), padded.begin() + i * out_stride, padded.begin() + i * out_stride + d.v_head_dim);
    for (int64_t c = d.v_head_dim; c < out_stride; ++c) EXPECT_EQ(padded[i * out_stride + c], ActOutput::kPoison);
  }
  return values;
}

class Absorbed : public TableTest {};

// Rounding the weights p to BF16 changes numerator and normaliser by at most u = 2^-8 of sum p|v| each, the output's
// own rounding by u |out|. FP32 score errors (1e-6) vanish beside that.
TEST_P(Absorbed, AgreesWithReference) {
  Random random(21);
  for (const Dims& d : {Dims{512, 0, 64, 0}, Dims{33, 0, 6, 0}, Dims{40, 0, 8, 0}, Dims{1, 0, 2, 0}}) {
    for (int64_t heads : {1, 5, 16, 32}) {
      for (int64_t positions : {1, 2, 17, 100, 1024, 1025, 2060}) {
        if (positions > 1000 && (heads == 16) != (d.kv_lora_rank == 40)) continue;  // keep it quick
        SCOPED_TRACE(fmt::format("lora {} heads {} positions {}", d.kv_lora_rank, heads, positions));
        const auto q_latent = random_bf16_values(random, heads * d.kv_lora_rank);
        const auto q_rope = random_bf16_values(random, heads * d.qk_rope);
        const auto rows = random_bf16_values(random, positions * (d.kv_lora_rank + d.qk_rope));
        const float scale = 2.0f / std::sqrt(static_cast<float>(d.kv_lora_rank + d.qk_rope));
        const auto run = [&](const KernelTable& table) {
          return run_absorbed(table, d, q_latent, q_rope, 0, heads, rows, positions, scale);
        };
        const auto want = run(reference());
        const auto got = run(table());
        for (size_t i = 0; i < want.size(); ++i) {
          // sum p|v| <= sqrt(sum p v^2) <= max|v|; values are standard normal, below 4.5 here.
          ASSERT_NEAR(got[i], want[i], kHalfUlpBf16 * (4.5f + 2 * std::fabs(want[i]))) << "at " << i;
        }
      }
    }
  }
}

// One position's score towers over all others, so the output is that row's latent itself, to the bit.
TEST_P(Absorbed, FindsTheNeedle) {
  Random random(22);
  const Dims d{36, 0, 4, 0};
  const int64_t width = d.kv_lora_rank + d.qk_rope;
  for (int64_t positions : {1, 31, 1024, 1030, 2500}) {
    for (int64_t needle : {int64_t{0}, positions / 2, positions - 1, std::min<int64_t>(positions - 1, 1023)}) {
      auto rows = random_bf16_values(random, positions * width);
      for (int64_t t = 0; t < positions; ++t) rows[t * width + d.kv_lora_rank] = t == needle ? 100.0f : -100.0f;
      const std::vector<float> q_latent(3 * d.kv_lora_rank, 0.0f);
      std::vector<float> q_rope(3 * d.qk_rope, 0.0f);
      for (int64_t h = 0; h < 3; ++h) q_rope[h * d.qk_rope] = 1.0f;
      const auto out = run_absorbed(table(), d, q_latent, q_rope, 0, 3, rows, positions, 1.0f);
      for (int64_t h = 0; h < 3; ++h) {
        for (int64_t i = 0; i < d.kv_lora_rank; ++i) {
          ASSERT_EQ(out[h * d.kv_lora_rank + i], rows[needle * width + i]) << needle << " of " << positions;
        }
      }
    }
  }
}

TEST_P(Absorbed, BitsDependOnHeadAndVisibleRowsOnly) {
  Random random(23);
  const Dims d{64, 0, 8, 0};
  const int64_t heads = 32, positions = 1200;
  const auto q_latent = random_bf16_values(random, heads * d.kv_lora_rank);
  const auto q_rope = random_bf16_values(random, heads * d.qk_rope);
  const auto rows = random_bf16_values(random, positions * (d.kv_lora_rank + d.qk_rope));
  for (int64_t visible : {1, 15, 16, 333, 1024, 1137, 1200}) {
    const auto run = [&](int64_t begin, int64_t end, float garbage) {
      return run_absorbed(table(), d, q_latent, q_rope, begin, end, rows, visible, 0.2f, {.garbage = garbage});
    };
    const auto all = run(0, heads, kNaN);
    EXPECT_TRUE(same_bits(all, run(0, heads, 0.0f)));
    EXPECT_TRUE(same_bits(all, run(0, heads, 1e30f)));
    std::vector<float> pieces;
    for (int64_t begin : {0, 1, 9, 29}) {
      const int64_t end = begin == 0 ? 1 : begin == 1 ? 9 : begin == 9 ? 29 : heads;
      const auto part = run(begin, end, kNaN);
      pieces.insert(pieces.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(same_bits(all, pieces)) << visible;
  }
}

// W c_t for every position, in double.
std::vector<double> expand_all(const TestMatrix& m, const std::vector<float>& rows, int64_t positions, int64_t width) {
  std::vector<double> out;
  for (int64_t t = 0; t < positions; ++t) {
    for (int64_t n = 0; n < m.w.rows; ++n) {
      const float* scales = m.w.scales ? m.w.scales + n / kPanelRows * m.w.num_scale_cols() : nullptr;
      double sum = 0;
      for (int64_t i = 0; i < m.w.cols; ++i) {
        const double scale = scales ? scales[i / kScaleBlock] : 1;
        sum += packed_element(m.w, n, i) * scale * rows[t * width + i];
      }
      out.push_back(sum);
    }
  }
  return out;
}

// Keys are rounded to BF16: a score s = scale * sum q_i k_i moves by independent errors of at most u |q_i k_i| (u =
// 2^-8), that is by less than 4 standard deviations of u / sqrt(3) * scale * |q k|_2. The largest over all pairs.
double score_error(const Dims& d, const std::vector<double>& keys, const std::vector<float>& q, int64_t first,
                   int64_t positions, float scale) {
  double largest = 0;
  for (int64_t query = first; query < positions; ++query) {
    for (int64_t t = 0; t <= query; ++t) {
      double square = 0;
      for (int64_t i = 0; i < d.qk_nope; ++i) {
        square += std::pow(q[query * (d.qk_nope + d.qk_rope) + i] * keys[t * d.qk_nope + i], 2);
      }
      largest = std::max(largest, square);
    }
  }
  return 4 * kHalfUlpBf16 / std::sqrt(3.0) * scale * std::sqrt(largest);
}

class Expanded : public TableTest {};

TEST_P(Expanded, AgreesWithReference) {
  Random random(24);
  for (const Dims& d : {Dims{64, 32, 8, 32}, Dims{33, 20, 6, 17}, Dims{512, 128, 64, 128}}) {
    for (const auto& [first, count] :
         {std::pair<int64_t, int64_t>{0, 1}, {0, 33}, {5, 7}, {100, 40}, {1000, 40}, {1024, 3}, {2049, 2}}) {
      if (d.kv_lora_rank == 512 && first > 5) continue;  // keep it quick
      SCOPED_TRACE(fmt::format("lora {} queries {} + {}", d.kv_lora_rank, first, count));
      const int64_t positions = first + count, head_dim = d.qk_nope + d.qk_rope, width = d.kv_lora_rank + d.qk_rope;
      const TestMatrix w_uk = random_matrix(random, DType::kF8E4M3, d.qk_nope, d.kv_lora_rank);
      const TestMatrix w_uv = random_matrix(random, DType::kBF16, d.v_head_dim, d.kv_lora_rank);
      const auto rows = random_bf16_values(random, positions * width);
      const auto q = random_bf16_values(random, positions * head_dim, 0.1f);
      const float scale = 0.01f;
      const auto want = run_expanded(reference(), d, w_uk, w_uv, q, first, count, rows, scale);
      const auto got = run_expanded(table(), d, w_uk, w_uv, q, first, count, rows, scale);

      const double d_s = score_error(d, expand_all(w_uk, rows, positions, width), q, first, positions, scale);
      const auto values = expand_all(w_uv, rows, positions, width);
      for (int64_t n = 0; n < d.v_head_dim; ++n) {
        double value_max = 0;
        for (int64_t t = 0; t < positions; ++t)
          value_max = std::max(value_max, std::fabs(values[t * d.v_head_dim + n]));
        // A weight moves by the factor e^(2 d_s), normaliser included. Values, weights, normaliser and output are
        // rounded once each: u of sum p|v| <= max|v| each time.
        const double tolerance = (std::expm1(2 * d_s) + 4 * kHalfUlpBf16) * value_max;
        for (int64_t i = 0; i < count; ++i) {
          ASSERT_NEAR(got[i * d.v_head_dim + n], want[i * d.v_head_dim + n], tolerance)
              << "query " << i << " row " << n;
        }
      }
    }
  }
}

// Values are the latents themselves (w_uv is the identity); the needle's key wins wherever it is visible. Queries
// before it find the next best, which is their own position.
TEST_P(Expanded, FindsTheNeedleAndNothingLater) {
  const Dims d{32, 2, 2, 32};
  std::vector<std::byte> identity(32 * 32 * 2, std::byte{0});
  for (int i = 0; i < 32; ++i) {
    const bf16_t one = f32_to_bf16(1.0f);
    std::memcpy(&identity[(i * 32 + i) * 2], &one, 2);
  }
  const TestMatrix w_uv(DType::kBF16, 32, 32, identity, {});
  const TestMatrix w_uk(DType::kBF16, 2, 32, std::vector<std::byte>(2 * 32 * 2), {});
  Random random(25);
  const int64_t positions = 1100, width = d.kv_lora_rank + d.qk_rope;
  for (int64_t needle : {0, 700, 1023, 1024, 1060, 1099}) {
    auto rows = random_bf16_values(random, positions * width);
    for (int64_t t = 0; t < positions; ++t) {
      // BF16-exact and rising: the own position scores 256 above the one before.
      rows[t * width + d.kv_lora_rank] = t == needle ? 127.0f : static_cast<float>(t / 16);
      rows[t * width + d.kv_lora_rank + 1] = t == needle ? 127.0f : static_cast<float>(t % 16);
    }
    std::vector<float> q;
    for (int64_t t = 0; t < positions; ++t) q.insert(q.end(), {0.0f, 0.0f, 4096.0f, 256.0f});
    const int64_t first = 990;
    const auto out = run_expanded(table(), d, w_uk, w_uv, q, first, positions - first, rows, 1.0f);
    for (int64_t t = first; t < positions; ++t) {
      const int64_t found = needle <= t ? needle : t;
      for (int64_t i = 0; i < 32; ++i) {
        ASSERT_EQ(out[(t - first) * 32 + i], rows[found * width + i]) << "query " << t << " needle " << needle;
      }
    }
  }
}

TEST_P(Expanded, BitsDoNotDependOnChunking) {
  Random random(26);
  const Dims d{64, 32, 8, 48};
  const int64_t positions = 1090;
  const TestMatrix w_uk = random_matrix(random, DType::kF8E4M3, d.qk_nope, d.kv_lora_rank);
  const TestMatrix w_uv = random_matrix(random, DType::kF8E4M3, d.v_head_dim, d.kv_lora_rank);
  const auto rows = random_bf16_values(random, positions * (d.kv_lora_rank + d.qk_rope));
  const auto q = random_bf16_values(random, positions * (d.qk_nope + d.qk_rope), 0.3f);
  const auto run = [&](int64_t first, int64_t count, float garbage) {
    return run_expanded(table(), d, w_uk, w_uv, q, first, count, rows, 0.05f, {.garbage = garbage});
  };
  const auto all = run(0, positions, kNaN);
  EXPECT_TRUE(same_bits(all, run(0, positions, 0.0f)));
  for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{0, 1, 2, 35, 256, 700, 1023, 1025, 1090},
                                           {0, 512, 1024, 1090},
                                           {0, 33, 66, 990, 1000, 1024, 1031, 1089, 1090}}) {
    std::vector<float> pieces;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      const auto part = run(cuts[i], cuts[i + 1] - cuts[i], i % 2 == 0 ? kNaN : 1e30f);
      pieces.insert(pieces.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(same_bits(all, pieces));
  }
}

// The reference included.
class F8Cache : public TableTest {
 protected:
  // Every finite code, of which small and large ones are rare in real rows.
  static std::vector<float> random_f8_values(Random& random, int64_t count) {
    std::vector<float> values;
    for (const std::byte code : random_elements(random, DType::kF8E4M3, count)) {
      values.push_back(e4m3_to_f32(static_cast<uint8_t>(code)));
    }
    return values;
  }
};

TEST_P(F8Cache, AbsorbedEqualsRowsOfTheSameValues) {
  Random random(27);
  for (const Dims& d : {Dims{512, 0, 64, 0}, Dims{33, 0, 6, 0}, Dims{1, 0, 2, 0}}) {
    for (const int64_t heads : {1, 5, 32}) {
      for (const int64_t positions : {1, 18, 1024, 1025, 2060}) {
        if (positions > 1000 && (heads == 5) != (d.kv_lora_rank == 33)) continue;  // keep it quick
        SCOPED_TRACE(fmt::format("lora {} heads {} positions {}", d.kv_lora_rank, heads, positions));
        const auto q_latent = random_bf16_values(random, heads * d.kv_lora_rank, 0.01f);
        const auto q_rope = random_bf16_values(random, heads * d.qk_rope, 0.01f);
        const auto rows = random_f8_values(random, positions * (d.kv_lora_rank + d.qk_rope));
        const auto run = [&](const CacheKind& kind) {
          return run_absorbed(table(), d, q_latent, q_rope, 0, heads, rows, positions, 0.05f, kind);
        };
        const auto want = run({});
        EXPECT_TRUE(same_bits(want, run({.garbage = kNaN, .dtype = DType::kF8E4M3})));
        EXPECT_TRUE(same_bits(want, run({.garbage = -448.0f, .dtype = DType::kF8E4M3})));
      }
    }
  }
}

TEST_P(F8Cache, ExpandedEqualsRowsOfTheSameValues) {
  Random random(28);
  for (const Dims& d : {Dims{64, 32, 8, 48}, Dims{33, 20, 6, 17}}) {
    const TestMatrix w_uk = random_matrix(random, DType::kBF16, d.qk_nope, d.kv_lora_rank);
    const TestMatrix w_uv = random_matrix(random, DType::kBF16, d.v_head_dim, d.kv_lora_rank);
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {0, 33}, {100, 40}, {1000, 40}, {2049, 2}}) {
      SCOPED_TRACE(fmt::format("lora {} queries {} + {}", d.kv_lora_rank, first, count));
      const auto rows = random_f8_values(random, (first + count) * (d.kv_lora_rank + d.qk_rope));
      const auto q = random_bf16_values(random, (first + count) * (d.qk_nope + d.qk_rope), 0.01f);
      const auto run = [&](const CacheKind& kind) {
        return run_expanded(table(), d, w_uk, w_uv, q, first, count, rows, 0.05f, kind);
      };
      const auto want = run({});
      EXPECT_TRUE(same_bits(want, run({.garbage = kNaN, .dtype = DType::kF8E4M3})));
      EXPECT_TRUE(same_bits(want, run({.garbage = -448.0f, .dtype = DType::kF8E4M3})));
    }
  }
}

// A single visible position is the answer itself, so it shows every code's value: exact, and NaN where the code is one.
TEST_P(F8Cache, EveryCodeIsDecodedExactly) {
  const Dims d{256, 0, 2, 0};
  std::vector<float> row;
  for (int code = 0; code < 256; ++code) row.push_back(e4m3_to_f32(static_cast<uint8_t>(code)));
  row.insert(row.end(), {1.0f, 1.0f});
  for (float& value : row) value = std::isnan(value) ? 0.0f : value;
  const std::vector<float> q_latent(d.kv_lora_rank, 0.0f), q_rope(d.qk_rope, 1.0f);
  const CacheKind f8 = {.dtype = DType::kF8E4M3};
  const auto out = run_absorbed(table(), d, q_latent, q_rope, 0, 1, row, 1, 1.0f, f8);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(out[i], row[i]) << "code " << i;
  for (const int code : {0x7F, 0xFF}) {
    auto with_nan = row;
    with_nan[code] = kNaN;
    EXPECT_TRUE(std::isnan(run_absorbed(table(), d, q_latent, q_rope, 0, 1, with_nan, 1, 1.0f, f8)[code]));
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, F8Cache, ::testing::ValuesIn(available_isas()), isa_test_name);

HADAL_FOR_EVERY_TABLE(Absorbed);
HADAL_FOR_EVERY_TABLE(Expanded);

}  // namespace
}  // namespace hadal
