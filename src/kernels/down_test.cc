// down: leaves, sources, weights and scattered rows, against the reference and against itself in other cuts.
#include <algorithm>
#include <memory>
#include <numeric>

#include "kernels/kernel_test_support.h"

namespace hadal {
namespace {

struct Source {
  std::unique_ptr<TestMatrix> w;
  std::vector<float> h;         // [tokens, cols]
  std::vector<int32_t> y_rows;  // empty: identity
  std::vector<float> weights;   // empty: ones
  int64_t tokens = 0;
};

// `tokens` distinct rows out of `num_rows`, ascending, as routing lists them.
std::vector<int32_t> choose_rows(Random& random, int64_t tokens, int64_t num_rows) {
  std::vector<int32_t> rows(num_rows);
  std::iota(rows.begin(), rows.end(), 0);
  std::shuffle(rows.begin(), rows.end(), random);
  rows.resize(tokens);
  std::sort(rows.begin(), rows.end());
  return rows;
}

// Some experts with a part of the tokens each, then a shared expert with all.
std::vector<Source> random_sources(Random& random, DType dtype, int64_t rows, const std::vector<int64_t>& cols,
                                   int64_t num_tokens) {
  std::vector<Source> sources;
  for (size_t i = 0; i < cols.size(); ++i) {
    const bool shared = i + 1 == cols.size();
    Source s;
    s.tokens = shared ? num_tokens : static_cast<int64_t>(random() % (num_tokens + 1));
    s.w = std::unique_ptr<TestMatrix>(
        new TestMatrix(dtype, rows, cols[i], random_elements(random, dtype, rows * cols[i]),
                       random_scales(random, TestMatrix::blocks(rows) * TestMatrix::blocks(cols[i]))));
    s.h = random_bf16_values(random, s.tokens * cols[i]);
    if (!shared) {
      s.y_rows = choose_rows(random, s.tokens, num_tokens);
      s.weights.resize(s.tokens);
      for (float& weight : s.weights) weight = std::uniform_real_distribution<float>(0.05f, 1)(random);
    }
    sources.push_back(std::move(s));
  }
  return sources;
}

std::vector<float> run_down(const KernelTable& table, const std::vector<Source>& sources, int64_t leaves,
                            int64_t num_tokens, int64_t panel_begin = 0, int64_t panel_end = -1) {
  std::vector<ActBuffer> act;
  for (const Source& s : sources) act.emplace_back(s.h, s.tokens, s.w->w.cols, s.w->w.cols + 1);
  std::vector<DownSource> views;
  for (size_t i = 0; i < sources.size(); ++i) {
    const Source& s = sources[i];
    views.push_back({.w = &s.w->w,
                     .h = act[i].in(table.act_dtype),
                     .ldh = s.w->w.cols + 1,
                     .num_tokens = s.tokens,
                     .y_rows = s.y_rows.empty() ? nullptr : s.y_rows.data(),
                     .weights = s.weights.empty() ? nullptr : s.weights.data()});
  }
  const int64_t rows = sources.front().w->w.rows;
  std::vector<float> y(num_tokens * rows, ActOutput::kPoison);
  const DownArgs args = {.sources = views, .num_leaves = leaves, .num_tokens = num_tokens, .y = y.data(), .ldy = rows};
  AlignedBytes scratch(table.down_scratch_bytes(args));
  std::memset(scratch.data(), 0xFF, table.down_scratch_bytes(args));  // NaN
  table.down(args, panel_begin, panel_end < 0 ? sources.front().w->w.num_panels() : panel_end, scratch.data());
  return y;
}

// The sources as one token alone would see them.
std::vector<Source> only_token(const std::vector<Source>& sources, int64_t token) {
  std::vector<Source> alone;
  for (const Source& s : sources) {
    Source one;
    const TestMatrix& w = *s.w;
    one.w = std::unique_ptr<TestMatrix>(new TestMatrix(w.w.dtype, w.w.rows, w.w.cols, w.source, w.block_scales));
    for (int64_t i = 0; i < s.tokens; ++i) {
      if ((s.y_rows.empty() ? i : s.y_rows[i]) != token) continue;
      one.h.assign(s.h.begin() + i * w.w.cols, s.h.begin() + (i + 1) * w.w.cols);
      one.tokens = 1;
      if (!s.y_rows.empty()) one.y_rows = {0};
      if (!s.weights.empty()) one.weights = {s.weights[i]};
    }
    alone.push_back(std::move(one));
  }
  return alone;
}

class Down : public TableTest {};

TEST_P(Down, AgreesWithReference) {
  Random random(11);
  for (DType dtype : {DType::kF8E4M3, DType::kBF16}) {
    for (int64_t leaves : {1, 2, 4, 8, 16}) {
      // Leaves of 3 columns (pairs cut in two), of 33, inside 128-blocks, and whole blocks.
      for (int64_t leaf_cols : {1, 3, 33, 40, 128}) {
        const int64_t cols = leaves * leaf_cols, num_tokens = 14, rows = 45;
        SCOPED_TRACE(fmt::format("{} leaves {} of {} columns", dtype_name(dtype), leaves, leaf_cols));
        auto sources = random_sources(random, dtype, rows, {cols, cols, cols, 2 * cols}, num_tokens);
        const auto want = run_down(reference(), sources, leaves, num_tokens);
        const auto got = run_down(table(), sources, leaves, num_tokens);
        int64_t terms = 0;
        for (Source& s : sources) {
          terms += s.w->w.cols;
          s.h = absolute(s.h);
          const TestMatrix& w = *s.w;
          auto bytes = w.source;
          const size_t size = dtype_size_bytes(dtype);
          for (size_t i = size - 1; i < bytes.size(); i += size) bytes[i] &= std::byte{0x7F};
          s.w = std::unique_ptr<TestMatrix>(new TestMatrix(dtype, rows, w.w.cols, bytes, w.block_scales));
        }
        const auto magnitude = run_down(reference(), sources, leaves, num_tokens);
        for (size_t i = 0; i < want.size(); ++i) {
          // As in linear_test.cc: one rounding per term, and a product and an addition per leaf and source.
          const float tolerance = kEpsF32 * std::sqrt(static_cast<float>(terms + 8 * leaves)) * magnitude[i];
          ASSERT_NEAR(got[i], want[i], tolerance + 1e-37f) << "at " << i;
        }
      }
    }
  }
}

TEST_P(Down, BitsDoNotDependOnTheOtherTokens) {
  Random random(12);
  for (DType dtype : {DType::kF8E4M3, DType::kBF16}) {
    const int64_t num_tokens = 31, rows = 70;
    const auto sources = random_sources(random, dtype, rows, {144, 144, 144, 144, 288}, num_tokens);
    const auto all = run_down(table(), sources, 16, num_tokens);
    for (int64_t t = 0; t < num_tokens; ++t) {
      const auto alone = run_down(table(), only_token(sources, t), 16, 1);
      ASSERT_EQ(std::memcmp(alone.data(), &all[t * rows], rows * sizeof(float)), 0) << "token " << t;
    }
    auto by_panel = run_down(table(), sources, 16, num_tokens, 0, 1);
    for (int64_t panel = 1; panel < 3; ++panel) {
      const auto part = run_down(table(), sources, 16, num_tokens, panel, panel + 1);
      for (size_t i = 0; i < part.size(); ++i) {
        if (part[i] != ActOutput::kPoison) by_panel[i] = part[i];
      }
    }
    EXPECT_TRUE(same_bits(by_panel, all));
  }
}

TEST_P(Down, MoreTokensThanOneTile) {
  Random random(13);
  const int64_t num_tokens = 1100, rows = 33;
  const auto sources = random_sources(random, DType::kBF16, rows, {16, 16, 16}, num_tokens);
  const auto all = run_down(table(), sources, 16, num_tokens);
  for (int64_t t : {0, 511, 512, 513, 700, 1023, 1024, 1099}) {
    const auto alone = run_down(table(), only_token(sources, t), 16, 1);
    ASSERT_EQ(std::memcmp(alone.data(), &all[t * rows], rows * sizeof(float)), 0) << "token " << t;
  }
}

// What tensor parallelism rests on: two ranks that own half of the columns and half of the leaves each.
TEST_P(Down, HalvesAddUpToTheSameBits) {
  Random random(14);
  const int64_t num_tokens = 9, rows = 64, cols = 512;
  for (DType dtype : {DType::kF8E4M3, DType::kBF16}) {
    const auto whole = random_sources(random, dtype, rows, {cols, cols, cols}, num_tokens);
    const auto want = run_down(table(), whole, 16, num_tokens);
    std::vector<float> sum(want.size(), 0.0f);
    for (int64_t rank = 0; rank < 2; ++rank) {
      std::vector<Source> shard;
      for (const Source& s : whole) {
        const size_t size = dtype_size_bytes(dtype);
        std::vector<std::byte> bytes;
        std::vector<float> scales, h;
        const auto half = [rank](const auto& from, int64_t row_elements, auto& to) {
          for (auto at = from.begin(); at != from.end(); at += row_elements) {
            to.insert(to.end(), at + rank * row_elements / 2, at + (rank + 1) * row_elements / 2);
          }
        };
        half(s.w->source, cols * static_cast<int64_t>(size), bytes);
        half(s.w->block_scales, cols / kScaleBlock, scales);
        half(s.h, cols, h);
        Source part;
        part.w = std::unique_ptr<TestMatrix>(new TestMatrix(dtype, rows, cols / 2, bytes, scales));
        part.h = h;
        part.y_rows = s.y_rows;
        part.weights = s.weights;
        part.tokens = s.tokens;
        shard.push_back(std::move(part));
      }
      const auto y = run_down(table(), shard, 8, num_tokens);
      for (size_t i = 0; i < y.size(); ++i) sum[i] = rank == 0 ? y[i] : sum[i] + y[i];
    }
    EXPECT_TRUE(same_bits(sum, want)) << dtype_name(dtype);
  }
}

HADAL_FOR_EVERY_TABLE(Down);

}  // namespace
}  // namespace hadal
