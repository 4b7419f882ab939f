#include "bench/numpy_random.h"

#include <bit>
#include <cmath>

#include "base/check.h"

namespace hadal {

int64_t NumpyRandom::randint(int64_t low, int64_t high) {
  HADAL_CHECK(low < high && high - low < (int64_t{1} << 32), "[{}, {})", low, high);
  const auto last = static_cast<uint32_t>(high - low - 1);
  if (last == 0) return low;  // no draw
  const uint32_t mask = std::bit_width(last) == 32 ? UINT32_MAX : (uint32_t{1} << std::bit_width(last)) - 1;
  for (;;) {
    const auto value = static_cast<uint32_t>(generator_()) & mask;
    if (value <= last) return low + value;
  }
}

double NumpyRandom::uniform() {
  const auto high = static_cast<uint32_t>(generator_()) >> 5;
  const auto low = static_cast<uint32_t>(generator_()) >> 6;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

double NumpyRandom::standard_exponential() { return -std::log(1.0 - uniform()); }

// The polar method.
double NumpyRandom::standard_normal() {
  if (second_normal_) {
    const double value = *second_normal_;
    second_normal_.reset();
    return value;
  }
  double x1 = 0, x2 = 0, square = 0;
  do {
    x1 = 2.0 * uniform() - 1.0;
    x2 = 2.0 * uniform() - 1.0;
    square = x1 * x1 + x2 * x2;
  } while (square >= 1.0 || square == 0.0);
  const double factor = std::sqrt(-2.0 * std::log(square) / square);
  second_normal_ = factor * x1;
  return factor * x2;
}

// Below 1: Ahrens and Dieter's rejection; above: Marsaglia and Tsang's.
double NumpyRandom::standard_gamma(double shape) {
  if (shape == 0.0) return 0.0;
  if (shape == 1.0) return standard_exponential();
  if (shape < 1.0) {
    for (;;) {
      const double u = uniform(), v = standard_exponential();
      if (u <= 1.0 - shape) {
        const double x = std::pow(u, 1. / shape);
        if (x <= v) return x;
      } else {
        const double y = -std::log((1.0 - u) / shape);
        const double x = std::pow(1.0 - shape + shape * y, 1. / shape);
        if (x <= v + y) return x;
      }
    }
  }
  const double b = shape - 1. / 3., c = 1. / std::sqrt(9 * b);
  for (;;) {
    double x = 0, v = 0;
    do {
      x = standard_normal();
      v = 1.0 + c * x;
    } while (v <= 0.0);
    v = v * v * v;
    const double u = uniform();
    if (u < 1.0 - 0.0331 * (x * x) * (x * x)) return b * v;
    if (std::log(u) < 0.5 * x * x + b * (1. - v + std::log(v))) return b * v;
  }
}

}  // namespace hadal
