// Cases of the FP8 attention tests: one call's numbers, how to run them on any table, and the definition of
// quant_attention.h transcribed once more, without paging, panels or parallel sums.
#pragma once

#include <algorithm>
#include <numeric>
#include <optional>

#include "kernels/kernel_test_support.h"

namespace hadal::quant_attention_test {

struct Dims {
  int64_t kv_lora_rank, qk_nope, qk_rope, v_head_dim;
  int64_t width() const { return kv_lora_rank + qk_rope; }
  int64_t head_dim() const { return qk_nope + qk_rope; }
};

// How the rows of a sequence are stored.
struct CacheKind {
  bool f8 = false;
  float scale = 1;  // f8: a stored code stands for bf16(code * scale)
  int64_t block_size = 64;
};

// One sequence in shuffled blocks; slots never written hold NaN. Rows are given as codes (f8) or values.
class TestCache {
 public:
  TestCache(DType act, const std::vector<float>& rows, int64_t width, const CacheKind& kind) {
    const DType dtype = kind.f8 ? DType::kF8E4M3 : act;
    const int64_t positions = static_cast<int64_t>(rows.size()) / width;
    const int64_t blocks = (positions + kind.block_size - 1) / kind.block_size;
    const auto row_bytes = static_cast<int64_t>(width * dtype_size_bytes(dtype));
    table_.resize(blocks);
    std::iota(table_.begin(), table_.end(), 1);
    std::shuffle(table_.begin(), table_.end(), Random(7));
    bytes_.assign((blocks + 1) * kind.block_size * row_bytes, std::byte{0x7F});  // NaN in every dtype
    view_ = {.dtype = dtype,
             .base = bytes_.data(),
             .block_stride_bytes = kind.block_size * row_bytes,
             .block_size = kind.block_size,
             .row_elements = width,
             .row_bytes = row_bytes};
    for (int64_t t = 0; t < positions; ++t) {
      std::byte* to = view_.row(table_.data(), t);
      const ActBuffer row({rows.begin() + t * width, rows.begin() + (t + 1) * width}, 1, width, width);
      if (!kind.f8) std::memcpy(to, row.in(act), row_bytes);
      for (int64_t i = 0; kind.f8 && i < width; ++i) to[i] = std::byte{f32_to_e4m3(rows[t * width + i])};
    }
  }
  const PagedKvView& view() const { return view_; }
  const int32_t* table() const { return table_.data(); }

