// The prefill form. All keys and values of a head are expanded and cast, then panels of 32 queries meet them: the
// softmax needs all scores of a query at once.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/quant_rows.h"

namespace hadal::cpu {
namespace {

LatentInput latent_input(const QuantExpandedArgs& a, const CodeValues& values) {
  LatentInput input = {.code_values = values.data(), .quantised = a.latent_input.has_value(), .scale = a.latent.scale};
  if (input.quantised) {
    HADAL_CHECK(*a.latent_input != QuantiseKind::kGroup, "kv_b takes one scale a token");
    input.cast = {.kind = *a.latent_input, .max_finite = a.max_finite, .inv = a.latent.inv};
  }
  return input;
}

// One head, all keys and values expanded and cast, one panel of queries at a time.
class SdpaWorkspace {
 public:
  SdpaWorkspace(Carver& carver, const QuantExpandedArgs& args, const LatentInput& input)
      : a_(args),
        key_cols_(args.base.qk_nope_head_dim + args.base.qk_rope_head_dim),
        value_cols_(args.base.v_head_dim),
        num_positions_(args.base.first_position + args.base.num_queries),
        expander_(carver, args.base, input),
        keys_(carver.take<bf16_t>(num_positions_ * key_cols_)),
        values_(carver.take<bf16_t>(num_positions_ * value_cols_)),
        key_rows_(carver.take<const bf16_t*>(num_positions_)),
        value_rows_(carver.take<const bf16_t*>(num_positions_)),
        scores_(carver.take<float>(num_positions_ * kLanes)),
        weights_(carver.take<bf16_t>((num_positions_ + 1) / 2 * 2 * kLanes)),
        queries_(carver.take<bf16_t>(query_panel_elements(key_cols_))),
        row_(carver.take<bf16_t>(std::max(key_cols_, value_cols_))),
        sums_(carver.take<float>(kLanes * value_cols_)) {}

  void run(const Primitives& p) const {
    expander_.expand(p, 0, num_positions_, keys_, values_);
    for (int64_t t = 0; t < num_positions_; ++t) {
      bf16_t* key = keys_ + t * key_cols_;
      bf16_t* value = values_ + t * value_cols_;
      cast_row(key, key_cols_, a_.sdpa->k.inv, a_.max_finite, key);
      cast_row(value, value_cols_, a_.sdpa->v.inv, a_.max_finite, value);
      key_rows_[t] = key;
      value_rows_[t] = value;
    }
    for (int64_t first = 0; first < a_.base.num_queries; first += kLanes) {
      const int64_t num_lanes = std::min(kLanes, a_.base.num_queries - first);
      pack_queries(first, num_lanes);
      const int64_t num_keys = a_.base.first_position + first + num_lanes;
      multiply_keys(p, queries_, num_lanes, key_rows_, num_keys, key_cols_, scores_);
      weigh(first, num_lanes, num_keys);
      std::fill(sums_, sums_ + kLanes * value_cols_, 0.0f);
      for (int64_t begin = 0; begin < num_keys; begin += kAttentionSegment) {
        add_weighted_values(p, weights_ + begin * kLanes, value_rows_ + begin,
                            std::min(kAttentionSegment, num_keys - begin), num_lanes, value_cols_, sums_, value_cols_);
      }
      for (int64_t lane = 0; lane < num_lanes; ++lane) write_output(lane, first + lane);
    }
  }

 private:
  void pack_queries(int64_t first, int64_t num_lanes) const {
    std::fill(queries_, queries_ + query_panel_elements(key_cols_), bf16_t{});
    for (int64_t lane = 0; lane < num_lanes; ++lane) {
      cast_row(static_cast<const bf16_t*>(a_.base.q) + (first + lane) * a_.base.q_stride, key_cols_, a_.sdpa->q.inv,
               a_.max_finite, row_);
      pack_lane(queries_, lane, 0, row_, key_cols_);
    }
  }

  // Weights of a panel's keys from its scores: each lane's softmax over what it sees, then the cast; else zero.
  void weigh(int64_t first_query, int64_t num_lanes, int64_t num_keys) const {
    const float product_scale = a_.sdpa->q.scale * a_.sdpa->k.scale;
    // The first lane that sees key t; all later ones do.
    const int64_t first_position = a_.base.first_position + first_query;
    const auto first_lane = [&](int64_t t) { return std::max<int64_t>(0, t - first_position); };
    float max[kLanes];
    double sum[kLanes] = {};
    std::fill(max, max + kLanes, kNoScore);
    for (int64_t t = 0; t < num_keys; ++t) {
      for (int64_t l = first_lane(t); l < num_lanes; ++l) {
        float& score = scores_[t * kLanes + l];
        score = (score * product_scale) * a_.base.scale;
        max[l] = std::max(max[l], score);
      }
    }
    for (int64_t t = 0; t < num_keys; ++t) {
      for (int64_t l = first_lane(t); l < num_lanes; ++l) {
        float& score = scores_[t * kLanes + l];
        score = std::exp(score - max[l]);
        sum[l] += score;
      }
    }
    for (int64_t t = 0; t < (num_keys + 1) / 2 * 2; ++t) {
      bf16_t weights[kLanes] = {};
      for (int64_t l = t < num_keys ? first_lane(t) : num_lanes; l < num_lanes; ++l) {
        weights[l] = f32_to_bf16(static_cast<float>(scores_[t * kLanes + l] / sum[l]));
      }
      cast_row(weights, kLanes, a_.sdpa->probabilities.inv, a_.max_finite, weights);
      put_weights(weights_, t, weights);
    }
  }

  void write_output(int64_t lane, int64_t query) const {
    const float product_scale = a_.sdpa->probabilities.scale * a_.sdpa->v.scale;
    const float* sums = sums_ + lane * value_cols_;
    for (int64_t c = 0; c < value_cols_; ++c) row_[c] = f32_to_bf16(sums[c] * product_scale);
    cast_row(row_, value_cols_, a_.sdpa->output.inv, a_.max_finite, row_);
    bf16_t* out = static_cast<bf16_t*>(a_.base.out) + query * a_.base.out_stride;
    for (int64_t c = 0; c < value_cols_; ++c) out[c] = f32_to_bf16(bf16_to_f32(row_[c]) * a_.sdpa->output.scale);
  }

  const QuantExpandedArgs& a_;
  int64_t key_cols_, value_cols_, num_positions_;
  KeyExpander expander_;
  bf16_t* keys_;               // [positions][key_cols] codes
  bf16_t* values_;             // [positions][value_cols] codes
  const bf16_t** key_rows_;    // [positions]
  const bf16_t** value_rows_;  // [positions]
  float* scores_;              // [positions][32]
  bf16_t* weights_;            // [positions / 2][32][2]
  bf16_t* queries_;            // packed panel
  bf16_t* row_;
  float* sums_;  // [32][value_cols]
};

}  // namespace

void attend_quant_expanded(const Primitives& p, const QuantExpandedArgs& a, std::byte* scratch) {
  const CodeValues values = cache_values(a.cache_scale);
  const LatentInput input = latent_input(a, values);
  if (!a.sdpa) return attend_expanded(p, a.base, input, scratch);
  Carver carver(scratch);
  SdpaWorkspace(carver, a, input).run(p);
}

int64_t quant_expanded_scratch_bytes(const QuantExpandedArgs& a) {
  const LatentInput input = {.quantised = a.latent_input.has_value()};
  if (!a.sdpa) return expanded_scratch_bytes(a.base, input);
  Carver carver(nullptr);
  const SdpaWorkspace work(carver, a, input);
  return carver.used_bytes();
}

}  // namespace hadal::cpu
