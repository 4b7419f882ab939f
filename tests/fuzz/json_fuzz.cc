// parse_json: no input may crash it, and what it accepts must survive dump and parse again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = hadal::parse_json(text, {.max_bytes = 1 << 16, .max_depth = 32, .refuse_duplicate_keys = true});
  if (!parsed) return 0;
  if (!hadal::parse_json(hadal::dump_json(*parsed))) std::abort();
  return 0;
}
