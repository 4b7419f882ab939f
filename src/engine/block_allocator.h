// Block ids of the KV cache with reference counts. Knows neither what a block holds nor who uses it.
//
// Released blocks keep their content until they are handed out again: those worth keeping are handed out last, in the
// order of their release (least recently used first). Single-owner: the engine thread. All operations are O(1).
#pragma once

#include <cstdint>
#include <vector>

namespace hadal {

class BlockAllocator {
 public:
  static constexpr int32_t kNoBlock = -1;

  explicit BlockAllocator(int32_t num_blocks);

  int32_t num_blocks() const { return num_blocks_; }
  int32_t num_free() const { return num_free_; }
  int32_t ref_count(int32_t block) const { return ref_counts_[block]; }

  // A free block with one reference, or kNoBlock. Its old content is lost: the caller forgets what it held.
  int32_t allocate();
  // Adds a reference, to a free block (whose content is then used again) or to a used one.
  void acquire(int32_t block);
  // Drops a reference. The last one frees the block; `keep_content` puts it at the far end of the free list.
  void release(int32_t block, bool keep_content);

  // In the order of their future allocation. For checks.
  std::vector<int32_t> free_blocks() const;

 private:
  void unlink(int32_t block);
  void link_after(int32_t where, int32_t block);

  int32_t num_blocks_;
  int32_t num_free_;
  std::vector<int32_t> ref_counts_;
  // Doubly linked ring of free blocks; entry num_blocks_ is the anchor.
  std::vector<int32_t> next_;
  std::vector<int32_t> previous_;
};

}  // namespace hadal
