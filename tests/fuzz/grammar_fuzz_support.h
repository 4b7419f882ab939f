// Walks through a grammar that a fuzzer's input compiled to.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "fuzz/text_fuzz_support.h"
#include "text/grammar.h"

namespace hadal {

// Small enough that one input takes a fraction of a second.
inline GrammarLimits fuzz_grammar_limits() { return {.max_source_bytes = 4096, .max_states = 5000, .max_seconds = 5}; }

inline const std::shared_ptr<const GrammarVocabulary>& fuzz_grammar_vocabulary() {
  static const auto vocabulary = GrammarVocabulary::make(fuzz_tokenizer());
  return vocabulary;
}

// Takes tokens from the masks, which must hold just those that are accepted, and never be empty before the end unless
// there are too many ways to read the text. Returns the text if it is complete.
inline std::string walk_grammar(const Grammar& grammar, uint32_t seed) {
  const auto& vocabulary = fuzz_grammar_vocabulary();
  std::vector<uint64_t> mask((static_cast<size_t>(vocabulary->size()) + 63) / 64);
  GrammarMatcher matcher(grammar, vocabulary);
  std::string text;
  for (int step = 0; step < 24; ++step) {
    matcher.fill_mask(mask);
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < vocabulary->size(); ++id) {
      if (mask[id / 64] >> (id % 64) & 1) ids.push_back(id);
    }
    if (matcher.must_end()) {
      if (!ids.empty()) std::abort();
      break;
    }
    seed = seed * 1664525 + 1013904223;
    const int32_t other = static_cast<int32_t>((seed >> 8) % static_cast<uint32_t>(vocabulary->size()));
    const bool is_allowed = mask[other / 64] >> (other % 64) & 1;
    if (!is_allowed && GrammarMatcher(matcher).accept(other)) std::abort();
    if (ids.empty()) return "";
    const int32_t id = is_allowed ? other : ids[(seed >> 16) % ids.size()];
    if (!matcher.accept(id)) return "";
    text += fuzz_tokenizer().token_bytes(id);
  }
  return matcher.can_end() ? text : "";
}

}  // namespace hadal
