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
  int64_t leaf = -1;
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
                     .weights = s.weights.empty() ? nullptr : s.weights.data(),
                     .leaf = s.leaf});
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

// Columns [begin, end) of the sources, as a rank has them.
std::vector<Source> part_of(const std::vector<Source>& whole, int64_t rank, int64_t world_size) {
  std::vector<Source> parts;
  for (const Source& s : whole) {
    const int64_t cols = s.w->w.cols, width = cols / world_size, begin = rank * width;
    Source part;
    part.w = std::make_unique<TestMatrix>(*s.w, 0, s.w->w.rows, begin, begin + width);
    for (int64_t i = 0; i < s.tokens; ++i) {
      const auto row = s.h.begin() + i * cols + begin;
      part.h.insert(part.h.end(), row, row + width);
    }
    part.y_rows = s.y_rows;
    part.weights = s.weights;
    part.tokens = s.tokens;
    part.leaf = s.leaf;
    parts.push_back(std::move(part));
  }
  return parts;
}

// Pairwise, as the leaves.
std::vector<float> join(std::vector<std::vector<float>> sums) {
  for (; sums.size() > 1; sums.resize(sums.size() / 2)) {
    for (size_t i = 0; i < sums.size() / 2; ++i) {
      for (size_t j = 0; j < sums[0].size(); ++j) sums[i][j] = sums[2 * i][j] + sums[2 * i + 1][j];
    }
  }
  return sums[0];
}

// What tensor parallelism rests on: ranks that own equal parts of the columns and of the leaves each. Parts that are
// whole scale blocks, that begin inside one, and that cut pairs of columns in two.
TEST_P(Down, PartsAddUpToTheSameBits) {
  Random random(14);
  const int64_t num_tokens = 15, rows = 70;
  for (DType dtype : kWeightDTypes) {
    for (int64_t leaf_cols : {1, 3, 8, 20, 33, 128}) {
      const int64_t cols = 16 * leaf_cols;
      const auto whole = random_sources(random, dtype, rows, {cols, cols, cols, 2 * cols}, num_tokens);
      const auto want = run_down(table(), whole, 16, num_tokens);
      for (int64_t world_size : {2, 4, 8, 16}) {
        std::vector<std::vector<float>> sums;
        for (int64_t rank = 0; rank < world_size; ++rank) {
          sums.push_back(run_down(table(), part_of(whole, rank, world_size), 16 / world_size, num_tokens));
        }
        EXPECT_TRUE(same_bits(join(std::move(sums)), want))
            << fmt::format("{} leaves of {}, {} ranks", dtype_name(dtype), leaf_cols, world_size);
      }
    }
  }
}

// What expert parallelism rests on: experts belong to leaves as a whole, four to each; the last source is cut. Ranks
// have the experts of their leaves.
TEST_P(Down, WholeSourcesOfALeafAddUpToTheSameBits) {
  Random random(15);
  const int64_t num_tokens = 15, rows = 40, cols = 136, leaves = 4;
  for (DType dtype : {DType::kF8E4M3, DType::kBF16}) {
    auto whole =
        random_sources(random, dtype, rows, {cols, cols, cols, cols, cols, cols, cols, cols, cols}, num_tokens);
    for (size_t i = 0; i < 8; ++i) whole[i].leaf = static_cast<int64_t>(i) / 2;
    const auto want = run_down(table(), whole, leaves, num_tokens);
    // The definition, leaf by leaf.
    std::vector<std::vector<float>> by_leaf;
    for (int64_t leaf = 0; leaf < leaves; ++leaf) {
      std::vector<float> sum(num_tokens * rows, 0.0f);
      for (size_t i = 0; i < whole.size(); ++i) {
        const bool shared = i + 1 == whole.size();
        if (!shared && whole[i].leaf != leaf) continue;
        std::vector<Source> one;
        one.push_back(std::move(part_of(whole, shared ? leaf : 0, shared ? leaves : 1)[i]));
        one[0].leaf = -1;
        const auto product = run_down(reference(), one, 1, num_tokens);
        for (size_t j = 0; j < sum.size(); ++j) sum[j] += product[j];
      }
      by_leaf.push_back(std::move(sum));
    }
    const auto expected = join(std::move(by_leaf));
    const auto exact = run_down(reference(), whole, leaves, num_tokens);
    EXPECT_TRUE(same_bits(exact, expected));
    for (int64_t world_size : {2, 4}) {
      std::vector<std::vector<float>> sums;
      for (int64_t rank = 0; rank < world_size; ++rank) {
        std::vector<Source> mine, cut = part_of(whole, rank, world_size), all = part_of(whole, 0, 1);
        const int64_t leaves_each = leaves / world_size;
        for (size_t i = 0; i < 8; ++i) {
          if (all[i].leaf / leaves_each != rank) continue;
          all[i].leaf -= rank * leaves_each;
          mine.push_back(std::move(all[i]));
        }
        mine.push_back(std::move(cut.back()));
        sums.push_back(run_down(table(), mine, leaves_each, num_tokens));
      }
      EXPECT_TRUE(same_bits(join(std::move(sums)), want)) << dtype_name(dtype) << " " << world_size;
    }
  }
}

HADAL_FOR_EVERY_TABLE(Down);

}  // namespace
}  // namespace hadal
