#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/ref/reference.h"
#include "tensor/fp8.h"

namespace hadal::reference {
namespace {

constexpr int64_t kDoubleBytes = sizeof(double);
constexpr int64_t kFloatBytes = sizeof(float);

// One position's row, of either dtype.
class CacheRow {
 public:
  CacheRow(const PagedKvView& kv, const int32_t* block_table, int64_t position)
      : row_(kv.row(block_table, position)), is_f8_(kv.dtype == DType::kF8E4M3) {
    HADAL_CHECK(is_f8_ || kv.dtype == DType::kF32, "no cache of type {}", dtype_name(kv.dtype));
  }
  float operator[](int64_t i) const {
    return is_f8_ ? e4m3_to_f32(reinterpret_cast<const uint8_t*>(row_)[i]) : reinterpret_cast<const float*>(row_)[i];
  }

 private:
  const std::byte* row_;
  bool is_f8_;
};

double dot_f32(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// q . row[begin .. begin + n)
double dot_row(const float* q, const CacheRow& row, int64_t begin, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(q[i]) * row[begin + i];
  return sum;
}

// scores [n] become probabilities.
void softmax(double* scores, int64_t n) {
  const double max = *std::max_element(scores, scores + n);
  double sum = 0;
  for (int64_t t = 0; t < n; ++t) sum += scores[t] = std::exp(scores[t] - max);
  for (int64_t t = 0; t < n; ++t) scores[t] /= sum;
}

}  // namespace

// A partial: double [num_heads][max, sum of e^(score - max), values [kv_lora_rank]].
int64_t absorbed_partial_bytes(const AbsorbedAttentionArgs& a) {
  return (a.num_heads * (2 + a.kv_lora_rank) * kDoubleBytes + 63) / 64 * 64;
}

int64_t absorbed_segment_scratch_bytes(const AbsorbedAttentionArgs&) { return kAttentionSegment * kDoubleBytes; }

void attend_absorbed_segment(const AbsorbedAttentionArgs& a, int64_t segment, std::byte* partial, std::byte* scratch) {
  auto* weights = reinterpret_cast<double*>(scratch);
  auto* state = reinterpret_cast<double*>(partial);
  const int64_t begin = segment * kAttentionSegment, num_keys = std::min(kAttentionSegment, a.num_positions - begin);
  for (int64_t h = 0; h < a.num_heads; ++h, state += 2 + a.kv_lora_rank) {
    const float* q_latent = static_cast<const float*>(a.q_latent) + h * a.q_latent_stride;
    const float* q_rope = static_cast<const float*>(a.q_rope) + h * a.q_rope_stride;
    for (int64_t t = 0; t < num_keys; ++t) {
      const CacheRow row(*a.kv, a.block_table, begin + t);
      weights[t] = a.scale * (dot_row(q_latent, row, 0, a.kv_lora_rank) +
                              dot_row(q_rope, row, a.kv_lora_rank, a.qk_rope_head_dim));
    }
    const double max = *std::max_element(weights, weights + num_keys);
    double sum = 0;
    for (int64_t t = 0; t < num_keys; ++t) sum += weights[t] = std::exp(weights[t] - max);
    state[0] = max;
    state[1] = sum;
    for (int64_t i = 0; i < a.kv_lora_rank; ++i) {
      double value = 0;
      for (int64_t t = 0; t < num_keys; ++t) value += weights[t] * CacheRow(*a.kv, a.block_table, begin + t)[i];
      state[2 + i] = value;
    }
  }
}

void join_absorbed(const AbsorbedAttentionArgs& a, std::byte* state, std::byte* partial) {
  auto* to = reinterpret_cast<double*>(state);
  const auto* from = reinterpret_cast<const double*>(partial);
  for (int64_t h = 0; h < a.num_heads; ++h, to += 2 + a.kv_lora_rank, from += 2 + a.kv_lora_rank) {
    const double max = std::max(to[0], from[0]);
    const double keep = std::exp(to[0] - max), add = std::exp(from[0] - max);
    to[0] = max;
    for (int64_t i = 1; i < 2 + a.kv_lora_rank; ++i) to[i] = to[i] * keep + from[i] * add;
  }
}

void finish_absorbed(const AbsorbedAttentionArgs& a, std::byte* state) {
  const auto* from = reinterpret_cast<const double*>(state);
  for (int64_t h = 0; h < a.num_heads; ++h, from += 2 + a.kv_lora_rank) {
    float* out = static_cast<float*>(a.out) + h * a.out_stride;
    for (int64_t i = 0; i < a.kv_lora_rank; ++i) out[i] = static_cast<float>(from[2 + i] / from[1]);
  }
}

// Scratch: double scores [positions], then f32 expanded keys [positions][qk_nope] and values [positions][v], and one
// latent [kv_lora_rank].
void attend_expanded(const ExpandedAttentionArgs& a, std::byte* scratch) {
  const int64_t num_positions = a.first_position + a.num_queries;
  auto* scores = reinterpret_cast<double*>(scratch);
  auto* keys = reinterpret_cast<float*>(scratch + num_positions * kDoubleBytes);
  float* values = keys + num_positions * a.qk_nope_head_dim;
  float* latent = values + num_positions * a.v_head_dim;
  for (int64_t t = 0; t < num_positions; ++t) {
    const CacheRow row(*a.kv, a.block_table, t);
    for (int64_t i = 0; i < a.kv_lora_rank; ++i) latent[i] = row[i];
    for (int64_t i = 0; i < a.qk_nope_head_dim; ++i) {
      keys[t * a.qk_nope_head_dim + i] = static_cast<float>(dot(*a.w_uk, i, latent, 0, a.kv_lora_rank));
    }
    for (int64_t i = 0; i < a.v_head_dim; ++i) {
      values[t * a.v_head_dim + i] = static_cast<float>(dot(*a.w_uv, i, latent, 0, a.kv_lora_rank));
    }
  }
  for (int64_t query = 0; query < a.num_queries; ++query) {
    const float* q = static_cast<const float*>(a.q) + query * a.q_stride;
    const int64_t visible = a.first_position + query + 1;
    for (int64_t t = 0; t < visible; ++t) {
      const CacheRow row(*a.kv, a.block_table, t);
      scores[t] = a.scale * (dot_f32(q, keys + t * a.qk_nope_head_dim, a.qk_nope_head_dim) +
                             dot_row(q + a.qk_nope_head_dim, row, a.kv_lora_rank, a.qk_rope_head_dim));
    }
    softmax(scores, visible);
    float* out = static_cast<float*>(a.out) + query * a.out_stride;
    for (int64_t i = 0; i < a.v_head_dim; ++i) {
      double sum = 0;
      for (int64_t t = 0; t < visible; ++t) sum += scores[t] * values[t * a.v_head_dim + i];
      out[i] = static_cast<float>(sum);
    }
  }
}

int64_t expanded_scratch_bytes(const ExpandedAttentionArgs& a) {
  return (a.first_position + a.num_queries) * (kDoubleBytes + (a.qk_nope_head_dim + a.v_head_dim) * kFloatBytes) +
         a.kv_lora_rank * kFloatBytes;
}

}  // namespace hadal::reference
