// The stack machine under object_array_from_pickle(): runs a pickle's opcodes and leaves the values they made.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/pickle.h"

namespace hadal {

using PickleRef = uint32_t;  // index of a value

enum class PickleKind : uint8_t { kNone, kBool, kInt, kString, kBytes, kList, kTuple, kDict, kGlobal, kDtype, kArray };

const char* pickle_kind_name(PickleKind kind);

struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  bool is_built = false;         // kDtype, kArray: BUILD has set its state
  int64_t number = 0;            // kBool, kInt
  std::string_view text;         // kString (valid UTF-8), kBytes, kGlobal, kDtype ("f4"); points into the input
  std::vector<PickleRef> items;  // kList, kTuple; kDict: key, value, ...; kArray once built: shape, dtype, payload
};

// Values refer to each other by index and may be shared or contain themselves.
struct PickleValues {
  std::vector<PickleValue> values;
  PickleRef root = 0;
};

// Errors as object_array_from_pickle(). `bytes` must outlive the result.
Expected<PickleValues> run_pickle(std::string_view bytes, const PickleLimits& limits);

}  // namespace hadal
