// The draws of Python's random.Random, as far as few-shot examples need them: with its seed, the prompts equal those of
// evaluation programs written in Python. Generator: MT19937 (Matsumoto and Nishimura 1998) seeded by init_by_array.
#pragma once

#include <array>
#include <cstdint>
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

 private:
  static constexpr uint32_t kSize = 624;

  void seed_state(uint32_t seed);
  void refill();
  uint32_t below(uint32_t limit);

  std::array<uint32_t, kSize> state_;
  uint32_t used_ = kSize;
};

}  // namespace hadal
