// Which tokens may follow a thread, remembered for all matchers of one grammar. Included by grammar_*.cc only.
//
// A token is decided by a node alone, unless the node's rule can end within the token: then the rest of the token is
// the caller's to decide. So an entry knows the tokens that are allowed and those that hang on the caller; the next
// entry, found by the node to return to, decides these, and so on down the stack. Steps after the first few only look
// up entries.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "text/grammar_plain_text.h"
#include "text/grammar_states.h"
#include "text/grammar_vocabulary.h"

namespace hadal {

// Thread-safe. Refers to the grammar, which owns it.
class GrammarMaskCache {
 public:
  // Memory of the entries, after which all are dropped.
  static constexpr size_t kMaxBytes = size_t{64} << 20;

  GrammarMaskCache(const GrammarData& data, std::shared_ptr<const GrammarVocabulary> vocabulary);

  // Sets the bits of the tokens that may follow any of the threads. mask: [mask_words()]. The result is a function of
  // the grammar and the threads alone.
  void fill(std::span<const GrammarThread> threads, const GrammarStacks& stacks, std::span<uint64_t> mask);

  const GrammarVocabulary& vocabulary() const { return *vocabulary_; }
  // Of the vocabulary's special tokens, those that the grammar names.
  std::span<const uint32_t> marker_tokens() const { return marker_tokens_; }

 private:
  // A token's bytes from `offset` on are left to the caller.
  struct Rest {
    uint32_t token = 0;  // index into the vocabulary's tokens
    uint32_t offset = 0;
    auto operator<=>(const Rest&) const = default;
  };
  struct Entry {
    std::vector<uint64_t> mask;   // either
    std::vector<int32_t> tokens;  // or
    std::vector<Rest> rests;      // of tokens not allowed so far
    size_t num_bytes() const { return 256 + mask.size() * 8 + tokens.size() * 4 + rests.size() * sizeof(Rest); }
    void apply(std::span<uint64_t> out) const;
  };

  const Entry& first_entry(uint32_t node, uint32_t& id);
  const Entry& next_entry(uint32_t return_node, uint32_t& id);
  const Entry& remember(uint64_t key, Entry entry, uint32_t& id);
  Entry compute_first(uint32_t node);
  Entry compute_next(const Entry& before, uint32_t return_node);
  void walk(const GrammarVocabulary::Data::Trie& trie, uint32_t state, std::vector<uint64_t>& allowed,
            std::vector<Rest>& rests);
  void set_allowed(Entry& entry, std::vector<uint64_t> allowed) const;
  void make_room();

  const GrammarData& data_;
  const std::shared_ptr<const GrammarVocabulary> vocabulary_;
  const GrammarVocabulary::Data& tokens_;
  std::vector<uint32_t> marker_tokens_;

  std::mutex mutex_;  // guards what follows
  GrammarStates states_;
  GrammarPlainRuns plain_runs_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::unordered_map<uint64_t, uint32_t> entry_ids_;  // by node, or by entry and node to return to
  size_t num_bytes_ = 0;
};

// The cache of a grammar for a vocabulary.
std::shared_ptr<GrammarMaskCache> mask_cache_of(const GrammarData& data,
                                                const std::shared_ptr<const GrammarVocabulary>& vocabulary);

}  // namespace hadal
