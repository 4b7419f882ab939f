#include "engine/random.h"

namespace hadal {
namespace {

constexpr uint32_t low(uint64_t value) { return static_cast<uint32_t>(value); }
constexpr uint32_t high(uint64_t value) { return static_cast<uint32_t>(value >> 32); }

uint64_t philox_u64(uint64_t key, uint64_t counter0, uint64_t counter1) {
  const auto words = philox4x32({low(counter0), high(counter0), low(counter1), high(counter1)}, {low(key), high(key)});
  return (uint64_t{words[1]} << 32) | words[0];
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {high(product1) ^ counter[1] ^ key[0], low(product1), high(product0) ^ counter[3] ^ key[1],
               low(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

double sampling_noise(uint64_t seed, uint64_t sample_idx, uint64_t position) {
  return static_cast<double>(philox_u64(seed, position, sample_idx) >> 11) * 0x1p-53;
}

uint64_t derive_seed(uint64_t engine_seed, uint64_t request_number) {
  // The second counter word keeps these apart from sampling noise under the same key.
  return philox_u64(engine_seed, request_number, ~uint64_t{0});
}

}  // namespace hadal
