#include "engine/prefix_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "base/check.h"

namespace hadal {
namespace {

BlockHash from_xxh(XXH128_hash_t hash) { return {hash.low64, hash.high64}; }

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

}  // namespace

PrefixCache::PrefixCache(int32_t num_blocks, int64_t block_size)
    : block_size_(block_size),
      hash_seed_(random_seed()),
      named_(num_blocks, 0),
      names_(num_blocks),
      token_ids_(num_blocks * block_size) {
  blocks_.reserve(num_blocks);
}

BlockHash PrefixCache::root(std::string_view salt) const {
  return from_xxh(XXH3_128bits_withSeed(salt.data(), salt.size(), hash_seed_));
}

BlockHash PrefixCache::extend(const BlockHash& parent, std::span<const int32_t> tokens) const {
  // The tokens' own hash first: it needs no copy of them behind the parent's name.
  const BlockHash words[2] = {parent, from_xxh(XXH3_128bits_withSeed(tokens.data(), tokens.size_bytes(), hash_seed_))};
  return from_xxh(XXH3_128bits_withSeed(words, sizeof words, hash_seed_));
}

int32_t PrefixCache::find(const BlockHash& hash, std::span<const int32_t> tokens) const {
  const auto found = blocks_.find(hash);
  if (found == blocks_.end()) return -1;
  const int32_t* stored = token_ids_.data() + found->second * block_size_;
  return std::equal(tokens.begin(), tokens.end(), stored, stored + block_size_) ? found->second : -1;
}

bool PrefixCache::insert(const BlockHash& hash, int32_t block, std::span<const int32_t> tokens) {
  HADAL_CHECK(!named_[block] && static_cast<int64_t>(tokens.size()) == block_size_, "block {}", block);
  if (!blocks_.emplace(hash, block).second) return false;
  named_[block] = 1;
  names_[block] = hash;
  std::copy(tokens.begin(), tokens.end(), token_ids_.begin() + block * block_size_);
  return true;
}

void PrefixCache::erase(int32_t block) {
  if (!named_[block]) return;
  named_[block] = 0;
  blocks_.erase(names_[block]);
}

bool PrefixCache::consistent() const {
  const auto num_named = std::count(named_.begin(), named_.end(), 1);
  if (num_named != size()) return false;
  return std::all_of(blocks_.begin(), blocks_.end(),
                     [&](const auto& entry) { return named_[entry.second] && names_[entry.second] == entry.first; });
}

}  // namespace hadal
