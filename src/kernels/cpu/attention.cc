// Both forms of MLA are one algorithm on panels of 32 lanes. A lane is a head (absorbed form: all heads share the
// cached rows as keys and, up to kv_lora_rank, as values) or a query token (expanded form, one head). The queries of a
// panel are packed like a weight panel, so that scores are the linear kernel with keys as tokens. A segment of up to
// kAttentionSegment keys is weighed with its exact maximum, then joined with what came before. Probabilities are
// rounded to BF16 for the value product, and the normaliser sums the rounded ones, so that they add up to one.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/attention_rows.h"

namespace hadal::cpu {
namespace {

// What a panel of 32 lanes has seen so far: unnormalised values relative to the largest score.
struct PanelState {
  float* max;     // [32]
  float* sum;     // [32] normaliser
  float* values;  // [32][value_cols]
};

PanelState take_state(Carver& carver, int64_t value_cols) {
  return {carver.take<float>(kLanes), carver.take<float>(kLanes), carver.take<float>(kLanes * value_cols)};
}

// What one panel needs for one segment.
struct SegmentWorkspace {
  int64_t key_cols, value_cols;
  bool keys_scattered = false;
  float* scores;              // [segment][32]
  bf16_t* weights;            // [segment / 2][32][2]
  const bf16_t** key_rows;    // [segment]
  const bf16_t** value_rows;  // [segment]

  SegmentWorkspace(Carver& carver, int64_t segment, int64_t key_cols_in, int64_t value_cols_in)
      : key_cols(key_cols_in),
        value_cols(value_cols_in),
        scores(carver.take<float>(segment * kLanes)),
        weights(carver.take<bf16_t>((segment + 1) / 2 * 2 * kLanes)),
        key_rows(carver.take<const bf16_t*>(segment)),
        value_rows(carver.take<const bf16_t*>(segment)) {}

  int64_t panel_elements() const { return query_panel_elements(key_cols); }
};

// Starts reading the keys of the next group.
void prefetch_keys(const SegmentWorkspace& work, int64_t first, int64_t count) {
  for (int64_t t = 0; t < count; ++t) {
    prefetch_row(work.key_rows[first + t], work.key_cols * static_cast<int64_t>(sizeof(bf16_t)));
  }
}

// One segment of num_keys keys for one panel: scores, softmax, values. Overwrites `to`.
void attend_keys(const Primitives& p, const SegmentWorkspace& work, const bf16_t* query_panel, int64_t num_lanes,
                 int64_t num_keys, const int32_t* limits, float scale, const PanelState& to) {
  for (int64_t first = 0; first < num_keys;) {
    const int64_t count = next_group(p, num_keys - first);
    if (work.keys_scattered) prefetch_keys(work, first + count, std::min(count, num_keys - first - count));
    p.bf16.dot({.panel = query_panel,
                .scales = nullptr,
                .k_begin = 0,
                .k_end = work.key_cols,
                .x = work.key_rows + first,
                .num_tokens = count,
                .out = work.scores + first * kLanes,
                .prefetch_bytes = 0,
                .num_rows = num_lanes});
    first += count;
  }
  p.softmax_segment({.scores = work.scores,
                     .num_keys = num_keys,
                     .num_lanes = num_lanes,
                     .limits = limits,
                     .scale = scale,
                     .max = to.max,
                     .sum = to.sum,
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
        std::memcpy(to.values + (lane + l) * work.value_cols + col, out + l * kLanes, cols * sizeof(float));
      }
    }
  }
}

// state = state joined with the next segment, by the online-softmax rule. A lane that saw no key of the segment has
// max -inf there and keeps its state.
void join(const PanelState& state, const PanelState& segment, int64_t num_lanes, int64_t value_cols) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  for (int64_t l = 0; l < num_lanes; ++l) {
    if (segment.max[l] == kNone) continue;
    const float max = std::max(state.max[l], segment.max[l]);
    const float keep = std::exp(state.max[l] - max), add = std::exp(segment.max[l] - max);
    state.max[l] = max;
    state.sum[l] = state.sum[l] * keep + segment.sum[l] * add;
    float* values = state.values + l * value_cols;
    const float* next = segment.values + l * value_cols;
    for (int64_t c = 0; c < value_cols; ++c) values[c] = values[c] * keep + next[c] * add;
  }
}

