// compile_regex and compile_choice: no pattern may crash or stall them; masks agree with what is accepted.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/utf8.h"
#include "fuzz/grammar_fuzz_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hadal;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto grammar = compile_regex(text, fuzz_grammar_limits())) {
    for (uint32_t seed = 0; seed < 4; ++seed) {
      if (find_invalid_utf8(walk_grammar(*grammar, seed)) != std::string_view::npos) std::abort();
    }
  }
  const std::string half(text.substr(0, size / 2));
  const std::string choices[] = {std::string(text), half};
  if (const auto grammar = compile_choice(choices, fuzz_grammar_limits())) {
    GrammarMatcher matcher(*grammar, fuzz_grammar_vocabulary());
    if (!matcher.accept_bytes(half) || !matcher.can_end()) std::abort();
  }
  return 0;
}
