#include <algorithm>
#include <cstring>

#include "kernels/cpu/drivers.h"

namespace hadal::cpu {
namespace {

// How much is in work at once: leaf sums f32 [panels][tokens][num_leaves][32].
struct TileShape {
  int64_t tokens, panels;
  int64_t token_floats;  // num_leaves * 32

  int64_t panel_floats() const { return tokens * token_floats; }
};

// Many tokens: as many as 2 MiB hold for two panels: few enough for the sums to stay near L2, enough for an expert's
// panel, which is read again for every tile, to serve full token groups. Few tokens: more panels of one expert in a
// row, so that memory is read in longer streams.
TileShape tile_shape(const DownArgs& a) {
  constexpr int64_t kManyFloats = int64_t{1} << 18, kFewFloats = int64_t{1} << 16;
  constexpr int64_t kMinTokens = 64, kMinPanels = 2, kMaxPanels = 16;
  const int64_t token_floats = a.num_leaves * kLanes;
  const int64_t tokens = std::min(a.num_tokens, std::max(kMinTokens, kManyFloats / token_floats));
  const int64_t panels =
      std::clamp<int64_t>(kFewFloats / std::max<int64_t>(1, tokens * token_floats), kMinPanels, kMaxPanels);
  return {.tokens = tokens, .panels = panels, .token_floats = token_floats};
}

// The sums of a tile's first panel for tokens [token_begin, token_end); the next panel's follow panel_floats later.
struct LeafSums {
  float* sums;
  int64_t token_begin, token_end, num_leaves, panel_floats;

  bool holds(int64_t row) const { return row >= token_begin && row < token_end; }
  float* of(int64_t row) const { return sums + (row - token_begin) * num_leaves * kLanes; }
};

// sums[t][leaf][0..31] += weights[t] * (leaf's scaled dot) for one panel.
void add_scaled_leaves(const Primitives& p, const DownSource& s, int64_t panel, const ScaledTokens& tokens,
                       const float* weights, int64_t num_leaves, float* const* sums) {
  alignas(64) float out[kMaxTokens * kLanes];
  const int64_t leaf_cols = s.w->cols / num_leaves;
  for (int64_t leaf = 0; leaf < num_leaves; ++leaf) {
    dot_scaled(p, *s.w, panel, tokens, s.h_scales, leaf * leaf_cols, (leaf + 1) * leaf_cols, out);
    for (int64_t t = 0; t < tokens.num_tokens; ++t) {
      float* sum = sums[t] + leaf * kLanes;
      for (int64_t r = 0; r < kLanes; ++r) sum[r] += weights[t] * out[t * kLanes + r];
    }
  }
}

// Adds those tokens of one source that the sums hold, group by group; a group meets all panels of the tile while its
// activations are in the caches.
void add_source(const Primitives& p, const DownSource& s, int64_t panel_begin, int64_t panel_end, const LeafSums& to) {
  const auto row_of = [&s](int64_t i) -> int64_t { return s.y_rows ? s.y_rows[i] : i; };
  const int64_t first_leaf = std::max<int64_t>(s.leaf, 0), num_leaves = s.leaf >= 0 ? 1 : to.num_leaves;
  int64_t left = 0;
  for (int64_t i = 0; i < s.num_tokens; ++i) left += to.holds(row_of(i)) ? 1 : 0;

  const auto* h = static_cast<const bf16_t*>(s.h);
  for (int64_t i = 0; left > 0;) {
    const bf16_t* x[kMaxTokens];
    const float* scales[kMaxTokens];
    float weights[kMaxTokens];
    float* sums[kMaxTokens];
    const int64_t count = next_group(p, left);
    for (int64_t t = 0; t < count; ++i) {
      if (!to.holds(row_of(i))) continue;
      x[t] = row_origin(*s.w, h + i * s.ldh);
      if (s.h_scales.scales != nullptr) scales[t] = s.h_scales.row(i);
      weights[t] = s.weights ? s.weights[i] : 1.0f;
      sums[t++] = to.of(row_of(i)) + first_leaf * kLanes;
    }
    left -= count;
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      if (is_scaled(*s.w, s.h_scales)) {
        add_scaled_leaves(p, s, panel, {.x = x, .scales = scales, .num_tokens = count}, weights, num_leaves, sums);
      } else {
        primitives_for(p, s.w->dtype)
            .add_leaves({.panel = panel_origin(*s.w, panel),
                         .scales = panel_scales(*s.w, panel),
                         .k_begin = s.w->col_offset,
                         .leaf_cols = s.w->cols / num_leaves,
                         .num_leaves = num_leaves,
                         .x = x,
                         .num_tokens = count,
                         .weights = weights,
                         .sums = sums,
                         .prefetch_bytes = kernel_tuning().prefetch_bytes});
      }
      for (int64_t t = 0; t < count; ++t) sums[t] += to.panel_floats;
    }
  }
}

// Joins the leaves of one token pairwise, in place; the total is leaf 0.
void join_leaves(float* leaves, int64_t num_leaves) {
  for (int64_t width = num_leaves; width > 1; width /= 2) {
    for (int64_t j = 0; j < width / 2; ++j) {
      const float* left = leaves + 2 * j * kLanes;
      float sum[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) sum[r] = left[r] + left[kLanes + r];
      std::memcpy(leaves + j * kLanes, sum, sizeof(sum));
    }
  }
}

// Panels [panel_begin, panel_end) of tokens [token_begin, token_end), at most one tile.
void down_tile(const Primitives& p, const DownArgs& a, int64_t panel_begin, int64_t panel_end, int64_t token_begin,
               int64_t token_end, const TileShape& shape, float* sums) {
  const LeafSums first = {.sums = sums,
                          .token_begin = token_begin,
                          .token_end = token_end,
                          .num_leaves = a.num_leaves,
                          .panel_floats = shape.panel_floats()};
  std::memset(sums, 0, (panel_end - panel_begin) * shape.panel_floats() * sizeof(float));
  for (size_t s = 0; s < a.sources.size(); ++s) {
    if (s + 1 < a.sources.size()) prefetch_panel_start(*a.sources[s + 1].w, panel_begin);
    add_source(p, a.sources[s], panel_begin, panel_end, first);
  }
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    LeafSums done = first;
    done.sums += (panel - panel_begin) * shape.panel_floats();
    const int64_t row0 = panel * kLanes;
    const int64_t rows = std::min(kLanes, a.sources.front().w->rows - row0);
    for (int64_t t = token_begin; t < token_end; ++t) {
      join_leaves(done.of(t), a.num_leaves);
      std::memcpy(a.y + t * a.ldy + row0, done.of(t), rows * sizeof(float));
    }
  }
}

}  // namespace

void down(const Primitives& p, const DownArgs& a, int64_t panel_begin, int64_t panel_end, std::byte* scratch) {
  if (a.sources.empty()) return;
  const TileShape shape = tile_shape(a);
  for (int64_t panel = panel_begin; panel < panel_end; panel += shape.panels) {
    for (int64_t token = 0; token < a.num_tokens; token += shape.tokens) {
      down_tile(p, a, panel, std::min(panel + shape.panels, panel_end), token,
                std::min(token + shape.tokens, a.num_tokens), shape, reinterpret_cast<float*>(scratch));
    }
  }
}

int64_t down_scratch_bytes(const DownArgs& a) {
  const TileShape shape = tile_shape(a);
  return shape.panels * shape.panel_floats() * static_cast<int64_t>(sizeof(float));
}

}  // namespace hadal::cpu
