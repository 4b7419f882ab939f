// FP8 attention in plain loops: sums in double, rounded where quant_attention.h rounds.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/ref/reference.h"
#include "tensor/bf16.h"
#include "tensor/fp8.h"

namespace hadal::reference {
namespace {

constexpr int64_t kBlock = kQuantAttentionBlock;
constexpr float kNone = -std::numeric_limits<float>::infinity();

float cast(float value, const QuantScale& scale, float max_finite) {
  return e4m3_to_f32(f32_to_e4m3(value * scale.inv, max_finite));
}

// Element of one position's cache row.
float cached(const PagedKvView& kv, const int32_t* block_table, float cache_scale, int64_t position, int64_t i) {
  const std::byte* row = kv.row(block_table, position);
  if (kv.dtype == DType::kF8E4M3) {
    return round_to_bf16(e4m3_to_f32(reinterpret_cast<const uint8_t*>(row)[i]) * cache_scale);
  }
  HADAL_CHECK(kv.dtype == DType::kF32, "no cache of type {}", dtype_name(kv.dtype));
  return reinterpret_cast<const float*>(row)[i];
}

// sum, as it leaves a product whose inputs have these scales.
float scaled(double sum, const QuantScale& a, const QuantScale& b) {
  return static_cast<float>(sum) * (a.scale * b.scale);
}

float finish(double sum, const std::optional<MatmulScales>& scales) {
  return round_to_bf16(scales ? scaled(sum, scales->in0, scales->in1) : static_cast<float>(sum));
}

// One head of the prefill form. keys: f32 [positions][qk_nope + qk_rope], values: f32 [positions][v_head_dim].
class Expanded {
 public:
  Expanded(const QuantExpandedArgs& args, std::byte* scratch)
      : a_(args),
        b_(args.base),
        key_cols_(b_.qk_nope_head_dim + b_.qk_rope_head_dim),
        num_positions_(b_.first_position + b_.num_queries),
        weights_(reinterpret_cast<double*>(scratch)),
        keys_(reinterpret_cast<float*>(weights_ + num_positions_)),
        values_(keys_ + num_positions_ * key_cols_),
        row_(values_ + num_positions_ * b_.v_head_dim) {}

  static int64_t scratch_bytes(const ExpandedAttentionArgs& a) {
    const int64_t key_cols = a.qk_nope_head_dim + a.qk_rope_head_dim, positions = a.first_position + a.num_queries;
    const int64_t floats = positions * (key_cols + a.v_head_dim) + std::max(a.kv_lora_rank, key_cols);
    return positions * static_cast<int64_t>(sizeof(double)) + floats * static_cast<int64_t>(sizeof(float));
  }

  void run() {
    for (int64_t t = 0; t < num_positions_; ++t) expand(t);
    for (int64_t query = 0; query < b_.num_queries; ++query) {
      weigh(query);
      for (int64_t c = 0; c < b_.v_head_dim; ++c) {
        static_cast<float*>(b_.out)[query * b_.out_stride + c] = output(query, c);
      }
    }
  }

 private:
  void expand(int64_t t) {
    for (int64_t i = 0; i < b_.kv_lora_rank; ++i) row_[i] = cached(*b_.kv, b_.block_table, a_.cache_scale, t, i);
    float scale = a_.latent.scale;
    if (a_.latent_input) {
      HADAL_CHECK(*a_.latent_input != QuantiseKind::kGroup, "kv_b takes one scale a token");
      kTable.quantise_row({.kind = *a_.latent_input,
                           .max_finite = a_.max_finite,
                           .inv = a_.latent.inv,
                           .x = row_,
                           .n = b_.kv_lora_rank,
                           .out = row_,
                           .scales = &scale});
    }
    const auto multiply = [&](const PackedMatrix& w, int64_t n) {
      float sum = static_cast<float>(dot(w, n, row_, 0, w.cols));
      if (a_.latent_input) sum *= scale;
      return round_to_bf16(w.row_scales != nullptr ? sum * w.row_scales[n] : sum);
    };
    float* key = keys_ + t * key_cols_;
    float* value = values_ + t * b_.v_head_dim;
    for (int64_t n = 0; n < b_.qk_nope_head_dim; ++n) key[n] = multiply(*b_.w_uk, n);
    for (int64_t n = 0; n < b_.v_head_dim; ++n) value[n] = multiply(*b_.w_uv, n);
    for (int64_t i = 0; i < b_.qk_rope_head_dim; ++i) {
      key[b_.qk_nope_head_dim + i] = cached(*b_.kv, b_.block_table, a_.cache_scale, t, b_.kv_lora_rank + i);
    }
    if (!a_.sdpa) return;
    for (int64_t i = 0; i < key_cols_; ++i) key[i] = cast(key[i], a_.sdpa->k, a_.max_finite);
    for (int64_t n = 0; n < b_.v_head_dim; ++n) value[n] = cast(value[n], a_.sdpa->v, a_.max_finite);
  }

