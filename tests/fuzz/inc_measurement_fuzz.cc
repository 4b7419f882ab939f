// INC measurement files, .npz and .json: no input may crash the readers, and what they accept is written and read back
// unchanged in both forms. Input that is no archive is tried as a bare pickle too.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "formats/inc_measurement.h"
#include "formats/npz.h"

namespace {

void check_measurement(std::string_view bytes) {
  const auto measurement = hadal::parse_inc_measurement(bytes);
  if (!measurement) {
    if (measurement.error().message.empty()) std::abort();
    return;
  }
  const auto json = hadal::parse_inc_measurement(hadal::inc_measurement_json(*measurement));
  const auto npz = hadal::parse_inc_measurement(hadal::inc_measurement_npz(*measurement));
  if (!json || *json != *measurement || !npz || *npz != *measurement) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > (1 << 20)) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check_measurement(bytes);
  if (bytes.starts_with("PK")) return 0;
  // The archive's checksum keeps a fuzzer from reaching the pickle, so go there directly.
  const auto object = hadal::object_array_from_pickle(bytes, {.max_values = 1 << 16});
  if (!object && object.error().message.empty()) std::abort();
  check_measurement(hadal::npz_from_pickle(bytes));
  return 0;
}
