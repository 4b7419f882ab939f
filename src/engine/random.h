// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).
// A value is a function of key and counter alone, so a draw does not depend on what was drawn before or beside it.
#pragma once

#include <array>
#include <cstdint>

namespace hadal {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Uniform in [0, 1) with 53 random bits: the noise of the token at an absolute position of a sequence.
double sampling_noise(uint64_t seed, uint64_t sample_idx, uint64_t position);

// The seed of a request that names none.
uint64_t derive_seed(uint64_t engine_seed, uint64_t request_number);

}  // namespace hadal
