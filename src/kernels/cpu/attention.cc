// Both forms of MLA are one algorithm on panels of 32 lanes. A lane is a head (absorbed form: all heads share the
// cached rows as keys and, up to kv_lora_rank, as values) or a query token (expanded form, one head). The queries of a
// panel are packed like a weight panel, so that scores are the linear kernel with keys as tokens. A segment of up to
// kAttentionSegment keys is weighed with its exact maximum, then merged into the running result. Probabilities are
// rounded to BF16 for the value product, and the normaliser sums the rounded ones, so that they add up to one.
#include <algorithm>
#include <limits>

#include "kernels/cpu/drivers.h"

namespace hadal::cpu {
namespace {

// Hands out 64-byte aligned pieces of a scratch area; from a null base it only measures.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  T* take(int64_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_bytes_) : nullptr;
    used_bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
  int64_t used_bytes() const { return used_bytes_; }

 private:
  std::byte* base_;
  int64_t used_bytes_ = 0;
};

// What a panel of 32 lanes has seen so far.
struct PanelState {
  float* max = nullptr;     // [32]
  float* sum = nullptr;     // [32]
  float* values = nullptr;  // [32][value_cols]
};

// Pieces that every form needs, for `num_panels` panels of lanes.
struct Workspace {
  int64_t key_cols, value_cols;
  bf16_t* queries;            // [num_panels] packed panels of key_cols
  float *max, *sum, *values;  // PanelState of each panel
  float* scores;              // [segment][32]
  bf16_t* weights;            // [segment / 2][32][2]
  const bf16_t** key_rows;    // [segment]
  const bf16_t** value_rows;  // [segment]

  Workspace(Carver& carver, int64_t num_panels, int64_t num_positions, int64_t key_cols_in, int64_t value_cols_in)
      : key_cols(key_cols_in), value_cols(value_cols_in) {
    const int64_t segment = std::min(kAttentionSegment, num_positions);
    queries = carver.take<bf16_t>(num_panels * panel_elements());
    max = carver.take<float>(num_panels * kLanes);
    sum = carver.take<float>(num_panels * kLanes);
    values = carver.take<float>(num_panels * kLanes * value_cols);
    scores = carver.take<float>(segment * kLanes);
    weights = carver.take<bf16_t>((segment + 1) / 2 * 2 * kLanes);
    key_rows = carver.take<const bf16_t*>(segment);
    value_rows = carver.take<const bf16_t*>(segment);
  }

