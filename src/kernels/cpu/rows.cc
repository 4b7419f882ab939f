// Norms and rotary embeddings: one row of a few thousand floats at a time, a small part of a step's time.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/drivers.h"
#include "tensor/fp8.h"

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

// Finished values go to `store(values, n, begin)`, which rounds them into elements begin .. of the output.
auto store_bf16(const Primitives& p, bf16_t* out) {
  return [&p, out](const float* values, int64_t n, int64_t begin) { p.round_row(values, n, out + begin); };
}

auto store_f8(uint8_t* out) {
  return [out](const float* values, int64_t n, int64_t begin) {
    for (int64_t i = 0; i < n; ++i) out[begin + i] = f32_to_e4m3(values[i]);
  };
}

template <typename Store>
void normalise(const float* x, const float* weight, int64_t dim, float eps, const Store& store) {
  const float factor = 1.0f / std::sqrt(sum_of_squares(x, dim) / static_cast<float>(dim) + eps);
  float chunk[kChunk];
  for (int64_t begin = 0; begin < dim; begin += kChunk) {
    const int64_t n = std::min(kChunk, dim - begin);
    for (int64_t i = 0; i < n; ++i) chunk[i] = weight[begin + i] * (x[begin + i] * factor);
    store(chunk, n, begin);
  }
}

template <typename Store>
void rotate(const float* in, int64_t dim, const float* cos, const float* sin, const Store& store) {
  float chunk[kChunk];
  for (int64_t begin = 0; begin < dim; begin += kChunk) {
    const int64_t n = std::min(kChunk, dim - begin);
    for (int64_t i = 0; i < n; i += 2) {
      const float a = in[begin + i], b = in[begin + i + 1];
      const float c = cos[(begin + i) / 2], s = sin[(begin + i) / 2];
      chunk[i] = a * c - b * s;
      chunk[i + 1] = a * s + b * c;
    }
    store(chunk, n, begin);
  }
}

template <typename Store>
void write_latent_parts(const WriteLatentArgs& a, const Store& store_latent, const Store& store_key) {
  normalise(a.kv, a.weight, a.kv_lora_rank, a.eps, store_latent);
  rotate(a.kv + a.kv_lora_rank, a.qk_rope_head_dim, a.cos, a.sin, store_key);
}

}  // namespace

void rms_norm(const Primitives& p, const RmsNormArgs& a) {
  normalise(a.x, a.weight, a.dim, a.eps, store_bf16(p, static_cast<bf16_t*>(a.out)));
}

void query_rope(const Primitives& p, const QueryRopeArgs& a) {
  const int64_t head_dim = a.qk_nope_head_dim + a.qk_rope_head_dim;
  for (int64_t h = 0; h < a.num_heads; ++h) {
    const float* q = a.q + h * head_dim;
    bf16_t* out = static_cast<bf16_t*>(a.out) + h * head_dim;
    p.round_row(q, a.qk_nope_head_dim, out);
    rotate(q + a.qk_nope_head_dim, a.qk_rope_head_dim, a.cos, a.sin, store_bf16(p, out + a.qk_nope_head_dim));
  }
}

void write_latent(const Primitives& p, const WriteLatentArgs& a) {
  if (a.row_dtype == DType::kF8E4M3) {
    auto* row = static_cast<uint8_t*>(a.row);
    write_latent_parts(a, store_f8(row), store_f8(row + a.kv_lora_rank));
  } else {
    auto* row = static_cast<bf16_t*>(a.row);
    write_latent_parts(a, store_bf16(p, row), store_bf16(p, row + a.kv_lora_rank));
  }
}

}  // namespace hadal::cpu