// Divides a lane by its normaliser and rounds.
void finish_lane(const Primitives& p, const PanelState& state, int64_t lane, int64_t value_cols, bf16_t* out) {
  constexpr int64_t kChunk = 256;
  float chunk[kChunk];
  const float* values = state.values + lane * value_cols;
  for (int64_t begin = 0; begin < value_cols; begin += kChunk) {
    const int64_t n = std::min(kChunk, value_cols - begin);
    for (int64_t c = 0; c < n; ++c) chunk[c] = values[begin + c] / state.sum[lane];
    p.round_row(chunk, n, out + begin);
  }
}

struct AbsorbedWorkspace {
  SegmentWorkspace segment;
  CacheRows cache_rows;
  bf16_t* queries;  // packed panel

  AbsorbedWorkspace(Carver& carver, const AbsorbedAttentionArgs& a)
      : segment(carver, std::min(kAttentionSegment, a.num_positions), a.kv_lora_rank + a.qk_rope_head_dim,
                a.kv_lora_rank),
        cache_rows(carver, a.kv, segment.key_cols, std::min(kAttentionSegment, a.num_positions)),
        queries(carver.take<bf16_t>(segment.panel_elements())) {
    segment.keys_scattered = true;
  }
};

// For all queries of one head, and the keys and values of one segment expanded for it.
struct ExpandedWorkspace {
  int64_t num_panels;
  SegmentWorkspace segment;
  KeyExpander expander;
  bf16_t* queries;     // [num_panels] packed panels
  PanelState state;    // of the first panel, the others follow
  PanelState scratch;  // the segment at work
  bf16_t* keys;        // [segment][qk_nope + qk_rope]
  bf16_t* values;      // [segment][v_head_dim]

  ExpandedWorkspace(Carver& carver, const ExpandedAttentionArgs& a, const LatentInput& input)
      : num_panels(num_lane_panels(a.num_queries)),
        segment(carver, segment_keys(a), a.qk_nope_head_dim + a.qk_rope_head_dim, a.v_head_dim),
        expander(carver, a, input),
        queries(carver.take<bf16_t>(num_panels * segment.panel_elements())),
        state{carver.take<float>(num_panels * kLanes), carver.take<float>(num_panels * kLanes),
              carver.take<float>(num_panels * kLanes * a.v_head_dim)},
        scratch(take_state(carver, a.v_head_dim)),
        keys(carver.take<bf16_t>(segment_keys(a) * (a.qk_nope_head_dim + a.qk_rope_head_dim))),
        values(carver.take<bf16_t>(segment_keys(a) * a.v_head_dim)) {}

  static int64_t segment_keys(const ExpandedAttentionArgs& a) {
    return std::min(kAttentionSegment, a.first_position + a.num_queries);
  }
  bf16_t* query_panel(int64_t panel) const { return queries + panel * segment.panel_elements(); }
  PanelState state_of(int64_t panel) const {
    return {state.max + panel * kLanes, state.sum + panel * kLanes, state.values + panel * kLanes * segment.value_cols};
  }
};

// Fills keys, values and their row pointers for positions segment_begin .. + num_keys - 1.
void expand_segment(const Primitives& p, const ExpandedAttentionArgs& a, const ExpandedWorkspace& work,
                    int64_t segment_begin, int64_t num_keys) {
  work.expander.expand(p, segment_begin, num_keys, work.keys, work.values);
  for (int64_t t = 0; t < num_keys; ++t) {
    work.segment.key_rows[t] = work.keys + t * work.segment.key_cols;
    work.segment.value_rows[t] = work.values + t * a.v_head_dim;
  }
}

}  // namespace

