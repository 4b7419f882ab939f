// config.json and generation_config.json: no input may crash their readers, and the two ways to read the former agree.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "formats/generation_config.h"
#include "formats/hf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<hadal::Error> problems;
  hadal::parse_hf_config_collecting(text, problems);
  const auto config = hadal::parse_hf_config(text);
  if (config.has_value() != problems.empty()) std::abort();
  if (!config && config.error().message != problems.front().message) std::abort();
  const auto generation = hadal::parse_generation_config(text);
  if (!generation && generation.error().message.empty()) std::abort();
  return 0;
}
