// The decode form: blocks of 128 positions as the peer lays them out. A first pass weighs the keys of every block, a
// second one sums its values once the largest scores of all blocks are known.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/quant_rows.h"

namespace hadal::cpu {
namespace {

constexpr int64_t kBlock = kQuantAttentionBlock;

// A sum of products as it leaves a matmul.
float finish(float sum, const std::optional<MatmulScales>& scales) {
  return round_to_bf16(scales ? sum * (scales->in0.scale * scales->in1.scale) : sum);
}

// One token, up to 32 heads.
class QuantAbsorbed {
 public:
  QuantAbsorbed(Carver& carver, const QuantAbsorbedArgs& args)
      : a_(args),
        lora_(args.base.kv_lora_rank),
        key_cols_(lora_ + args.base.qk_rope_head_dim),
        num_blocks_((args.base.num_positions + kBlock - 1) / kBlock),
        stride_((key_cols_ + kLanes - 1) / kLanes * kLanes),
        cache_rows_(carver, args.base.kv, key_cols_, kBlock),
        cast_rows_(carver.take<bf16_t>(args.matmul_qk || args.matmul_av ? kBlock * stride_ : 0)),
        queries_(carver.take<bf16_t>(query_panel_elements(key_cols_))),
        query_(carver.take<bf16_t>(key_cols_)),
        scores_(carver.take<float>(kBlock * kLanes)),
        weights_(carver.take<bf16_t>(num_blocks_ * kBlock * kLanes)),
        max_(carver.take<float>(num_blocks_ * kLanes)),
        sum_(carver.take<float>(num_blocks_ * kLanes)),
        factor_(carver.take<float>(num_blocks_ * kLanes)),
        part_(carver.take<float>(kLanes * lora_)),
        out_(carver.take<float>(kLanes * lora_)) {}

  void run(const Primitives& p) {
    values_of_codes_ = cache_values(a_.cache_scale);
    pack_queries();
    for (int64_t block = 0; block < num_blocks_; ++block) weigh_block(p, block);
    for (int64_t head = 0; head < a_.base.num_heads; ++head) join_blocks(head);
    std::fill(out_, out_ + kLanes * lora_, 0.0f);
    for (int64_t block = 0; block < num_blocks_; ++block) add_block(p, block);
    for (int64_t head = 0; head < a_.base.num_heads; ++head) {
      bf16_t* out = static_cast<bf16_t*>(a_.base.out) + head * a_.base.out_stride;
      for (int64_t c = 0; c < lora_; ++c) out[c] = f32_to_bf16(finish(out_[head * lora_ + c], a_.block2batch));
    }
  }

 private:
  int64_t keys_of(int64_t block) const { return std::min(kBlock, a_.base.num_positions - block * kBlock); }
  float cast(float value, const QuantScale& scale) const { return cast_value(value, scale.inv, a_.max_finite); }

  void record(int64_t head, float AbsorbedMagnitudes::*kind, float value) const {
    if (a_.magnitudes == nullptr) return;
    float& largest = a_.magnitudes[head].*kind;
    largest = std::max(largest, std::fabs(value));
  }
  void record(int64_t head, float AbsorbedMagnitudes::*kind, const bf16_t* values, int64_t n) const {
    if (a_.magnitudes == nullptr) return;
    for (int64_t i = 0; i < n; ++i) record(head, kind, bf16_to_f32(values[i]));
  }

  // data copied to a block by the product with a one.
  float batch2block(float data) const {
    if (!a_.batch2block) return data;
    return finish(cast(1, a_.batch2block->in0) * cast(data, a_.batch2block->in1), a_.batch2block);
  }

  void pack_queries() {
    std::fill(queries_, queries_ + query_panel_elements(key_cols_), bf16_t{});
    for (int64_t head = 0; head < a_.base.num_heads; ++head) {
      const auto* latent = static_cast<const bf16_t*>(a_.base.q_latent) + head * a_.base.q_latent_stride;
      const auto* rope = static_cast<const bf16_t*>(a_.base.q_rope) + head * a_.base.q_rope_stride;
      for (int64_t i = 0; i < key_cols_; ++i) {
        query_[i] = f32_to_bf16(a_.base.scale * bf16_to_f32(i < lora_ ? latent[i] : rope[i - lora_]));
      }
      record(head, &AbsorbedMagnitudes::batch2block, query_, key_cols_);
      if (a_.batch2block) {
        const float one = cast(1, a_.batch2block->in0);
        cast_row(query_, key_cols_, a_.batch2block->in1.inv, a_.max_finite, query_);
        for (int64_t i = 0; i < key_cols_; ++i) {
          query_[i] = f32_to_bf16(finish(one * bf16_to_f32(query_[i]), a_.batch2block));
        }
      }
      record(head, &AbsorbedMagnitudes::query, query_, key_cols_);
      if (a_.matmul_qk) cast_row(query_, key_cols_, a_.matmul_qk->in0.inv, a_.max_finite, query_);
      pack_lane(queries_, head, 0, query_, key_cols_);
    }
  }

  // The first num_cols columns of a block's rows as input 1 of a matmul.
  void get_rows(const Primitives& p, int64_t block, int64_t num_cols, const std::optional<MatmulScales>& scales) {
    const int64_t count = keys_of(block);
    cache_rows_.get(p, a_.base.block_table, block * kBlock, count, rows_, values_of_codes_.data());
    if (!scales) return;
    for (int64_t t = 0; t < count; ++t) {
      cast_row(rows_[t], num_cols, scales->in1.inv, a_.max_finite, cast_rows_ + t * stride_);
      rows_[t] = cast_rows_ + t * stride_;
    }
  }

