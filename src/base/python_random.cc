#include "base/python_random.h"

#include <bit>
#include <numeric>
#include <unordered_set>

#include "base/check.h"

namespace hadal {

PythonRandom::PythonRandom(uint64_t seed) {
  const auto low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
  const uint32_t key[] = {low, high};
  const uint32_t key_length = high == 0 ? 1 : 2;
  seed_state(19650218);
  uint32_t i = 1, j = 0;
  const auto mixed = [&](uint32_t factor) { return state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * factor); };
  const auto advance = [&] {
    if (++i < kSize) return;
    state_[0] = state_[kSize - 1];
    i = 1;
  };
  for (uint32_t round = 0; round < kSize; ++round) {
    state_[i] = mixed(1664525) + key[j] + j;
    j = (j + 1) % key_length;
    advance();
  }
  for (uint32_t round = 0; round < kSize - 1; ++round) {
    state_[i] = mixed(1566083941) - i;
    advance();
  }
  state_[0] = 0x80000000u;
}

void PythonRandom::seed_state(uint32_t seed) {
  state_[0] = seed;
  for (uint32_t i = 1; i < kSize; ++i) state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
}

void PythonRandom::refill() {
  constexpr uint32_t kShift = 397;
  for (uint32_t i = 0; i < kSize; ++i) {
    const uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % kSize] & 0x7FFFFFFFu);
    state_[i] = state_[(i + kShift) % kSize] ^ (y >> 1) ^ ((y & 1) != 0 ? 0x9908B0DFu : 0);
  }
  used_ = 0;
}

uint32_t PythonRandom::next() {
  if (used_ == kSize) refill();
  uint32_t y = state_[used_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9D2C5680u;
  y ^= (y << 15) & 0xEFC60000u;
  return y ^ (y >> 18);
}

double PythonRandom::uniform() {
  const uint32_t high = next() >> 5, low = next() >> 6;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

uint32_t PythonRandom::below(uint32_t limit) {
  const int num_bits = std::bit_width(limit);
  uint32_t value = 0;
  do {
    value = next() >> (32 - num_bits);
  } while (value >= limit);
  return value;
}

std::vector<uint32_t> PythonRandom::sample(uint32_t population, uint32_t count) {
  HADAL_CHECK(count <= population, "{} of {}", count, population);
  // Python shuffles a copy of the population where that is smaller than a set of the picks.
  uint64_t set_size = 21;
  if (count > 5) {
    uint64_t power = 1;
    while (power < uint64_t{count} * 3) power *= 4;
    set_size += power;
  }
  std::vector<uint32_t> picked;
  if (population <= set_size) {
    std::vector<uint32_t> pool(population);
    std::iota(pool.begin(), pool.end(), 0);
    for (uint32_t i = 0; i < count; ++i) {
      uint32_t& choice = pool[below(population - i)];
      picked.push_back(choice);
      choice = pool[population - i - 1];
    }
    return picked;
  }
  std::unordered_set<uint32_t> seen;
  while (picked.size() < count) {
    const uint32_t choice = below(population);
    if (seen.insert(choice).second) picked.push_back(choice);
  }
  return picked;
}

}  // namespace hadal
