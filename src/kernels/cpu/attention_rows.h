// What both attention drivers share: scratch areas, packing lanes, reading the cache, expanding keys and values from
// it. Compiled for the baseline like the drivers.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/cpu/drivers.h"

namespace hadal::cpu {

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

constexpr int64_t num_lane_panels(int64_t lanes) { return (lanes + kLanes - 1) / kLanes; }
// Elements of a packed panel of 32 queries.
constexpr int64_t query_panel_elements(int64_t key_cols) { return (key_cols + 1) / 2 * 2 * kLanes; }

// Writes src (cols elements) as columns [k_begin, k_begin + cols) of one lane of a packed panel.
inline void pack_lane(bf16_t* panel, int64_t lane, int64_t k_begin, const bf16_t* src, int64_t cols) {
  int64_t i = 0;
  if (k_begin % 2 == 0) {  // pairs move as one
    for (; i + 2 <= cols; i += 2)
      std::memcpy(panel + ((k_begin + i) / 2 * kLanes + lane) * 2, src + i, 2 * sizeof(bf16_t));
  }
  for (; i < cols; ++i) {
    const int64_t k = k_begin + i;
    panel[(k / 2 * kLanes + lane) * 2 + k % 2] = src[i];
  }
}

// Cache rows lie in blocks, which no hardware prefetcher follows.
inline void prefetch_row(const void* row, int64_t size_bytes) {
  constexpr int64_t kLineBytes = 64;
  for (int64_t at = 0; at < size_bytes; at += kLineBytes) {
    __builtin_prefetch(static_cast<const std::byte*>(row) + at, /*rw=*/0, /*locality=*/2);
  }
}

// The cache's rows of some positions in BF16: where they lie or, of an FP8 cache, decoded.
class CacheRows {
 public:
  // Room for most_rows decoded rows.
  CacheRows(Carver& carver, const PagedKvView* kv, int64_t row_elements, int64_t most_rows)
      : kv_(kv),
        row_elements_(row_elements),
        stride_((row_elements + kLanes - 1) / kLanes * kLanes),
        decoded_(carver.take<bf16_t>(kv->dtype == DType::kF8E4M3 ? most_rows * stride_ : 0)) {}

  // rows[0 .. count) = positions first .. first + count - 1, valid until the next call. code_values: [256] what the
  // codes of an FP8 cache stand for; null: their own values.
  void get(const Primitives& p, const int32_t* block_table, int64_t first, int64_t count, const bf16_t** rows,
           const bf16_t* code_values = nullptr) const {
    if (kv_->dtype != DType::kF8E4M3) {
      for (int64_t t = 0; t < count; ++t) {
        rows[t] = reinterpret_cast<const bf16_t*>(kv_->row(block_table, first + t));
      }
      return;
    }
    constexpr int64_t kAheadRows = 8;
    for (int64_t t = 0; t < count; ++t) {
      if (t + kAheadRows < count) prefetch_row(kv_->row(block_table, first + t + kAheadRows), row_elements_);
      const auto* codes = reinterpret_cast<const uint8_t*>(kv_->row(block_table, first + t));
      bf16_t* row = decoded_ + t * stride_;
      if (code_values == nullptr) {
        p.decode_f8_row(codes, row_elements_, row);
      } else {
        for (int64_t i = 0; i < row_elements_; ++i) row[i] = code_values[codes[i]];
      }
      rows[t] = row;
    }
  }

 private:
  const PagedKvView* kv_;
  int64_t row_elements_, stride_;
  bf16_t* decoded_;  // [most_rows][stride_]
};

// How a latent becomes the input of kv_b.
struct LatentInput {
  const bf16_t* code_values = nullptr;  // as CacheRows::get()
  bool quantised = false;
  QuantiseArgs cast;  // kStatic or kToken
  float scale = 1;    // kStatic
};

// Keys [k_nope, k_pe] and values of one head, expanded from the cache.
class KeyExpander {
 public:
  KeyExpander(Carver& carver, const ExpandedAttentionArgs& args, const LatentInput& input)
      : a_(args),
        input_(input),
        cache_rows_(carver, args.kv, args.kv_lora_rank + args.qk_rope_head_dim, kMaxTokens),
        stride_((args.kv_lora_rank + kLanes - 1) / kLanes * kLanes),
        quantised_(carver.take<bf16_t>(input.quantised ? kMaxTokens * stride_ : 0)) {}

  // Positions first .. first + count - 1 into keys [count][qk_nope + qk_rope] and values [count][v_head_dim].
  void expand(const Primitives& p, int64_t first, int64_t count, bf16_t* keys, bf16_t* values) const;

 private:
  // dst[t][0 .. w.rows) = W x_t for a group of positions.
  void multiply(const Primitives& p, const PackedMatrix& w, const ScaledTokens& x, bf16_t* dst, int64_t ld) const;

  const ExpandedAttentionArgs& a_;
  const LatentInput& input_;
  CacheRows cache_rows_;
  int64_t stride_;
  bf16_t* quantised_;  // [kMaxTokens][stride_]
};

// attend_expanded() for any input of kv_b.
void attend_expanded(const Primitives& p, const ExpandedAttentionArgs& args, const LatentInput& input,
                     std::byte* scratch);
int64_t expanded_scratch_bytes(const ExpandedAttentionArgs& args, const LatentInput& input);

}  // namespace hadal::cpu
