#include "engine/block_allocator.h"

#include "base/check.h"

namespace hadal {

BlockAllocator::BlockAllocator(int32_t num_blocks)
    : num_blocks_(num_blocks),
      num_free_(num_blocks),
      ref_counts_(num_blocks, 0),
      next_(num_blocks + 1),
      previous_(num_blocks + 1) {
  for (int32_t i = 0; i <= num_blocks; ++i) {
    next_[i] = i == num_blocks ? 0 : i + 1;
    previous_[i] = i == 0 ? num_blocks : i - 1;
  }
}

int32_t BlockAllocator::allocate() {
  if (num_free_ == 0) return kNoBlock;
  const int32_t block = next_[num_blocks_];
  unlink(block);
  ref_counts_[block] = 1;
  return block;
}

void BlockAllocator::acquire(int32_t block) {
  if (ref_counts_[block]++ == 0) unlink(block);
}

void BlockAllocator::release(int32_t block, bool keep_content) {
  HADAL_CHECK(ref_counts_[block] > 0, "block {} released more often than acquired", block);
  if (--ref_counts_[block] > 0) return;
  link_after(keep_content ? previous_[num_blocks_] : num_blocks_, block);
}

std::vector<int32_t> BlockAllocator::free_blocks() const {
  std::vector<int32_t> blocks;
  for (int32_t block = next_[num_blocks_]; block != num_blocks_; block = next_[block]) blocks.push_back(block);
  return blocks;
}

void BlockAllocator::unlink(int32_t block) {
  next_[previous_[block]] = next_[block];
  previous_[next_[block]] = previous_[block];
  --num_free_;
}

void BlockAllocator::link_after(int32_t where, int32_t block) {
  next_[block] = next_[where];
  previous_[block] = where;
  previous_[next_[where]] = block;
  next_[where] = block;
  ++num_free_;
}

}  // namespace hadal
