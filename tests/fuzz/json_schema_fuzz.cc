// compile_json_schema: no schema may crash or stall it, and complete texts of what it accepts are JSON.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/json.h"
#include "fuzz/grammar_fuzz_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hadal;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto schema = parse_json(text, {.max_bytes = 4096, .max_depth = 32});
  if (!schema) return 0;
  const auto grammar = compile_json_schema(*schema, {.any_whitespace = size % 2 == 0, .limits = fuzz_grammar_limits()});
  if (!grammar) return 0;
  for (uint32_t seed = 0; seed < 4; ++seed) {
    const std::string document = walk_grammar(*grammar, seed);
    if (!document.empty() && !parse_json(document)) std::abort();
  }
  return 0;
}