 private:
  std::vector<std::byte> bytes_;
  std::vector<int32_t> table_;
  PagedKvView view_;
};

inline std::vector<float> integers(Random& random, int64_t count, int largest, float unit = 1) {
  std::uniform_int_distribution<int> uniform(-largest, largest);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(uniform(random)) * unit;
  return values;
}

// FP8 with block scales 1, or BF16: five entries of +-1 a row.
inline TestMatrix sparse_matrix(Random& random, DType dtype, int64_t rows, int64_t cols) {
  std::vector<std::byte> bytes(rows * cols * dtype_size_bytes(dtype));
  for (int64_t i = 0; i < 5 * rows; ++i) {
    const int64_t at = i / 5 * cols + static_cast<int64_t>(random() % static_cast<uint64_t>(cols));
    const float value = random() % 2 ? 1.0f : -1.0f;
    const bf16_t narrow = f32_to_bf16(value);
    if (dtype == DType::kBF16) std::memcpy(&bytes[2 * at], &narrow, 2);
    if (dtype == DType::kF8E4M3) bytes[at] = std::byte{f32_to_e4m3(value)};
  }
  return TestMatrix(dtype, rows, cols, bytes,
                    std::vector<float>(TestMatrix::blocks(rows) * TestMatrix::blocks(cols), 1.0f));
}

// Everything of one call except where things lie. q: [heads or queries][kv_lora_rank + qk_rope, or qk_nope + qk_rope].
struct AbsorbedCase {
  Dims d;
  std::vector<float> q, rows;  // rows: codes or values, as `kind` says
  CacheKind kind;
  QuantAbsorbedArgs quant;  // scales, max_finite, base.scale
  int64_t heads() const { return static_cast<int64_t>(q.size()) / d.width(); }
  int64_t positions() const { return static_cast<int64_t>(rows.size()) / d.width(); }
};

inline std::vector<float> run(const KernelTable& table, const AbsorbedCase& c, int64_t head_begin, int64_t head_end,
                              AbsorbedMagnitudes* magnitudes = nullptr) {
  const int64_t heads = head_end - head_begin, stride = c.d.width() + 3;
  const ActBuffer q({c.q.begin() + head_begin * c.d.width(), c.q.begin() + head_end * c.d.width()}, heads, c.d.width(),
                    stride);
  const TestCache cache(table.act_dtype, c.rows, c.d.width(), c.kind);
  ActOutput out(table.act_dtype, heads * c.d.kv_lora_rank);
  QuantAbsorbedArgs args = c.quant;
  args.cache_scale = c.kind.scale;
  args.magnitudes = magnitudes;
  args.base = {.q_latent = q.in(table.act_dtype),
               .q_latent_stride = stride,
               .q_rope = static_cast<const std::byte*>(q.in(table.act_dtype)) +
                         c.d.kv_lora_rank * dtype_size_bytes(table.act_dtype),
               .q_rope_stride = stride,
               .num_heads = heads,
               .kv_lora_rank = c.d.kv_lora_rank,
               .qk_rope_head_dim = c.d.qk_rope,
               .scale = c.quant.base.scale,
               .kv = &cache.view(),
               .block_table = cache.table(),
               .num_positions = c.positions(),
               .out = out.data(),
               .out_stride = c.d.kv_lora_rank};
  const int64_t scratch_bytes = table.quant_absorbed_scratch_bytes(args);
  AlignedBytes scratch(scratch_bytes);
  std::memset(scratch.data(), 0xFF, scratch_bytes);
  table.attend_quant_absorbed(args, scratch.data());
  return out.values();
}
inline std::vector<float> run(const KernelTable& table, const AbsorbedCase& c) { return run(table, c, 0, c.heads()); }

struct ExpandedCase {
  Dims d;
  const TestMatrix *w_uk, *w_uv;
  std::vector<float> row_scales;  // for either matrix, or empty
  std::vector<float> q, rows;     // of all positions
  CacheKind kind;
  QuantExpandedArgs quant;
  int64_t positions() const { return static_cast<int64_t>(rows.size()) / d.width(); }
};

inline std::vector<float> run(const KernelTable& table, const ExpandedCase& c, int64_t first, int64_t count) {
  const int64_t head_dim = c.d.head_dim(), stride = head_dim + 5;
  const ActBuffer q({c.q.begin() + first * head_dim, c.q.begin() + (first + count) * head_dim}, count, head_dim,
                    stride);
  const TestCache cache(table.act_dtype, {c.rows.begin(), c.rows.begin() + (first + count) * c.d.width()}, c.d.width(),
                        c.kind);
  PackedMatrix w_uk = c.w_uk->w, w_uv = c.w_uv->w;
  if (!c.row_scales.empty()) w_uk.row_scales = w_uv.row_scales = c.row_scales.data();
  ActOutput out(table.act_dtype, count * c.d.v_head_dim);
  QuantExpandedArgs args = c.quant;
  args.cache_scale = c.kind.scale;
  args.base = {.q = q.in(table.act_dtype),
               .q_stride = stride,
               .num_queries = count,
               .first_position = first,
               .kv_lora_rank = c.d.kv_lora_rank,
               .qk_nope_head_dim = c.d.qk_nope,
               .qk_rope_head_dim = c.d.qk_rope,
               .v_head_dim = c.d.v_head_dim,
               .w_uk = &w_uk,
               .w_uv = &w_uv,
               .scale = c.quant.base.scale,
               .kv = &cache.view(),
               .block_table = cache.table(),
               .out = out.data(),
               .out_stride = c.d.v_head_dim};
  const int64_t scratch_bytes = table.quant_expanded_scratch_bytes(args);
  AlignedBytes scratch(scratch_bytes);
  std::memset(scratch.data(), 0xFF, scratch_bytes);
  table.attend_quant_expanded(args, scratch.data());
  return out.values();
}
inline std::vector<float> run(const KernelTable& table, const ExpandedCase& c) {
  return run(table, c, 0, c.positions());
}

// The formulas of quant_attention.h, written down once more.

inline float bf16(double x) { return round_to_bf16(static_cast<float>(x)); }

inline std::vector<float> decoded(const std::vector<float>& rows, const CacheKind& kind) {
  std::vector<float> values = rows;
  for (float& v : values) v = kind.f8 ? bf16(v * kind.scale) : v;
  return values;
}

class Product {
 public:
  Product(const std::optional<MatmulScales>& scales, float max_finite) : scales_(scales), max_(max_finite) {}
  void add(float a, float b) {
    if (scales_) {
      a = e4m3_to_f32(f32_to_e4m3(a * scales_->in0.inv, max_));
      b = e4m3_to_f32(f32_to_e4m3(b * scales_->in1.inv, max_));
    }
    sum_ += a * b;
  }
  float unrounded() const { return sum_ * (scales_ ? scales_->in0.scale * scales_->in1.scale : 1.0f); }
  float value() const { return round_to_bf16(unrounded()); }

