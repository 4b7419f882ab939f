// Our own file of ranges: no input may crash its reader, and what it accepts is valid and is written back unchanged.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "quant/range_set.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > (1 << 20)) return 0;
  const auto set = hadal::range_set_from_json({reinterpret_cast<const char*>(data), size});
  if (!set) {
    if (set.error().message.empty()) std::abort();
    return 0;
  }
  if (!hadal::check_range_set(*set)) std::abort();
  const auto again = hadal::range_set_from_json(hadal::range_set_to_json(*set));
  if (!again || again->dims != set->dims || again->layers != set->layers) std::abort();
  auto merged = *set;
  if (!hadal::merge_range_set(merged, *again)) std::abort();
  return 0;
}
