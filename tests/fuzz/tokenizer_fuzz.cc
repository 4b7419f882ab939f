// The tokenizer file parsers: no input may crash them. Encoding: text is either refused or comes back whole.
#include <cstdint>
#include <string_view>

#include "base/utf8.h"
#include "formats/tiktoken.h"
#include "formats/tokenizer_config.h"
#include "formats/tokenizer_json.h"
#include "fuzz/text_fuzz_support.h"
#include "text/split_regex.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hadal;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_tokenizer_json(text);
  (void)parse_tokenizer_config(text);
  (void)parse_tiktoken(text);
  if (const auto pattern = translate_split_regex(text); pattern && size < 200) (void)SplitRegex::compile(*pattern);

  const auto ids = fuzz_tokenizer().encode(text, {});
  const bool is_valid = find_invalid_utf8(text) == std::string_view::npos;
  if (ids.has_value() != is_valid) std::abort();
  if (ids && fuzz_tokenizer().decode(*ids, false) != text) std::abort();
  return 0;
}
