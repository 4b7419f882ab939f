#include "text/grammar_mask_cache.h"

#include <algorithm>
#include <bit>

namespace hadal {
namespace {

// Bounds for one entry and for one mask, against grammars made to be slow: what lies beyond counts as not allowed. A
// usual entry needs some thousands of steps.
constexpr size_t kMaxWork = size_t{512} << 10;
constexpr size_t kMaxFillWork = 2 * kMaxWork;
constexpr size_t kMaxThreads = 256;  // of a mask
constexpr size_t kMaxRests = size_t{1} << 20;
// States and stacks kept between entries, and during one.
constexpr size_t kMaxStates = size_t{8} << 10;
constexpr size_t kMaxStacks = size_t{1} << 20;
// Vocabularies of which a grammar remembers masks.
constexpr size_t kMaxCaches = 4;

constexpr uint64_t kFirstEntry = uint64_t{UINT32_MAX} << 32;

bool test(std::span<const uint64_t> mask, int32_t id) { return mask[id / 64] >> (id % 64) & 1; }
void set(std::span<uint64_t> mask, int32_t id) { mask[id / 64] |= uint64_t{1} << (id % 64); }

}  // namespace

GrammarMaskCache::GrammarMaskCache(const GrammarData& data, std::shared_ptr<const GrammarVocabulary> vocabulary)
    : data_(data), vocabulary_(std::move(vocabulary)), tokens_(vocabulary_->data()), states_(data), plain_runs_(data) {
  for (uint32_t i = 0; i < tokens_.special_tokens.size(); ++i) {
    const std::string& text = tokens_.special_tokens[i].bytes;
    if (std::find(data.markers.begin(), data.markers.end(), text) != data.markers.end()) marker_tokens_.push_back(i);
  }
}

void GrammarMaskCache::Entry::apply(std::span<uint64_t> out) const {
  for (size_t i = 0; i < mask.size(); ++i) out[i] |= mask[i];
  for (const int32_t id : tokens) set(out, id);
}

void GrammarMaskCache::fill(std::span<const GrammarThread> threads, const GrammarStacks& stacks,
                            std::span<uint64_t> mask) {
  const std::lock_guard lock(mutex_);
  make_room();
  const size_t work_before = states_.work();
  for (const GrammarThread& thread : threads.first(std::min(threads.size(), kMaxThreads))) {
    if (thread.node == GrammarData::kEndNode) continue;
    uint32_t id = 0, stack = thread.stack;
    if (states_.work() - work_before > kMaxFillWork) return;
    const Entry* entry = &first_entry(thread.node, id);
    entry->apply(mask);
    while (!entry->rests.empty() && stack != GrammarStacks::kBottom) {
      if (states_.work() - work_before > kMaxFillWork) return;
      entry = &next_entry(stacks.top(stack), id);
      entry->apply(mask);
      stack = stacks.below(stack);
    }
  }
}

void GrammarMaskCache::make_room() {
  if (num_bytes_ > kMaxBytes) {
    entries_.clear();
    entry_ids_.clear();
    num_bytes_ = 0;
  }
}

const GrammarMaskCache::Entry& GrammarMaskCache::first_entry(uint32_t node, uint32_t& id) {
  const uint64_t key = kFirstEntry | node;
  if (const auto found = entry_ids_.find(key); found != entry_ids_.end()) return *entries_[id = found->second];
  return remember(key, compute_first(node), id);
}

const GrammarMaskCache::Entry& GrammarMaskCache::next_entry(uint32_t return_node, uint32_t& id) {
  const uint64_t key = uint64_t{id} << 32 | return_node;
  if (const auto found = entry_ids_.find(key); found != entry_ids_.end()) return *entries_[id = found->second];
  return remember(key, compute_next(*entries_[id], return_node), id);
}

const GrammarMaskCache::Entry& GrammarMaskCache::remember(uint64_t key, Entry entry, uint32_t& id) {
  id = static_cast<uint32_t>(entries_.size());
  num_bytes_ += entry.num_bytes();
  entries_.push_back(std::make_unique<Entry>(std::move(entry)));
  entry_ids_.emplace(key, id);
  return *entries_.back();
}

GrammarMaskCache::Entry GrammarMaskCache::compute_first(uint32_t node) {
  if (states_.size() > kMaxStates || states_.num_stacks() > kMaxStacks) states_.clear();
  Entry entry;
  constexpr size_t kMaxLength = GrammarVocabulary::Data::kMaxPlainLength;
  const GrammarPlainRuns::Run run = plain_runs_.run_of(node, kMaxLength);
  if (run.length > 0 && (run.length == kMaxLength || run.is_exact)) {
    std::vector<uint64_t> allowed = tokens_.plain_masks[run.length];
    walk(tokens_.not_plain, states_.at(node), allowed, entry.rests);
    set_allowed(entry, std::move(allowed));
  } else {
    std::vector<uint64_t> allowed(tokens_.mask_words());
    walk(tokens_.all, states_.at(node), allowed, entry.rests);
    set_allowed(entry, std::move(allowed));
  }
  return entry;
}

// Follows the trie; below a prefix that no thread survives, tokens hang on the caller if some prefix of theirs
// returned.
void GrammarMaskCache::walk(const GrammarVocabulary::Data::Trie& trie, uint32_t state, std::vector<uint64_t>& allowed,
                            std::vector<Rest>& rests) {
  const size_t first_work = states_.work();
  // By depth: the state, and the largest depth up to there at which the rule returns.
  std::vector<uint32_t> path(tokens_.max_token_bytes + 1), last_return(tokens_.max_token_bytes + 1, 0);
  path[0] = state;
  for (uint32_t i = 0; i < trie.num_nodes();) {
    const auto& node = trie.nodes[i];
    const uint32_t depth = node.depth;
    if (states_.size() > kMaxStates) {
      std::vector<uint32_t> kept(path.begin(), path.begin() + depth);
      states_.keep_only(kept);
      std::copy(kept.begin(), kept.end(), path.begin());
    }
    path[depth] = states_.step(path[depth - 1], node.byte);
    if (states_.work() - first_work > kMaxWork) return;
    if (path[depth] == GrammarStates::kDead) {
      const uint32_t end_token = trie.nodes[node.end].first_token;
      for (uint32_t at = last_return[depth - 1]; at != 0; at = last_return[at - 1]) {
        for (uint32_t token = node.first_token; token < end_token && rests.size() < kMaxRests; ++token) {
          rests.push_back({trie.tokens[token], at});
        }
      }
      i = node.end;
      continue;
    }
    last_return[depth] = states_.returns(path[depth]) ? depth : last_return[depth - 1];
    for (uint32_t token = node.first_token; token < trie.nodes[i + 1].first_token; ++token) {
      set(allowed, tokens_.tokens[trie.tokens[token]].id);
    }
    ++i;
  }
}

GrammarMaskCache::Entry GrammarMaskCache::compute_next(const Entry& before, uint32_t return_node) {
  if (states_.size() > kMaxStates || states_.num_stacks() > kMaxStacks) states_.clear();
  const size_t first_work = states_.work();
  std::vector<uint32_t> start = {states_.entered(return_node)};
  Entry entry;
  std::vector<uint64_t> allowed(tokens_.mask_words());
  for (const Rest& rest : before.rests) {
    if (states_.size() > kMaxStates) states_.keep_only(start);
    if (states_.work() - first_work > kMaxWork) break;
    const std::string_view bytes = tokens_.bytes(tokens_.tokens[rest.token]);
    uint32_t state = start[0];
    size_t at = rest.offset;
    for (; state != GrammarStates::kDead; ++at) {
      if (states_.returns(state) && entry.rests.size() < kMaxRests) {
        entry.rests.push_back({rest.token, static_cast<uint32_t>(at)});
      }
      if (at == bytes.size()) break;
      state = states_.step(state, static_cast<uint8_t>(bytes[at]));
    }
    if (state != GrammarStates::kDead) set(allowed, tokens_.tokens[rest.token].id);
  }
  std::erase_if(entry.rests, [&](const Rest& rest) { return test(allowed, tokens_.tokens[rest.token].id); });
  std::sort(entry.rests.begin(), entry.rests.end());
  entry.rests.erase(std::unique(entry.rests.begin(), entry.rests.end()), entry.rests.end());
  set_allowed(entry, std::move(allowed));
  return entry;
}

// Few tokens are kept as a list, where that is smaller than the mask.
void GrammarMaskCache::set_allowed(Entry& entry, std::vector<uint64_t> allowed) const {
  size_t count = 0;
  for (const uint64_t word : allowed) count += static_cast<size_t>(std::popcount(word));
  if (count > allowed.size() / 2) {
    entry.mask = std::move(allowed);
    return;
  }
  entry.tokens.reserve(count);
  for (size_t i = 0; i < allowed.size(); ++i) {
    for (uint64_t word = allowed[i]; word != 0; word &= word - 1) {
      entry.tokens.push_back(static_cast<int32_t>(i * 64 + static_cast<size_t>(std::countr_zero(word))));
    }
  }
}

std::shared_ptr<GrammarMaskCache> mask_cache_of(const GrammarData& data,
                                                const std::shared_ptr<const GrammarVocabulary>& vocabulary) {
  const std::lock_guard lock(data.caches_mutex);
  for (const auto& cache : data.caches) {
    if (&cache->vocabulary() == vocabulary.get()) return cache;
  }
  if (data.caches.size() == kMaxCaches) data.caches.erase(data.caches.begin());
  data.caches.push_back(std::make_shared<GrammarMaskCache>(data, vocabulary));
  return data.caches.back();
}

}  // namespace hadal
