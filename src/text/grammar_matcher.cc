#include "base/check.h"
#include "text/grammar_mask_cache.h"

namespace hadal {

struct GrammarMatcher::State {
  State(Grammar grammar_in, std::shared_ptr<const GrammarVocabulary> vocabulary_in)
      : grammar(std::move(grammar_in)),
        vocabulary(std::move(vocabulary_in)),
        cache(mask_cache_of(*grammar, vocabulary)),
        stepper(*grammar) {
    stepper.enter(grammar->start, GrammarStacks::kBottom, stacks, threads);
  }

  // The threads after `bytes`, in `reached`. False when they are not allowed.
  bool advance(std::string_view bytes) {
    reached = threads;
    for (const char byte : bytes) {
      std::swap(before, reached);
      if (!stepper.step(before, static_cast<uint8_t>(byte), stacks, reached) || reached.empty()) return false;
    }
    return true;
  }

  // Nothing for tokens that no grammar, or not this one, allows.
  std::string_view bytes_of(int32_t id) const {
    const GrammarVocabulary::Data& data = vocabulary->data();
    if (id < 0 || id >= data.size) return {};
    if (const uint32_t token = data.token_of_id[id]; token != GrammarVocabulary::Data::kNoToken) {
      return data.bytes(data.tokens[token]);
    }
    for (const uint32_t i : cache->marker_tokens()) {
      if (data.special_tokens[i].id == id) return data.special_tokens[i].bytes;
    }
    return {};
  }

  Grammar grammar;
  std::shared_ptr<const GrammarVocabulary> vocabulary;
  std::shared_ptr<GrammarMaskCache> cache;
  GrammarStacks stacks;
  GrammarStepper stepper;
  GrammarThreads threads;          // where the text so far may be
  GrammarThreads before, reached;  // scratch
};

GrammarMatcher::GrammarMatcher(Grammar grammar, std::shared_ptr<const GrammarVocabulary> vocabulary)
    : state_(std::make_unique<State>(std::move(grammar), std::move(vocabulary))) {}
GrammarMatcher::GrammarMatcher(const GrammarMatcher& other) : state_(std::make_unique<State>(*other.state_)) {}
GrammarMatcher::~GrammarMatcher() = default;
GrammarMatcher::GrammarMatcher(GrammarMatcher&&) noexcept = default;

void GrammarMatcher::fill_mask(std::span<uint64_t> mask) {
  const GrammarVocabulary::Data& data = state_->vocabulary->data();
  HADAL_CHECK(mask.size() == data.mask_words(), "a mask of {} words, the vocabulary needs {}", mask.size(),
              data.mask_words());
  std::fill(mask.begin(), mask.end(), 0);
  state_->cache->fill(state_->threads, state_->stacks, mask);
  for (const uint32_t i : state_->cache->marker_tokens()) {
    const auto& token = data.special_tokens[i];
    if (state_->advance(token.bytes)) mask[token.id / 64] |= uint64_t{1} << (token.id % 64);
  }
}

bool GrammarMatcher::accept(int32_t token_id) {
  const std::string_view bytes = state_->bytes_of(token_id);
  return !bytes.empty() && accept_bytes(bytes);
}

bool GrammarMatcher::accept_bytes(std::string_view bytes) {
  if (!state_->advance(bytes)) return false;
  std::swap(state_->threads, state_->reached);
  return true;
}

bool GrammarMatcher::can_end() const {
  return !state_->threads.empty() && state_->threads[0].node == GrammarData::kEndNode;
}

bool GrammarMatcher::must_end() const { return state_->threads.empty() || (state_->threads.size() == 1 && can_end()); }

}  // namespace hadal
