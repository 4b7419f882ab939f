// The draws of Python's random.Random, as far as few-shot examples and benchmarks need them: with its seed, the prompts
// equal those of programs written in Python. Generator: MT19937 (Matsumoto and Nishimura 1998) seeded by init_by_array.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace hadal {

// Single-owner.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);

  // random.sample(range(population), count). Requires count <= population < 2^32.
  std::vector<uint32_t> sample(uint32_t population, uint32_t count);
  // random.getrandbits(32).
  uint32_t next();
  // random.random(): in [0, 1).
  double uniform();
  // random.shuffle(items). Requires fewer than 2^32 items.
  template <typename T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(static_cast<uint32_t>(i))]);
  }

 private:
  static constexpr uint32_t kSize = 624;

  void seed_state(uint32_t seed);
  void refill();
  uint32_t below(uint32_t limit);

  std::array<uint32_t, kSize> state_;
  uint32_t used_ = kSize;
};

}  // namespace hadal