 private:
  const std::optional<MatmulScales>& scales_;
  float max_;
  float sum_ = 0;
};

// magnitudes: [heads], raised; or null.
inline std::vector<float> direct(const AbsorbedCase& c, AbsorbedMagnitudes* magnitudes = nullptr) {
  const std::vector<float> rows = decoded(c.rows, c.kind);
  const int64_t width = c.d.width(), blocks = (c.positions() + 127) / 128;
  const auto product = [&](const std::optional<MatmulScales>& scales) { return Product(scales, c.quant.max_finite); };
  AbsorbedMagnitudes largest;
  const auto seen = [](float& slot, float value) { return slot = std::max(slot, std::fabs(value)), value; };
  const auto copied = [&](float data) {
    seen(largest.batch2block, data);
    Product p = product(c.quant.batch2block);
    p.add(1, data);
    return p.value();
  };
  std::vector<float> out;
  for (int64_t h = 0; h < c.heads(); ++h) {
    std::vector<float> q(width), weight(c.positions()), max(blocks, -1e30f), sum(blocks), adjust(blocks);
    largest = {};
    for (int64_t i = 0; i < width; ++i) {
      q[i] = seen(largest.query, copied(bf16(c.quant.base.scale * c.q[h * width + i])));
    }
    for (int64_t t = 0; t < c.positions(); ++t) {
      Product score = product(c.quant.matmul_qk);
      for (int64_t i = 0; i < width; ++i) score.add(q[i], rows[t * width + i]);
      weight[t] = score.value();
      max[t / 128] = std::max(max[t / 128], weight[t]);
    }
    for (int64_t t = 0; t < c.positions(); ++t) {
      weight[t] = bf16(std::exp(bf16(weight[t] - max[t / 128])));
      sum[t / 128] += weight[t];
    }
    Product group = product(c.quant.block2batch);
    for (int64_t b = 0; b < blocks; ++b) {
      adjust[b] = bf16(std::exp(bf16(max[b] - *std::max_element(max.begin(), max.end()))));
      sum[b] = bf16(bf16(sum[b]) * adjust[b]);
      group.add(1, seen(largest.block2batch, sum[b]));
    }
    for (int64_t b = 0; b < blocks; ++b) adjust[b] = bf16(adjust[b] / std::max(copied(group.value()), sum[b]));
    for (int64_t i = 0; i < c.d.kv_lora_rank; ++i) {
      Product joined = product(c.quant.block2batch);
      for (int64_t b = 0; b < blocks; ++b) {
        Product part = product(c.quant.matmul_av);
        for (int64_t t = 128 * b; t < std::min(c.positions(), 128 * b + 128); ++t)
          part.add(weight[t], rows[t * width + i]);
        joined.add(1, seen(largest.block2batch, bf16(part.value() * adjust[b])));
      }
      out.push_back(joined.value());
    }
    if (magnitudes != nullptr) magnitudes[h] = largest;
  }
  return out;
}

inline std::vector<float> direct(const ExpandedCase& c) {
  const std::vector<float> rows = decoded(c.rows, c.kind);
  const int64_t width = c.d.width(), positions = c.positions();
  const float max_finite = c.quant.max_finite;
  const SdpaScales& s = *c.quant.sdpa;
  const auto cast = [&](float x, float inv) { return e4m3_to_f32(f32_to_e4m3(x * inv, max_finite)); };
  const auto expand = [&](const PackedMatrix& w, int64_t t, int64_t n) {
    const float* latent = &rows[t * width];
    float amax = 0;
    for (int64_t i = 0; i < w.cols; ++i) amax = std::max(amax, std::fabs(latent[i]));
    float scale = c.quant.latent.scale, inv = c.quant.latent.inv;
    if (c.quant.latent_input == QuantiseKind::kToken) {
      scale = bf16(bf16(amax + 1e-8f) / max_finite);
      inv = bf16(1 / scale);
    }
    double sum = 0;
    for (int64_t i = 0; i < w.cols; ++i) {
      sum += packed_element(w, n, i) * (c.quant.latent_input ? cast(latent[i], inv) : latent[i]);
    }
    const float scaled = static_cast<float>(sum) * (c.quant.latent_input ? scale : 1.0f);
    return bf16(scaled * (c.row_scales.empty() ? 1.0f : c.row_scales[n]));
  };
  std::vector<float> keys, values, out;
  for (int64_t t = 0; t < positions; ++t) {
    for (int64_t n = 0; n < c.d.qk_nope; ++n) keys.push_back(cast(expand(c.w_uk->w, t, n), s.k.inv));
    for (int64_t i = 0; i < c.d.qk_rope; ++i) keys.push_back(cast(rows[t * width + c.d.kv_lora_rank + i], s.k.inv));
    for (int64_t n = 0; n < c.d.v_head_dim; ++n) values.push_back(cast(expand(c.w_uv->w, t, n), s.v.inv));
  }
  std::vector<float> queries = c.q;
  for (float& q : queries) q = cast(q, s.q.inv);
  for (int64_t query = 0; query < positions; ++query) {
    std::vector<float> score(query + 1);
    double sum = 0;
    for (int64_t t = 0; t <= query; ++t) {
      double dot = 0;
      for (int64_t i = 0; i < c.d.head_dim(); ++i)
        dot += queries[query * c.d.head_dim() + i] * keys[t * c.d.head_dim() + i];
      score[t] = (static_cast<float>(dot) * (s.q.scale * s.k.scale)) * c.quant.base.scale;
    }
    const float max = *std::max_element(score.begin(), score.end());
    for (float& x : score) sum += x = std::exp(x - max);
    for (float& x : score) x = cast(bf16(x / sum), s.probabilities.inv);
    for (int64_t n = 0; n < c.d.v_head_dim; ++n) {
      double dot = 0;
      for (int64_t t = 0; t <= query; ++t) dot += score[t] * values[t * c.d.v_head_dim + n];
      const float o = bf16(static_cast<float>(dot) * (s.probabilities.scale * s.v.scale));
      out.push_back(bf16(cast(o, s.output.inv) * s.output.scale));
    }
  }
  return out;
}

}  // namespace hadal::quant_attention_test
