// `tokenizer_config.json` of a Hugging Face model folder: bytes -> struct. Used by text/tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/tokenizer_json.h"

namespace hadal {

struct NamedChatTemplate {
  std::string name;  // "default" for a plain string
  std::string source;
};

struct TokenizerConfig {
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  // Given as string or as {"content": ...}; absent and null are the same.
  std::optional<std::string> bos_token, eos_token, pad_token, unk_token;
  int64_t model_max_length = 0;  // tokens; 0: absent, or the "no limit" value of Python (1e30)
  std::vector<NamedChatTemplate> chat_templates;
  std::vector<AddedTokenJson> added_tokens;  // added_tokens_decoder, ascending ids
};

// Errors: kCorrupt for a key of the wrong type or a repeated id. Unknown keys are ignored: they describe Python
// classes.
Expected<TokenizerConfig> parse_tokenizer_config(std::string_view text);

}  // namespace hadal
