// A tokenizer for fuzzers: 256 single bytes, a few words and Kimi's slots.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include "base/file.h"
#include "support/test_files.h"
#include "text/tokenizer.h"

namespace hadal {

inline const Tokenizer& fuzz_tokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string ranks;
    for (int byte = 0; byte < 256; ++byte) {
      ranks += {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '=', ' '};
      ranks += std::to_string(byte) + '\n';
    }
    ranks += "YWE= 256\nYWFh 257\nIGE= 258\nYWI= 259\n";  // "aa", "aaa", " a", "ab"
    const TempDir dir;
    const std::string config =
        R"({"bos_token": "<s>", "added_tokens_decoder": {"260": {"content": "<s>", "special": true}}})";
    if (!write_file_atomically(dir.path() / "tiktoken.model", ranks)) std::abort();
    if (!write_file_atomically(dir.path() / "tokenizer_config.json", config)) std::abort();
    auto loaded = Tokenizer::load(dir.path());
    if (!loaded) std::abort();
    return std::move(*loaded);
  }();
  return *tokenizer;
}

}  // namespace hadal
