// The passes over rows of logits: exponentials and sums in double, rounded once.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ref/reference.h"

namespace hadal::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double exp_below(float logit, float max, float scale) {
  const double e = std::exp((double{logit} - max) * scale);
  return e < std::numeric_limits<float>::min() ? 0 : e;
}

bool block_maxima(const float* row, int64_t n, float* maxima) {
  bool valid = true;
  for (int64_t begin = 0; begin < n; begin += kLogitBlock) {
    float& max = maxima[begin / kLogitBlock] = -kInfinity;
    for (int64_t i = begin; i < std::min(begin + kLogitBlock, n); ++i) {
      max = std::max(max, row[i]);
      valid = valid && row[i] < kInfinity;
    }
  }
  return valid;
}

bool block_softmax(const float* row, int64_t n, float scale, float* maxima, float* sums) {
  if (!block_maxima(row, n, maxima)) return false;
  for (int64_t begin = 0; begin < n; begin += kLogitBlock) {
    const float max = maxima[begin / kLogitBlock];
    double sum = 0;
    for (int64_t i = begin; i < std::min(begin + kLogitBlock, n); ++i) {
      if (row[i] > -kInfinity) sum += exp_below(row[i], max, scale);
    }
    sums[begin / kLogitBlock] = static_cast<float>(sum);
  }
  return true;
}

void exp_row(const float* row, int64_t n, float max, float scale, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(exp_below(row[i], max, scale));
}

}  // namespace

const RowMath kRowMath = {block_maxima, block_softmax, exp_row};

}  // namespace hadal::reference
