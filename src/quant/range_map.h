// Gaudi 2 reads E4M3 with exponent 15 reserved, so a checkpoint's codes above 0x77 (240) would be infinities and NaN to
// it. A range map moves all codes of a matrix into its range and corrects the scale for it. Maps are pure functions of
// the byte: codes keep their sign, NaN stays NaN.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace hadal {

enum class RangeMap : uint8_t {
  kNone,
  kExact,  // half the value, twice the scale: only odd codes below 0x10 round (to even)
  kSeed,   // convert_for_g2.py of vLLM's Gaudi fork: value * 240 / 448, scale * 448 / 240; most codes round
};

const char* range_map_name(RangeMap map);

// New code of each code.
const std::array<uint8_t, 256>& range_map_codes(RangeMap map);

// In FP32, two operations left to right, as the peer does.
float range_map_scale(RangeMap map, float scale);

// True when the map changes the value that code and scale stand for (scale arithmetic aside).
bool range_map_rounds(RangeMap map, uint8_t code);

}  // namespace hadal
