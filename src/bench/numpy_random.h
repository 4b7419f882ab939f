// The draws of NumPy's global generator (numpy.random.seed, randint, gamma) as far as benchmark clients use them: with
// the same seed, prompts and gaps equal theirs. Definition: NumPy's RandomState, whose stream is frozen by NEP 19.
#pragma once

#include <cstdint>
#include <optional>
#include <random>

namespace hadal {

// Single-owner.
class NumpyRandom {
 public:
  // numpy.random.seed(seed).
  explicit NumpyRandom(uint32_t seed) : generator_(seed) {}

  // numpy.random.randint(low, high): in [low, high). Requires low < high and high - low < 2^32.
  int64_t randint(int64_t low, int64_t high);
  // numpy.random.random_sample(): in [0, 1).
  double uniform();
  // numpy.random.gamma(shape, scale). Requires both >= 0.
  double gamma(double shape, double scale) { return scale * standard_gamma(shape); }

 private:
  double standard_exponential();
  double standard_normal();
  double standard_gamma(double shape);

  std::mt19937 generator_;
  std::optional<double> second_normal_;  // normals are drawn in pairs
};

}  // namespace hadal
