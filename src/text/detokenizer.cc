#include "text/detokenizer.h"

#include <algorithm>

#include "base/utf8.h"

namespace hadal {

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens,
                                           std::span<const int32_t> previous_ids, std::vector<int32_t> never_skipped)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens), never_skipped_(std::move(never_skipped)) {
  for (const int32_t id : previous_ids) push(id);
}

std::string StreamingDetokenizer::push(int32_t id) {
  std::string text;
  if (skip_special_tokens_ && tokenizer_.is_special(id)) {
    if (std::find(never_skipped_.begin(), never_skipped_.end(), id) == never_skipped_.end()) return text;
  }
  pending_ += tokenizer_.token_bytes(id);
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = decode_utf8(rest);
    if (step.kind == Utf8Step::kIncomplete) break;
    if (step.kind == Utf8Step::kValid) {
      text += rest.substr(0, step.num_bytes);
    } else {
      append_utf8(text, kReplacementCharacter);
    }
    rest.remove_prefix(step.num_bytes);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return text;
}

std::string StreamingDetokenizer::flush() {
  std::string text = to_valid_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace hadal
