// compile_ebnf: no grammar, GBNF or Lark, may crash or stall it; masks agree with what is accepted.
#include <cstdint>
#include <string_view>

#include "fuzz/grammar_fuzz_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hadal;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto grammar = compile_ebnf(text, fuzz_grammar_limits())) {
    for (uint32_t seed = 0; seed < 4; ++seed) walk_grammar(*grammar, seed);
  }
  return 0;
}
