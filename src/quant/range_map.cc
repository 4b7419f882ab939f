#include "quant/range_map.h"

#include "base/check.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

using Codes = std::array<uint8_t, 256>;

// NaN keeps its sign; everything else is map(value).
template <typename Map>
Codes make_codes(Map map) {
  Codes codes{};
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto code = static_cast<uint8_t>(i);
    codes[i] = (code & 0x7F) == kE4m3NaN ? code : map(code);
  }
  return codes;
}

const Codes kIdentityCodes = make_codes([](uint8_t code) { return code; });
const Codes kExactCodes = make_codes([](uint8_t code) { return f32_to_e4m3(e4m3_to_f32(code) / 2); });
const Codes kSeedCodes = make_codes([](uint8_t code) { return f32_to_e4m3(e4m3_to_f32(code) * 240.0f / 448.0f); });

}  // namespace

const char* range_map_name(RangeMap map) {
  switch (map) {
    case RangeMap::kNone:
      return "none";
    case RangeMap::kExact:
      return "exact";
    case RangeMap::kSeed:
      return "seed";
  }
  return "unknown";
}

const Codes& range_map_codes(RangeMap map) {
  if (map == RangeMap::kExact) return kExactCodes;
  if (map == RangeMap::kSeed) return kSeedCodes;
  HADAL_CHECK(map == RangeMap::kNone, "range map {}", static_cast<int>(map));
  return kIdentityCodes;
}

float range_map_scale(RangeMap map, float scale) {
  if (map == RangeMap::kExact) return scale * 2.0f;
  if (map == RangeMap::kSeed) return scale * 448.0f / 240.0f;
  return scale;
}

bool range_map_rounds(RangeMap map, uint8_t code) {
  if ((code & 0x7F) == kE4m3NaN || map == RangeMap::kNone) return false;
  const float value = e4m3_to_f32(code), mapped = e4m3_to_f32(range_map_codes(map)[code]);
  if (map == RangeMap::kExact) return mapped * 2 != value;
  return mapped * 448.0f != value * 240.0f;
}

}  // namespace hadal