  // weights_: of the visible positions, as they enter the product with the values.
  void weigh(int64_t query) {
    const float* q = static_cast<const float*>(b_.q) + query * b_.q_stride;
    for (int64_t i = 0; i < key_cols_; ++i) row_[i] = a_.sdpa ? cast(q[i], a_.sdpa->q, a_.max_finite) : q[i];
    const int64_t visible = b_.first_position + query + 1;
    double max = kNone, sum = 0;
    for (int64_t t = 0; t < visible; ++t) {
      double score = 0;
      for (int64_t i = 0; i < key_cols_; ++i) score += static_cast<double>(row_[i]) * keys_[t * key_cols_ + i];
      weights_[t] = a_.sdpa ? scaled(score, a_.sdpa->q, a_.sdpa->k) * b_.scale : score * b_.scale;
      max = std::max(max, weights_[t]);
    }
    for (int64_t t = 0; t < visible; ++t) {
      weights_[t] =
          a_.sdpa ? std::exp(static_cast<float>(weights_[t]) - static_cast<float>(max)) : std::exp(weights_[t] - max);
      sum += weights_[t];
    }
    for (int64_t t = 0; t < visible; ++t) {
      weights_[t] /= sum;
      if (!a_.sdpa) continue;
      weights_[t] = cast(round_to_bf16(static_cast<float>(weights_[t])), a_.sdpa->probabilities, a_.max_finite);
    }
  }

  float output(int64_t query, int64_t c) const {
    double sum = 0;
    for (int64_t t = 0; t <= b_.first_position + query; ++t) sum += weights_[t] * values_[t * b_.v_head_dim + c];
    if (!a_.sdpa) return round_to_bf16(static_cast<float>(sum));
    const float out = round_to_bf16(scaled(sum, a_.sdpa->probabilities, a_.sdpa->v));
    return round_to_bf16(cast(out, a_.sdpa->output, a_.max_finite) * a_.sdpa->output.scale);
  }

  const QuantExpandedArgs& a_;
  const ExpandedAttentionArgs& b_;
  int64_t key_cols_, num_positions_;
  double* weights_;  // [positions]
  float* keys_;
  float* values_;
  float* row_;  // [max(kv_lora_rank, key_cols)]
};

// One head of the decode form.
class Absorbed {
 public:
  Absorbed(const QuantAbsorbedArgs& args, std::byte* scratch)
      : a_(args),
        b_(args.base),
        num_blocks_((b_.num_positions + kBlock - 1) / kBlock),
        key_cols_(b_.kv_lora_rank + b_.qk_rope_head_dim),
        weights_(reinterpret_cast<float*>(scratch)),
        max_(weights_ + b_.num_positions),
        sum_(max_ + num_blocks_),
        factor_(sum_ + num_blocks_),
        query_(factor_ + num_blocks_) {}

  static int64_t scratch_bytes(const AbsorbedAttentionArgs& a) {
    const int64_t num_blocks = (a.num_positions + kBlock - 1) / kBlock;
    const int64_t floats = a.num_positions + 3 * num_blocks + a.kv_lora_rank + a.qk_rope_head_dim;
    return floats * static_cast<int64_t>(sizeof(float));
  }

  void run() {
    for (int64_t head = 0; head < b_.num_heads; ++head) {
      if (a_.magnitudes != nullptr) largest_ = a_.magnitudes + head;
      make_query(head);
      for (int64_t block = 0; block < num_blocks_; ++block) weigh(block);
      join();
      float* out = static_cast<float*>(b_.out) + head * b_.out_stride;
      for (int64_t c = 0; c < b_.kv_lora_rank; ++c) out[c] = output(c);
    }
  }

