// The configuration file's reader on any bytes: no crash, and what it accepts is bounded and flat.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "cli/config_yaml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto entries = hadal::parse_config_yaml({reinterpret_cast<const char*>(data), size});
  if (!entries) return 0;
  for (const hadal::ConfigEntry& entry : *entries) {
    HADAL_CHECK(entry.line >= 1 && (entry.is_list || entry.words.size() == 1));
  }
  return 0;
}