void KeyExpander::multiply(const Primitives& p, const PackedMatrix& w, const ScaledTokens& x, bf16_t* dst,
                           int64_t ld) const {
  alignas(64) float out[kMaxTokens * kLanes];
  const ActScales scales = {.scales = input_.quantised ? x.scales[0] : nullptr};
  for (int64_t panel = 0; panel < w.num_panels(); ++panel) {
    const int64_t rows = std::min(kLanes, w.rows - panel * kLanes);
    if (is_scaled(w, scales)) {
      dot_scaled(p, w, panel, x, scales, 0, w.cols, out);
    } else {
      dot_panel(p, w, panel, x.x, x.num_tokens, out);
    }
    for (int64_t t = 0; t < x.num_tokens; ++t) {
      p.round_row(out + t * kLanes, rows, dst + t * ld + panel * kLanes);
    }
  }
}

void KeyExpander::expand(const Primitives& p, int64_t first, int64_t count, bf16_t* keys, bf16_t* values) const {
  const int64_t key_cols = a_.qk_nope_head_dim + a_.qk_rope_head_dim;
  for (int64_t done = 0; done < count;) {
    const bf16_t* latents[kMaxTokens];
    float scales[kMaxTokens];
    const float* scale_rows[kMaxTokens];
    const int64_t group = next_group(p, count - done);
    cache_rows_.get(p, a_.block_table, first + done, group, latents, input_.code_values);
    for (int64_t t = 0; t < group; ++t) {
      std::copy(latents[t] + a_.kv_lora_rank, latents[t] + a_.kv_lora_rank + a_.qk_rope_head_dim,
                keys + (done + t) * key_cols + a_.qk_nope_head_dim);
      scales[t] = input_.scale;
      scale_rows[t] = scales + t;
      if (!input_.quantised) continue;
      QuantiseArgs cast = input_.cast;
      cast.x = latents[t];
      cast.n = a_.kv_lora_rank;
      cast.out = quantised_ + t * stride_;
      cast.scales = scales + t;
      quantise_row(cast);
      latents[t] = quantised_ + t * stride_;
    }
    const ScaledTokens x = {.x = latents, .scales = scale_rows, .num_tokens = group};
    multiply(p, *a_.w_uk, x, keys + done * key_cols, key_cols);
    multiply(p, *a_.w_uv, x, values + done * a_.v_head_dim, a_.v_head_dim);
    done += group;
  }
}

void attend_absorbed_segment(const Primitives& p, const AbsorbedAttentionArgs& a, int64_t segment, std::byte* partial,
                             std::byte* scratch) {
  Carver carver(scratch), partial_carver(partial);
  const AbsorbedWorkspace work(carver, a);
  const PanelState state = take_state(partial_carver, a.kv_lora_rank);
  std::fill(work.queries, work.queries + work.segment.panel_elements(), bf16_t{});
  for (int64_t h = 0; h < a.num_heads; ++h) {
    pack_lane(work.queries, h, 0, static_cast<const bf16_t*>(a.q_latent) + h * a.q_latent_stride, a.kv_lora_rank);
    pack_lane(work.queries, h, a.kv_lora_rank, static_cast<const bf16_t*>(a.q_rope) + h * a.q_rope_stride,
              a.qk_rope_head_dim);
  }
  const int64_t begin = segment * kAttentionSegment;
  const int64_t num_keys = std::min(kAttentionSegment, a.num_positions - begin);
  work.cache_rows.get(p, a.block_table, begin, num_keys, work.segment.key_rows);
  std::copy(work.segment.key_rows, work.segment.key_rows + num_keys, work.segment.value_rows);
  int32_t limits[kLanes];
  std::fill(limits, limits + kLanes, static_cast<int32_t>(num_keys));
  attend_keys(p, work.segment, work.queries, a.num_heads, num_keys, limits, a.scale, state);
}

void join_absorbed(const AbsorbedAttentionArgs& a, std::byte* state, std::byte* partial) {
  Carver state_carver(state), partial_carver(partial);
  const PanelState to = take_state(state_carver, a.kv_lora_rank);
  join(to, take_state(partial_carver, a.kv_lora_rank), a.num_heads, a.kv_lora_rank);
}

void finish_absorbed(const Primitives& p, const AbsorbedAttentionArgs& a, std::byte* state) {
  Carver carver(state);
  const PanelState from = take_state(carver, a.kv_lora_rank);
  for (int64_t h = 0; h < a.num_heads; ++h) {
    finish_lane(p, from, h, a.kv_lora_rank, static_cast<bf16_t*>(a.out) + h * a.out_stride);
  }
}

