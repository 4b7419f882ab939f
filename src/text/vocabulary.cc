#include "text/vocabulary.h"

#include <bit>

#include "base/check.h"

namespace hadal {

Vocabulary::Vocabulary(const std::vector<std::string>& tokens, const std::vector<bool>& findable) {
  HADAL_CHECK(tokens.size() == findable.size());
  offsets_.reserve(tokens.size() + 1);
  offsets_.push_back(0);
  for (const std::string& token : tokens) {
    arena_ += token;
    offsets_.push_back(static_cast<uint32_t>(arena_.size()));
  }
  slots_.resize(std::bit_ceil(2 * tokens.size() + 2));
  mask_ = slots_.size() - 1;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!findable[id]) continue;
    const uint64_t hash = hash_of(tokens[id]);
    size_t slot = hash & mask_;
    while (slots_[slot].id != kNoToken) slot = (slot + 1) & mask_;
    slots_[slot] = {static_cast<int32_t>(id), static_cast<uint32_t>(hash >> 32)};
  }
}

}  // namespace hadal