  // Weights, max_ and sum_ of one block.
  void weigh_block(const Primitives& p, int64_t block) {
    const int64_t num_heads = a_.base.num_heads, num_keys = keys_of(block);
    get_rows(p, block, key_cols_, a_.matmul_qk);
    multiply_keys(p, queries_, num_heads, rows_, num_keys, key_cols_, scores_);
    float* max = max_ + block * kLanes;
    float* sum = sum_ + block * kLanes;
    std::fill(max, max + kLanes, kNoScore);
    std::fill(sum, sum + kLanes, 0.0f);
    for (int64_t t = 0; t < num_keys; ++t) {
      for (int64_t head = 0; head < num_heads; ++head) {
        float& score = scores_[t * kLanes + head];
        score = finish(score, a_.matmul_qk);
        max[head] = std::max(max[head], score);
      }
    }
    for (int64_t t = 0; t < (num_keys + 1) / 2 * 2; ++t) {
      bf16_t weights[kLanes] = {};
      for (int64_t head = 0; t < num_keys && head < num_heads; ++head) {
        const float below = round_to_bf16(scores_[t * kLanes + head] - max[head]);
        weights[head] = f32_to_bf16(std::exp(below));
        sum[head] += bf16_to_f32(weights[head]);
      }
      if (a_.matmul_av) cast_row(weights, kLanes, a_.matmul_av->in0.inv, a_.max_finite, weights);
      put_weights(weights_of(block), t, weights);
    }
    for (int64_t head = 0; head < num_heads; ++head) sum[head] = round_to_bf16(sum[head]);
  }

  // factor_: what each block's part is multiplied by.
  void join_blocks(int64_t head) {
    float largest = kNoScore, group_sum = 0;
    for (int64_t b = 0; b < num_blocks_; ++b) largest = std::max(largest, max_[b * kLanes + head]);
    for (int64_t b = 0; b < num_blocks_; ++b) {
      const int64_t at = b * kLanes + head;
      factor_[at] = round_to_bf16(std::exp(round_to_bf16(max_[at] - largest)));
      sum_[at] = round_to_bf16(sum_[at] * factor_[at]);
      record(head, &AbsorbedMagnitudes::block2batch, sum_[at]);
      group_sum += to_batch(sum_[at]);
    }
    group_sum = finish(group_sum, a_.block2batch);
    record(head, &AbsorbedMagnitudes::batch2block, group_sum);
    const float of_group = batch2block(group_sum);
    for (int64_t b = 0; b < num_blocks_; ++b) {
      const int64_t at = b * kLanes + head;
      factor_[at] = round_to_bf16(factor_[at] / std::max(of_group, sum_[at]));
    }
  }

  // One addend of block2batch.
  float to_batch(float data) const {
    return a_.block2batch ? cast(1, a_.block2batch->in0) * cast(data, a_.block2batch->in1) : data;
  }

  void add_block(const Primitives& p, int64_t block) {
    const int64_t num_heads = a_.base.num_heads;
    get_rows(p, block, lora_, a_.matmul_av);
    std::fill(part_, part_ + kLanes * lora_, 0.0f);
    add_weighted_values(p, weights_of(block), rows_, keys_of(block), num_heads, lora_, part_, lora_);
    for (int64_t head = 0; head < num_heads; ++head) {
      const float factor = factor_[block * kLanes + head];
      for (int64_t c = 0; c < lora_; ++c) {
        query_[c] = f32_to_bf16(finish(part_[head * lora_ + c], a_.matmul_av) * factor);
      }
      record(head, &AbsorbedMagnitudes::block2batch, query_, lora_);
      float one = 1;
      if (a_.block2batch) {
        one = cast(1, a_.block2batch->in0);
        cast_row(query_, lora_, a_.block2batch->in1.inv, a_.max_finite, query_);
      }
      for (int64_t c = 0; c < lora_; ++c) out_[head * lora_ + c] += one * bf16_to_f32(query_[c]);
    }
  }

  bf16_t* weights_of(int64_t block) const { return weights_ + block * kBlock * kLanes; }

  const QuantAbsorbedArgs& a_;
  int64_t lora_, key_cols_, num_blocks_, stride_;
  CodeValues values_of_codes_;
  CacheRows cache_rows_;
  bf16_t* cast_rows_;           // [128][stride]
  const bf16_t* rows_[kBlock];  // of the block at work
  bf16_t* queries_;             // packed panel
  bf16_t* query_;               // [key_cols] a row at work
  float* scores_;               // [128][32]
  bf16_t* weights_;             // [blocks][64][32][2]
  float* max_;                  // [blocks][32]
  float* sum_;                  // [blocks][32]
  float* factor_;               // [blocks][32]
  float* part_;                 // [32][kv_lora_rank]
  float* out_;                  // [32][kv_lora_rank]
};

}  // namespace

void attend_quant_absorbed(const Primitives& p, const QuantAbsorbedArgs& a, std::byte* scratch) {
  Carver carver(scratch);
  QuantAbsorbed(carver, a).run(p);
}

int64_t quant_absorbed_scratch_bytes(const QuantAbsorbedArgs& a) {
  Carver carver(nullptr);
  const QuantAbsorbed counted(carver, a);
  return carver.used_bytes();
}

}  // namespace hadal::cpu
