// What hadal convert writes into a folder's config.json, so that nobody takes the folder for an official one: a
// top-level key "hadal_convert". Hugging Face's config classes keep unknown top-level keys as attributes and vLLM
// ignores them, while inside quantization_config both look at every key; hence not there. Shards carry the same object,
// as text, in their "__metadata__".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"
#include "quant/scale_rule.h"

namespace hadal {

enum class ConvertMethod : uint8_t {
  kExact,    // RangeMap::kExact
  kSeed,     // RangeMap::kSeed
  kChannel,  // one scale a row instead of one a block
};

const char* convert_method_name(ConvertMethod method);  // "exact", "seed", "channel"
const char* convert_target_name(FpRange target);        // "gaudi2", "gaudi3"
// Errors: kInvalidArgument, nearest name given.
Expected<ConvertMethod> parse_convert_method(std::string_view name);
Expected<FpRange> parse_convert_target(std::string_view name);

inline constexpr const char* kConvertMarkerKey = "hadal_convert";

struct ConvertMarker {
  ConvertMethod method = ConvertMethod::kExact;
  FpRange target = FpRange::kGaudi2;
  bool bug_compatible = false;  // kSeed: BF16 "proj" weights were converted too, without a scale
};

// {"version": 1, "method": .., "target": .., "bug_compatible": ..}
Json marker_to_json(const ConvertMarker& marker);

// Of a parsed config.json: nothing when the key is absent. Errors: kUnsupported for a version, method or target this
// program does not know.
Expected<std::optional<ConvertMarker>> marker_of_config(const Json& config);

// config.json's text with the marker as its last key, every other byte kept. Requires that the text parses as an object
// without the key.
std::string add_marker_to_config(std::string_view text, const ConvertMarker& marker);

}  // namespace hadal
