// Which blocks hold which token prefix. A full block is named by the hash of its tokens and of all blocks before it,
// beginning with the request's salt; equal names mean equal content, so a block may serve several sequences.
//
// Decides nothing about which blocks may be shared (kv_blocks.h). Single-owner: the engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace hadal {

// XXH3-128, seeded per process so that nobody can prepare colliding prompts.
struct BlockHash {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const BlockHash&) const = default;
};

class PrefixCache {
 public:
  PrefixCache(int32_t num_blocks, int64_t block_size);

  BlockHash root(std::string_view salt) const;
  // tokens: block_size ids that follow the prefix called `parent`.
  BlockHash extend(const BlockHash& parent, std::span<const int32_t> tokens) const;

  // The block called `hash`, or -1. The tokens are compared too, so a colliding name is a miss.
  int32_t find(const BlockHash& hash, std::span<const int32_t> tokens) const;
  // Names a block that has no name yet. Returns false, changing nothing, when another block has that name.
  bool insert(const BlockHash& hash, int32_t block, std::span<const int32_t> tokens);
  void erase(int32_t block);  // no-op for a block without a name
  bool contains(int32_t block) const { return named_[block]; }
  int64_t size() const { return static_cast<int64_t>(blocks_.size()); }
  // Whether names and blocks agree. For checks.
  bool consistent() const;

 private:
  struct HashOfHash {
    size_t operator()(const BlockHash& hash) const { return hash.low; }
  };

  int64_t block_size_;
  uint64_t hash_seed_;
  std::unordered_map<BlockHash, int32_t, HashOfHash> blocks_;
  std::vector<uint8_t> named_;      // [num_blocks]
  std::vector<BlockHash> names_;    // [num_blocks], of named ones
  std::vector<int32_t> token_ids_;  // [num_blocks, block_size], of named ones
};

}  // namespace hadal
