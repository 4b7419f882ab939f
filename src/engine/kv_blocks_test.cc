#include "engine/kv_blocks.h"

#include <gtest/gtest.h>

#include <numeric>

namespace hadal {
namespace {

std::vector<int32_t> count_up(int64_t size, int32_t first = 0) {
  std::vector<int32_t> ids(size);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

TEST(BlockAllocator, HandsOutUnkeptBlocksFirstAndKeptOnesOldestFirst) {
  BlockAllocator allocator(4);
  for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(allocator.allocate(), i);
  EXPECT_EQ(allocator.allocate(), BlockAllocator::kNoBlock);
  allocator.release(2, true);
  allocator.release(0, true);
  allocator.release(3, false);
  EXPECT_EQ(allocator.free_blocks(), (std::vector<int32_t>{3, 2, 0}));
  allocator.acquire(2);  // used again: not the oldest any more
  EXPECT_EQ(allocator.ref_count(2), 1);
  allocator.release(2, true);
  EXPECT_EQ(allocator.free_blocks(), (std::vector<int32_t>{3, 0, 2}));
}

TEST(BlockAllocator, FreesWithTheLastReferenceOnly) {
  BlockAllocator allocator(1);
  allocator.allocate();
  allocator.acquire(0);
  allocator.release(0, true);
  EXPECT_EQ(allocator.num_free(), 0);
  allocator.release(0, true);
  EXPECT_EQ(allocator.num_free(), 1);
}

TEST(PrefixCache, NamesDependOnSaltParentAndTokens) {
  PrefixCache cache(8, 4);
  const auto a = count_up(4), b = count_up(4, 1);
  EXPECT_EQ(cache.extend(cache.root("s"), a), cache.extend(cache.root("s"), a));
  EXPECT_FALSE(cache.extend(cache.root("s"), a) == cache.extend(cache.root("t"), a));
  EXPECT_FALSE(cache.extend(cache.root("s"), a) == cache.extend(cache.root("s"), b));
  const BlockHash first = cache.extend(cache.root(""), a);
  EXPECT_FALSE(cache.extend(first, a) == first);
}

TEST(PrefixCache, ComparesTokensSoThatACollisionIsAMiss) {
  PrefixCache cache(8, 4);
  const BlockHash name{1, 2};
  EXPECT_TRUE(cache.insert(name, 5, count_up(4)));
  EXPECT_EQ(cache.find(name, count_up(4)), 5);
  EXPECT_EQ(cache.find(name, count_up(4, 1)), -1);
  EXPECT_FALSE(cache.insert(name, 6, count_up(4)));
  EXPECT_TRUE(cache.consistent());
  cache.erase(5);
  EXPECT_EQ(cache.find(name, count_up(4)), -1);
  EXPECT_TRUE(cache.consistent());
}

// Admits, publishes and releases one sequence of `tokens`.
void run_through(KvBlocks& blocks, const std::vector<int32_t>& tokens, int64_t shareable_end,
                 std::string_view salt = "") {
  SequenceBlocks sequence;
  ASSERT_TRUE(blocks.admit(sequence, {.tokens = tokens, .salt = salt, .shareable_end = shareable_end}));
  blocks.publish(sequence, tokens, salt, shareable_end);
  blocks.release(sequence);
}

TEST(KvBlocks, FindsFullBlocksBelowTheShareableEndOfBoth) {
  KvBlocks blocks(64, 4, true);
  const auto tokens = count_up(30);
  run_through(blocks, tokens, 24);
  const auto hit = [&](int64_t length, int64_t shareable_end) {
    SequenceBlocks sequence;
    const auto cached =
        blocks.admit(sequence, {.tokens = std::span(tokens).first(length), .salt = "", .shareable_end = shareable_end});
    blocks.release(sequence);
    return cached.value();
  };
  EXPECT_EQ(hit(30, 24), 24);
  EXPECT_EQ(hit(30, 28), 24);  // the first one published no more
  EXPECT_EQ(hit(30, 16), 16);  // this one's tail begins earlier
  EXPECT_EQ(hit(16, 16), 12);  // the last token, and with it its block, always runs
  EXPECT_EQ(hit(17, 16), 16);
}

TEST(KvBlocks, SaltSeparates) {
  KvBlocks blocks(64, 4, true);
  const auto tokens = count_up(17);
  run_through(blocks, tokens, 16, "alice");
  SequenceBlocks sequence;
  EXPECT_EQ(blocks.admit(sequence, {.tokens = tokens, .salt = "bob", .shareable_end = 16}), 0);
  SequenceBlocks other;
  EXPECT_EQ(blocks.admit(other, {.tokens = tokens, .salt = "alice", .shareable_end = 16}), 16);
}

TEST(KvBlocks, EvictsTheEndOfThePrefixBeforeItsBeginning) {
  KvBlocks blocks(6, 4, true);
  const auto tokens = count_up(17);
  run_through(blocks, tokens, 16);  // five blocks, four of them published
  SequenceBlocks stranger;
  const auto others = count_up(12, 100);
  ASSERT_TRUE(blocks.admit(stranger, {.tokens = others, .salt = "", .shareable_end = 0}));
  blocks.release(stranger);  // took the two unpublished blocks and one published: the last
  SequenceBlocks sequence;
  EXPECT_EQ(blocks.admit(sequence, {.tokens = tokens, .salt = "", .shareable_end = 16}), 12);
}

TEST(KvBlocks, RefusesWithoutChangeWhenShort) {
  KvBlocks blocks(6, 4, true);
  const auto tokens = count_up(17);
  run_through(blocks, tokens, 16);
  SequenceBlocks sequence;
  // Four cached blocks are free themselves: taking them leaves two, one of which is needed, none to spare.
  EXPECT_FALSE(blocks.admit(sequence, {.tokens = tokens, .salt = "", .shareable_end = 16, .headroom_blocks = 2}));
  EXPECT_TRUE(sequence.table.empty());
  EXPECT_EQ(blocks.allocator().num_free(), 6);
  EXPECT_EQ(blocks.admit(sequence, {.tokens = tokens, .salt = "", .shareable_end = 16, .headroom_blocks = 1}), 16);
  EXPECT_TRUE(blocks.grow(sequence, 24));
  EXPECT_FALSE(blocks.grow(sequence, 25));
  EXPECT_EQ(sequence.table.size(), 6u);
}

TEST(KvBlocks, DropsOnlyUnusedNames) {
  KvBlocks blocks(16, 4, true);
  const auto used = count_up(9), unused = count_up(9, 50);
  run_through(blocks, unused, 8);
  SequenceBlocks holder;
  ASSERT_TRUE(blocks.admit(holder, {.tokens = used, .salt = "", .shareable_end = 8}));
  blocks.publish(holder, used, "", 8);
  blocks.drop_unused_cached();
  SequenceBlocks a, b;
  EXPECT_EQ(blocks.admit(a, {.tokens = used, .salt = "", .shareable_end = 8}), 8);
  EXPECT_EQ(blocks.admit(b, {.tokens = unused, .salt = "", .shareable_end = 8}), 0);
}

TEST(KvBlocks, CachesNothingWhenSwitchedOff) {
  KvBlocks blocks(16, 4, false);
  run_through(blocks, count_up(9), 8);
  EXPECT_EQ(blocks.prefix_cache().size(), 0);
}

}  // namespace
}  // namespace hadal
