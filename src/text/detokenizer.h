// Token ids to text, one id at a time, never half a code point.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace hadal {

// A byte machine: what cannot become valid UTF-8 any more is U+FFFD at once, so broken bytes never stall the stream.
// The concatenation of all push() and flush() results equals Tokenizer::decode of all ids. Single-owner.
class StreamingDetokenizer {
 public:
  // Keeps a reference: the tokenizer must outlive this. `previous_ids` precede the stream (the prompt): a character
  // they leave half-written is completed by the first pushed ids; their own text is not returned. `never_skipped`:
  // special tokens whose text is wanted whatever skip_special_tokens says.
  StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens, std::span<const int32_t> previous_ids = {},
                       std::vector<int32_t> never_skipped = {});

  // The text that became complete; often "" (an incomplete character of at most 3 bytes is held back).
  std::string push(int32_t id);

  // U+FFFD for what is still held back. The object is then as new.
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  const std::vector<int32_t> never_skipped_;
  std::string pending_;  // the incomplete tail, at most 3 bytes between calls
};

}  // namespace hadal