  int64_t panel_elements() const { return (key_cols + 1) / 2 * 2 * kLanes; }
  bf16_t* query_panel(int64_t panel) const { return queries + panel * panel_elements(); }
  PanelState state(int64_t panel) const {
    return {max + panel * kLanes, sum + panel * kLanes, values + panel * kLanes * value_cols};
  }
  void reset(int64_t num_panels) const {
    std::fill(queries, queries + num_panels * panel_elements(), bf16_t{});
    std::fill(max, max + num_panels * kLanes, -std::numeric_limits<float>::infinity());
    std::fill(sum, sum + num_panels * kLanes, 0.0f);
    std::fill(values, values + num_panels * kLanes * value_cols, 0.0f);
  }
};

constexpr int64_t num_lane_panels(int64_t lanes) { return (lanes + kLanes - 1) / kLanes; }

// Writes src (cols elements) as columns [k_begin, k_begin + cols) of one lane of a packed panel.
void pack_lane(bf16_t* panel, int64_t lane, int64_t k_begin, const bf16_t* src, int64_t cols) {
  for (int64_t i = 0; i < cols; ++i) {
    const int64_t k = k_begin + i;
    panel[(k / 2 * kLanes + lane) * 2 + k % 2] = src[i];
  }
}

// One segment of num_keys keys for one panel: scores, softmax, values, merge.
void attend_segment(const Primitives& p, const Workspace& work, int64_t panel, int64_t num_lanes, int64_t num_keys,
                    const int32_t* limits, float scale) {
  for (int64_t first = 0; first < num_keys;) {
    const int64_t count = next_group(num_keys - first);
    p.bf16.dot({.panel = work.query_panel(panel),
                .scales = nullptr,
                .k_begin = 0,
                .k_end = work.key_cols,
                .x = work.key_rows + first,
                .num_tokens = count,
                .out = work.scores + first * kLanes});
    first += count;
  }
  const PanelState state = work.state(panel);
  alignas(64) float keep[kLanes];
  alignas(64) float add[kLanes];
  p.softmax_segment({.scores = work.scores,
                     .num_keys = num_keys,
                     .limits = limits,
                     .scale = scale,
                     .max = state.max,
                     .sum = state.sum,
                     .keep = keep,
                     .add = add,
                     .weights = work.weights});
  alignas(64) float out[kValueLanes * kLanes];
  for (int64_t col = 0; col < work.value_cols; col += kLanes) {
    const int64_t cols = std::min(kLanes, work.value_cols - col);
    for (int64_t lane = 0; lane < num_lanes; lane += kValueLanes) {
      p.weighted_values({.weights = work.weights,
                         .num_keys = num_keys,
                         .lane_begin = lane,
                         .values = work.value_rows,
                         .col_begin = col,
                         .num_cols = cols,
                         .out = out});
      for (int64_t l = 0; l < std::min(kValueLanes, num_lanes - lane); ++l) {
        float* sum = state.values + (lane + l) * work.value_cols + col;
        for (int64_t c = 0; c < cols; ++c) sum[c] = sum[c] * keep[lane + l] + out[l * kLanes + c] * add[lane + l];
      }
    }
  }
}

// Divides a lane by its normaliser and rounds.
void finish_lane(const Primitives& p, const Workspace& work, int64_t panel, int64_t lane, bf16_t* out) {
  const PanelState state = work.state(panel);
  float* values = state.values + lane * work.value_cols;
  const float normaliser = state.sum[lane];
  for (int64_t c = 0; c < work.value_cols; ++c) values[c] /= normaliser;
  p.round_row(values, work.value_cols, out);
}

const bf16_t* cache_row(const PagedKvView& kv, const int32_t* block_table, int64_t position) {
  return reinterpret_cast<const bf16_t*>(kv.row(block_table, position));
}

Workspace absorbed_workspace(Carver& carver, const AbsorbedAttentionArgs& a) {
  return Workspace(carver, num_lane_panels(a.num_heads), a.num_positions, a.kv_lora_rank + a.qk_rope_head_dim,
                   a.kv_lora_rank);
}

// The common pieces, and the keys and values of one segment expanded for one head.
struct ExpandedWorkspace {
  bf16_t* keys;    // [segment][qk_nope + qk_rope]
  bf16_t* values;  // [segment][v_head_dim]
  Workspace common;

  ExpandedWorkspace(Carver& carver, const ExpandedAttentionArgs& a)
      : keys(carver.take<bf16_t>(segment(a) * (a.qk_nope_head_dim + a.qk_rope_head_dim))),
        values(carver.take<bf16_t>(segment(a) * a.v_head_dim)),
        common(carver, num_lane_panels(a.num_queries), a.first_position + a.num_queries,
               a.qk_nope_head_dim + a.qk_rope_head_dim, a.v_head_dim) {}

  static int64_t segment(const ExpandedAttentionArgs& a) {
    return std::min(kAttentionSegment, a.first_position + a.num_queries);
  }
};

// dst[t][0 .. w.rows) = W latent_t for a group of positions.
void expand(const Primitives& p, const PackedMatrix& w, const bf16_t* const* latents, int64_t count, bf16_t* dst,
            int64_t dst_stride) {
  alignas(64) float out[kMaxTokens * kLanes];
  for (int64_t panel = 0; panel < w.num_panels(); ++panel) {
    const int64_t rows = std::min(kLanes, w.rows - panel * kLanes);
    dot_panel(p, w, panel, latents, count, out);
    for (int64_t t = 0; t < count; ++t) {
      p.round_row(out + t * kLanes, rows, dst + t * dst_stride + panel * kLanes);
    }
  }
}

// Fills keys, values and their row pointers for positions segment_begin .. + num_keys - 1.
void expand_segment(const Primitives& p, const ExpandedAttentionArgs& a, const ExpandedWorkspace& work,
                    int64_t segment_begin, int64_t num_keys) {
  const int64_t key_cols = work.common.key_cols;
  for (int64_t first = 0; first < num_keys;) {
    const bf16_t* latents[kMaxTokens];
    const int64_t count = next_group(num_keys - first);
    for (int64_t t = 0; t < count; ++t) {
      latents[t] = cache_row(*a.kv, a.block_table, segment_begin + first + t);
      bf16_t* key = work.keys + (first + t) * key_cols;
      std::copy(latents[t] + a.kv_lora_rank, latents[t] + a.kv_lora_rank + a.qk_rope_head_dim,
                key + a.qk_nope_head_dim);
      work.common.key_rows[first + t] = key;
      work.common.value_rows[first + t] = work.values + (first + t) * a.v_head_dim;
    }
    expand(p, *a.w_uk, latents, count, work.keys + first * key_cols, key_cols);
    expand(p, *a.w_uv, latents, count, work.values + first * a.v_head_dim, a.v_head_dim);
    first += count;
  }
}

}  // namespace

