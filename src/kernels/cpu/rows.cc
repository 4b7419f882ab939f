// Norms and rotary embeddings: one row of a few thousand floats at a time, a small part of a step's time.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/drivers.h"

namespace hadal::cpu {
namespace {

constexpr int64_t kChunk = 256;  // floats computed before they are rounded together

// Sum of squares in 16 interleaved partial sums, joined as a binary tree: an order that vectorises at any width.
float sum_of_squares(const float* x, int64_t dim) {
  constexpr int64_t kSums = 16;
  float sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= dim; i += kSums) {
    for (int64_t j = 0; j < kSums; ++j) sums[j] += x[i + j] * x[i + j];
  }
  for (int64_t j = 0; i < dim; ++i, ++j) sums[j] += x[i] * x[i];
  for (int64_t width = kSums / 2; width > 0; width /= 2) {
    for (int64_t j = 0; j < width; ++j) sums[j] += sums[j + width];
  }
  return sums[0];
}

void normalise(const Primitives& p, const float* x, const float* weight, int64_t dim, float eps, bf16_t* out) {
  const float factor = 1.0f / std::sqrt(sum_of_squares(x, dim) / static_cast<float>(dim) + eps);
  float chunk[kChunk];
  for (int64_t begin = 0; begin < dim; begin += kChunk) {
    const int64_t n = std::min(kChunk, dim - begin);
    for (int64_t i = 0; i < n; ++i) chunk[i] = weight[begin + i] * (x[begin + i] * factor);
    p.round_row(chunk, n, out + begin);
  }
}

void rotate(const Primitives& p, const float* in, int64_t dim, const float* cos, const float* sin, bf16_t* out) {
  float chunk[kChunk];
  for (int64_t begin = 0; begin < dim; begin += kChunk) {
    const int64_t n = std::min(kChunk, dim - begin);
    for (int64_t i = 0; i < n; i += 2) {
      const float a = in[begin + i], b = in[begin + i + 1];
      const float c = cos[(begin + i) / 2], s = sin[(begin + i) / 2];
      chunk[i] = a * c - b * s;
      chunk[i + 1] = a * s + b * c;
    }
    p.round_row(chunk, n, out + begin);
  }
}

}  // namespace

void rms_norm(const Primitives& p, const RmsNormArgs& a) {
  normalise(p, a.x, a.weight, a.dim, a.eps, static_cast<bf16_t*>(a.out));
}

void query_rope(const Primitives& p, const QueryRopeArgs& a) {
  const int64_t head_dim = a.qk_nope_head_dim + a.qk_rope_head_dim;
  for (int64_t h = 0; h < a.num_heads; ++h) {
    const float* q = a.q + h * head_dim;
    bf16_t* out = static_cast<bf16_t*>(a.out) + h * head_dim;
    p.round_row(q, a.qk_nope_head_dim, out);
    rotate(p, q + a.qk_nope_head_dim, a.qk_rope_head_dim, a.cos, a.sin, out + a.qk_nope_head_dim);
  }
}

void write_latent(const Primitives& p, const WriteLatentArgs& a) {
  auto* row = static_cast<bf16_t*>(a.row);
  normalise(p, a.kv, a.weight, a.kv_lora_rank, a.eps, row);
  rotate(p, a.kv + a.kv_lora_rank, a.qk_rope_head_dim, a.cos, a.sin, row + a.kv_lora_rank);
}

}  // namespace hadal::cpu
