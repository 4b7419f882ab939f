#include "engine/scheduler_policy.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

TEST(SchedulerPolicy, RanksByPriorityThenArrival) {
  EXPECT_TRUE(runs_before({.priority = -1, .arrival = 9}, {.priority = 0, .arrival = 1}));
  EXPECT_TRUE(runs_before({.priority = 2, .arrival = 1}, {.priority = 2, .arrival = 3}));
  EXPECT_FALSE(runs_before({.priority = 2, .arrival = 3}, {.priority = 2, .arrival = 3}));
}

struct ChunkCase {
  const char* what;
  ChunkLimits limits;
  int64_t expected;
};

TEST(SchedulerPolicy, ChunkLengths) {
  const auto limits = [](int64_t first, int64_t remaining, int64_t expanded_end, int64_t budget, int64_t max_chunk) {
    return ChunkLimits{.first_position = first,
                       .num_remaining_tokens = remaining,
                       .expanded_end = expanded_end,
                       .tile_tokens = 256,
                       .budget_tokens = budget,
                       .max_chunk_tokens = max_chunk};
  };
  const ChunkCase cases[] = {
      {"a whole prompt that fits", limits(0, 700, 512, 1024, 0), 700},
      {"stops at a tile's end", limits(0, 1500, 1280, 700, 0), 512},
      {"reaches no tile's end: takes what it may", limits(0, 1500, 1280, 200, 0), 200},
      {"finishes a tile begun earlier", limits(200, 1300, 1280, 300, 0), 56},
      {"ends inside the tail", limits(1024, 476, 1280, 400, 0), 400},
      {"ends where the tail begins", limits(1024, 476, 1280, 256, 0), 256},
      {"own chunk limit", limits(0, 1500, 1280, 700, 64), 64},
      {"one token at a time", limits(255, 1245, 1280, 700, 1), 1},
      {"no budget", limits(0, 10, 0, 0, 0), 0},
  };
  for (const ChunkCase& c : cases) EXPECT_EQ(chunk_tokens(c.limits), c.expected) << c.what;
}

}  // namespace
}  // namespace hadal