int64_t absorbed_partial_bytes(const AbsorbedAttentionArgs& a) {
  Carver carver(nullptr);
  take_state(carver, a.kv_lora_rank);
  return carver.used_bytes();
}

int64_t absorbed_segment_scratch_bytes(const AbsorbedAttentionArgs& a) {
  Carver carver(nullptr);
  const AbsorbedWorkspace work(carver, a);
  return carver.used_bytes();
}

namespace {

void pack_queries(const ExpandedAttentionArgs& a, const ExpandedWorkspace& work) {
  std::fill(work.queries, work.queries + work.num_panels * work.segment.panel_elements(), bf16_t{});
  for (int64_t i = 0; i < a.num_queries; ++i) {
    pack_lane(work.query_panel(i / kLanes), i % kLanes, 0, static_cast<const bf16_t*>(a.q) + i * a.q_stride,
              work.segment.key_cols);
  }
}

// All queries meet the segment of keys that begins at position `begin`.
void attend_expanded_segment(const Primitives& p, const ExpandedAttentionArgs& a, const ExpandedWorkspace& work,
                             int64_t begin) {
  expand_segment(p, a, work, begin, std::min(kAttentionSegment, a.first_position + a.num_queries - begin));
  for (int64_t panel = 0; panel < work.num_panels; ++panel) {
    const int64_t first_query = panel * kLanes;
    const int64_t num_lanes = std::min(kLanes, a.num_queries - first_query);
    // Lanes past the last query do as lane 0 does and are dropped.
    int32_t limits[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {
      const int64_t visible = a.first_position + first_query + (l < num_lanes ? l : 0) + 1 - begin;
      limits[l] = static_cast<int32_t>(std::clamp<int64_t>(visible, 0, kAttentionSegment));
    }
    const int64_t num_keys = limits[num_lanes - 1];
    if (num_keys == 0) continue;
    const PanelState state = work.state_of(panel);
    const PanelState& to = begin == 0 ? state : work.scratch;
    attend_keys(p, work.segment, work.query_panel(panel), num_lanes, num_keys, limits, a.scale, to);
    if (begin > 0) join(state, work.scratch, num_lanes, work.segment.value_cols);
  }
}

void attend_expanded_segments(const Primitives& p, const ExpandedAttentionArgs& a, const LatentInput& input,
                              int64_t segment_begin, int64_t segment_end, std::byte* scratch) {
  Carver carver(scratch);
  const ExpandedWorkspace work(carver, a, input);
  if (segment_begin == 0) pack_queries(a, work);
  for (int64_t segment = segment_begin; segment < segment_end; ++segment) {
    attend_expanded_segment(p, a, work, segment * kAttentionSegment);
  }
  if (segment_end < num_attention_segments(a.first_position + a.num_queries)) return;
  for (int64_t i = 0; i < a.num_queries; ++i) {
    finish_lane(p, work.state_of(i / kLanes), i % kLanes, work.segment.value_cols,
                static_cast<bf16_t*>(a.out) + i * a.out_stride);
  }
}

}  // namespace

void attend_expanded(const Primitives& p, const ExpandedAttentionArgs& a, const LatentInput& input,
                     std::byte* scratch) {
  attend_expanded_segments(p, a, input, 0, num_attention_segments(a.first_position + a.num_queries), scratch);
}

void attend_expanded_part(const Primitives& p, const ExpandedAttentionArgs& a, int64_t segment_begin,
                          int64_t segment_end, std::byte* scratch) {
  attend_expanded_segments(p, a, LatentInput{}, segment_begin, segment_end, scratch);
}

int64_t expanded_scratch_bytes(const ExpandedAttentionArgs& a, const LatentInput& input) {
  Carver carver(nullptr);
  const ExpandedWorkspace work(carver, a, input);
  return carver.used_bytes();
}

void attend_expanded(const Primitives& p, const ExpandedAttentionArgs& a, std::byte* scratch) {
  attend_expanded(p, a, LatentInput{}, scratch);
}

int64_t expanded_scratch_bytes(const ExpandedAttentionArgs& a) { return expanded_scratch_bytes(a, LatentInput{}); }

}  // namespace hadal::cpu