 private:
  int64_t end_of(int64_t block) const { return std::min((block + 1) * kBlock, b_.num_positions); }
  float row(int64_t position, int64_t i) const { return cached(*b_.kv, b_.block_table, a_.cache_scale, position, i); }
  // One input of a product.
  float input0(float value, const std::optional<MatmulScales>& m) const {
    return m ? cast(value, m->in0, a_.max_finite) : value;
  }
  float input1(float value, const std::optional<MatmulScales>& m) const {
    return m ? cast(value, m->in1, a_.max_finite) : value;
  }
  float product_with_one(float data, const std::optional<MatmulScales>& m) const {
    return input0(1, m) * input1(data, m);
  }
  float batch2block(float data) {
    record(&AbsorbedMagnitudes::batch2block, data);
    return finish(product_with_one(data, a_.batch2block), a_.batch2block);
  }
  // One addend of block2batch.
  float to_batch(float data) {
    record(&AbsorbedMagnitudes::block2batch, data);
    return product_with_one(data, a_.block2batch);
  }
  void record(float AbsorbedMagnitudes::*kind, float value) {
    if (largest_ != nullptr) largest_->*kind = std::max(largest_->*kind, std::fabs(value));
  }

  void make_query(int64_t head) {
    const float* latent = static_cast<const float*>(b_.q_latent) + head * b_.q_latent_stride;
    const float* rope = static_cast<const float*>(b_.q_rope) + head * b_.q_rope_stride;
    for (int64_t i = 0; i < key_cols_; ++i) {
      const float q = i < b_.kv_lora_rank ? latent[i] : rope[i - b_.kv_lora_rank];
      const float spread = batch2block(round_to_bf16(b_.scale * q));
      record(&AbsorbedMagnitudes::query, spread);
      query_[i] = input0(spread, a_.matmul_qk);
    }
  }

  void weigh(int64_t block) {
    max_[block] = kNone;
    for (int64_t t = block * kBlock; t < end_of(block); ++t) {
      double score = 0;
      for (int64_t i = 0; i < key_cols_; ++i) score += static_cast<double>(query_[i]) * input1(row(t, i), a_.matmul_qk);
      weights_[t] = finish(score, a_.matmul_qk);
      max_[block] = std::max(max_[block], weights_[t]);
    }
    float sum = 0;
    for (int64_t t = block * kBlock; t < end_of(block); ++t) {
      const float weight = round_to_bf16(std::exp(round_to_bf16(weights_[t] - max_[block])));
      sum += weight;
      weights_[t] = input0(weight, a_.matmul_av);
    }
    sum_[block] = round_to_bf16(sum);
  }

  void join() {
    const float largest = *std::max_element(max_, max_ + num_blocks_);
    float group_sum = 0;
    for (int64_t b = 0; b < num_blocks_; ++b) {
      factor_[b] = round_to_bf16(std::exp(round_to_bf16(max_[b] - largest)));
      sum_[b] = round_to_bf16(sum_[b] * factor_[b]);
      group_sum += to_batch(sum_[b]);
    }
    const float of_group = batch2block(finish(group_sum, a_.block2batch));
    for (int64_t b = 0; b < num_blocks_; ++b) factor_[b] = round_to_bf16(factor_[b] / std::max(of_group, sum_[b]));
  }

  float output(int64_t c) {
    float sum = 0;
    for (int64_t b = 0; b < num_blocks_; ++b) {
      double part = 0;
      for (int64_t t = b * kBlock; t < end_of(b); ++t) {
        part += static_cast<double>(weights_[t]) * input1(row(t, c), a_.matmul_av);
      }
      sum += to_batch(round_to_bf16(finish(part, a_.matmul_av) * factor_[b]));
    }
    return finish(sum, a_.block2batch);
  }

  const QuantAbsorbedArgs& a_;
  const AbsorbedAttentionArgs& b_;
  int64_t num_blocks_, key_cols_;
  float* weights_;  // [positions]
  float* max_;      // [blocks]
  float* sum_;      // [blocks]
  float* factor_;   // [blocks]
  float* query_;    // [key_cols]
  AbsorbedMagnitudes* largest_ = nullptr;
};

}  // namespace

void attend_quant_expanded(const QuantExpandedArgs& args, std::byte* scratch) { Expanded(args, scratch).run(); }
int64_t quant_expanded_scratch_bytes(const QuantExpandedArgs& args) { return Expanded::scratch_bytes(args.base); }
void attend_quant_absorbed(const QuantAbsorbedArgs& args, std::byte* scratch) { Absorbed(args, scratch).run(); }
int64_t quant_absorbed_scratch_bytes(const QuantAbsorbedArgs& args) { return Absorbed::scratch_bytes(args.base); }

}  // namespace hadal::reference