void attend_absorbed(const Primitives& p, const AbsorbedAttentionArgs& a, std::byte* scratch) {
  Carver carver(scratch);
  const Workspace work = absorbed_workspace(carver, a);
  const int64_t num_panels = num_lane_panels(a.num_heads);
  work.reset(num_panels);
  for (int64_t h = 0; h < a.num_heads; ++h) {
    bf16_t* panel = work.query_panel(h / kLanes);
    pack_lane(panel, h % kLanes, 0, static_cast<const bf16_t*>(a.q_latent) + h * a.q_latent_stride, a.kv_lora_rank);
    pack_lane(panel, h % kLanes, a.kv_lora_rank, static_cast<const bf16_t*>(a.q_rope) + h * a.q_rope_stride,
              a.qk_rope_head_dim);
  }
  for (int64_t begin = 0; begin < a.num_positions; begin += kAttentionSegment) {
    const int64_t num_keys = std::min(kAttentionSegment, a.num_positions - begin);
    for (int64_t t = 0; t < num_keys; ++t) {
      work.key_rows[t] = work.value_rows[t] = cache_row(*a.kv, a.block_table, begin + t);
    }
    int32_t limits[kLanes];
    std::fill(limits, limits + kLanes, static_cast<int32_t>(num_keys));
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      attend_segment(p, work, panel, std::min(kLanes, a.num_heads - panel * kLanes), num_keys, limits, a.scale);
    }
  }
  for (int64_t h = 0; h < a.num_heads; ++h) {
    finish_lane(p, work, h / kLanes, h % kLanes, static_cast<bf16_t*>(a.out) + h * a.out_stride);
  }
}

int64_t absorbed_scratch_bytes(const AbsorbedAttentionArgs& a) {
  Carver carver(nullptr);
  absorbed_workspace(carver, a);
  return carver.used_bytes();
}

void attend_expanded(const Primitives& p, const ExpandedAttentionArgs& a, std::byte* scratch) {
  Carver carver(scratch);
  const ExpandedWorkspace work(carver, a);
  const int64_t num_panels = num_lane_panels(a.num_queries);
  work.common.reset(num_panels);
  for (int64_t i = 0; i < a.num_queries; ++i) {
    pack_lane(work.common.query_panel(i / kLanes), i % kLanes, 0, static_cast<const bf16_t*>(a.q) + i * a.q_stride,
              work.common.key_cols);
  }
  const int64_t num_positions = a.first_position + a.num_queries;
  for (int64_t begin = 0; begin < num_positions; begin += kAttentionSegment) {
    expand_segment(p, a, work, begin, std::min(kAttentionSegment, num_positions - begin));
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const int64_t first_query = panel * kLanes;
      const int64_t num_lanes = std::min(kLanes, a.num_queries - first_query);
      // Lanes past the last query do as lane 0 does and are dropped.
      int32_t limits[kLanes];
      for (int64_t l = 0; l < kLanes; ++l) {
        const int64_t visible = a.first_position + first_query + (l < num_lanes ? l : 0) + 1 - begin;
        limits[l] = static_cast<int32_t>(std::clamp<int64_t>(visible, 0, kAttentionSegment));
      }
      const int64_t num_keys = limits[num_lanes - 1];
      if (num_keys > 0) attend_segment(p, work.common, panel, num_lanes, num_keys, limits, a.scale);
    }
  }
  for (int64_t i = 0; i < a.num_queries; ++i) {
    finish_lane(p, work.common, i / kLanes, i % kLanes, static_cast<bf16_t*>(a.out) + i * a.out_stride);
  }
}

int64_t expanded_scratch_bytes(const ExpandedAttentionArgs& a) {
  Carver carver(nullptr);
  const ExpandedWorkspace work(carver, a);
  return carver.used_bytes();
}

}  // namespace hadal::cpu
