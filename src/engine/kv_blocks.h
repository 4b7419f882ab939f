// The block tables of sequences: reserves, shares, publishes and returns blocks of the KV cache.
//
// Which content may be shared is decided by `shareable_end` alone: the caller passes the end of the prompt's full tiles
// (design.md 4 e), since only there does a token's content depend on the tokens up to it and nothing else. Named or
// shared blocks are never written again. Single-owner: the engine thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/block_allocator.h"
#include "engine/prefix_cache.h"

namespace hadal {

struct SequenceBlocks {
  std::vector<int32_t> table;     // block of positions [i * block_size, (i + 1) * block_size)
  std::vector<BlockHash> hashes;  // names of the leading full blocks, as far as needed yet; outlive preemption
  int64_t num_published = 0;      // leading blocks found in, or offered to, the prefix cache
};

struct AdmissionNeeds {
  std::span<const int32_t> tokens;  // all that are known: prompt and, after preemption, generated ones
  std::string_view salt;
  int64_t shareable_end = 0;    // tokens
  bool use_cached = true;       // false: everything is computed anew
  int64_t headroom_blocks = 0;  // must stay free
};

class KvBlocks {
 public:
  KvBlocks(int64_t num_blocks, int64_t block_size, bool enable_prefix_caching);

  int64_t block_size() const { return block_size_; }
  int64_t blocks_for(int64_t num_tokens) const { return (num_tokens + block_size_ - 1) / block_size_; }

  // Gives an empty sequence blocks for all its tokens, the leading ones from the cache where possible. Returns the
  // number of tokens found there, always less than all; nothing and no change when blocks are short.
  std::optional<int64_t> admit(SequenceBlocks& blocks, const AdmissionNeeds& needs);
  // Makes the table cover num_tokens. False, and no change, when blocks are short.
  bool grow(SequenceBlocks& blocks, int64_t num_tokens);
  // Offers the blocks whose rows are computed, as far as shareable.
  void publish(SequenceBlocks& blocks, std::span<const int32_t> computed, std::string_view salt, int64_t shareable_end);
  // Returns all blocks. Published ones stay findable until they are handed out again, later ones first.
  void release(SequenceBlocks& blocks);
  // Forgets the names of all blocks that no sequence holds.
  void drop_unused_cached();

  const BlockAllocator& allocator() const { return allocator_; }
  const PrefixCache& prefix_cache() const { return cache_; }

 private:
  void extend_hashes(SequenceBlocks& blocks, std::span<const int32_t> tokens, std::string_view salt, int64_t count);
  int32_t allocate();

  int64_t block_size_;
  bool enable_prefix_caching_;
  BlockAllocator allocator_;
  PrefixCache cache_;
  std::vector<int32_t> matched_;  // scratch of admit
};

}  // namespace hadal
