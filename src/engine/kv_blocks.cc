#include "engine/kv_blocks.h"

#include <algorithm>

#include "base/check.h"

namespace hadal {

KvBlocks::KvBlocks(int64_t num_blocks, int64_t block_size, bool enable_prefix_caching)
    : block_size_(block_size),
      enable_prefix_caching_(enable_prefix_caching),
      allocator_(static_cast<int32_t>(num_blocks)),
      cache_(static_cast<int32_t>(num_blocks), enable_prefix_caching ? block_size : 0) {}

std::optional<int64_t> KvBlocks::admit(SequenceBlocks& blocks, const AdmissionNeeds& needs) {
  HADAL_CHECK(blocks.table.empty() && !needs.tokens.empty());
  const int64_t num_tokens = static_cast<int64_t>(needs.tokens.size());
  matched_.clear();
  int64_t num_matched_free = 0;
  if (enable_prefix_caching_ && needs.use_cached) {
    // The last token always runs, for its logits, and with it its block: rows of a shared block are not written.
    const int64_t count = std::min(needs.shareable_end, num_tokens - 1) / block_size_;
    extend_hashes(blocks, needs.tokens, needs.salt, count);
    for (int64_t i = 0; i < count; ++i) {
      const int32_t block = cache_.find(blocks.hashes[i], needs.tokens.subspan(i * block_size_, block_size_));
      if (block < 0) break;
      matched_.push_back(block);
      num_matched_free += allocator_.ref_count(block) == 0;
    }
  }
  const int64_t num_matched = static_cast<int64_t>(matched_.size());
  const int64_t num_new = blocks_for(num_tokens) - num_matched;
  if (allocator_.num_free() - num_matched_free < num_new + needs.headroom_blocks) return std::nullopt;

  for (const int32_t block : matched_) allocator_.acquire(block);
  blocks.table.assign(matched_.begin(), matched_.end());
  for (int64_t i = 0; i < num_new; ++i) blocks.table.push_back(allocate());
  blocks.num_published = num_matched;
  return num_matched * block_size_;
}

bool KvBlocks::grow(SequenceBlocks& blocks, int64_t num_tokens) {
  const int64_t missing = blocks_for(num_tokens) - static_cast<int64_t>(blocks.table.size());
  if (missing > allocator_.num_free()) return false;
  for (int64_t i = 0; i < missing; ++i) blocks.table.push_back(allocate());
  return true;
}

void KvBlocks::publish(SequenceBlocks& blocks, std::span<const int32_t> computed, std::string_view salt,
                       int64_t shareable_end) {
  if (!enable_prefix_caching_) return;
  const int64_t count = std::min(shareable_end, static_cast<int64_t>(computed.size())) / block_size_;
  if (count <= blocks.num_published) return;
  extend_hashes(blocks, computed, salt, count);
  for (int64_t i = blocks.num_published; i < count; ++i) {
    // A refusal means that a stranger computed the same block meanwhile; ours stays private.
    cache_.insert(blocks.hashes[i], blocks.table[i], computed.subspan(i * block_size_, block_size_));
  }
  blocks.num_published = count;
}

void KvBlocks::release(SequenceBlocks& blocks) {
  // Last block first: a prefix is useless without its beginning, so the beginning is to live longest.
  for (auto block = blocks.table.rbegin(); block != blocks.table.rend(); ++block) {
    allocator_.release(*block, cache_.contains(*block));
  }
  blocks.table.clear();
  blocks.num_published = 0;
}

void KvBlocks::drop_unused_cached() {
  for (int32_t block = 0; block < allocator_.num_blocks(); ++block) {
    if (allocator_.ref_count(block) == 0) cache_.erase(block);
  }
}

void KvBlocks::extend_hashes(SequenceBlocks& blocks, std::span<const int32_t> tokens, std::string_view salt,
                             int64_t count) {
  for (int64_t i = static_cast<int64_t>(blocks.hashes.size()); i < count; ++i) {
    const BlockHash parent = i == 0 ? cache_.root(salt) : blocks.hashes[i - 1];
    blocks.hashes.push_back(cache_.extend(parent, tokens.subspan(i * block_size_, block_size_)));
  }
}

int32_t KvBlocks::allocate() {
  const int32_t block = allocator_.allocate();
  HADAL_CHECK(block != BlockAllocator::kNoBlock, "caller counted the free blocks");
  cache_.erase(block);
  return block;
}

}  // namespace hadal
