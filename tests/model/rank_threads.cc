#include "rank_threads.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include "comm/local_communicator.h"

namespace hadal {

Json ragged_config() {
  Json config = tiny_config();
  const Json changes = Json::parse(R"({"num_attention_heads": 8, "qk_nope_head_dim": 24, "v_head_dim": 20,
    "intermediate_size": 264, "moe_intermediate_size": 72, "vocab_size": 520})");
  for (const auto& [key, value] : changes.items()) config[key] = value;
  return config;
}

void run_ranks(int world_size, const RankBody& body) {
  const SegmentSizes sizes = {.world_size = world_size, .slot_bytes = 1 << 16, .piece_bytes = 4096};
  const int fd = SharedSegment::create(sizes).value();
  std::vector<std::string> errors(static_cast<size_t>(world_size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(rank, join_local_group(fd, {.rank = rank, .sizes = sizes, .timeout = std::chrono::minutes(2)}).value());
      } catch (const std::exception& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  close(fd);
  std::string text;
  for (const std::string& error : errors) text += error.empty() ? "" : error + "\n";
  if (!text.empty()) throw std::runtime_error(text);
}

Logits run_scenario(const std::filesystem::path& dir, TestRunner::Options options, int world_size, bool expert_parallel,
                    const Scenario& scenario, const std::function<int(int rank)>& threads_of) {
  options.slice = {.world_size = world_size, .expert_parallel = expert_parallel};
  if (world_size == 1) {
    TestRunner runner(dir, options);
    return scenario(runner);
  }
  Logits logits;
  run_ranks(world_size, [&](int rank, std::unique_ptr<Communicator> communicator) {
    TestRunner::Options mine = options;
    mine.slice.rank = rank;
    mine.communicator = communicator.get();
    if (threads_of) mine.num_threads = threads_of(rank);
    TestRunner runner(dir, mine);
    Logits got = scenario(runner);
    if (rank == 0) logits = std::move(got);
  });
  return logits;
}

Logits prefill_and_decode(TestRunner& runner) {
  TestSequence sequence = runner.make_sequence(random_ids(47, 512, 7), 8);
  sequence.expanded_end = 40;
  TestSequence* const sequences[] = {&sequence};
  for (const int64_t chunk : {27, 16, 1, 1, 2}) runner.step(sequences, {&chunk, 1});
  return sequence.logits;
}

void expect_same_bits(const Logits& got, const Logits& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_EQ(got[i].size(), wanted[i].size());
    ASSERT_EQ(std::memcmp(got[i].data(), wanted[i].data(), got[i].size() * sizeof(float)), 0) << "position " << i;
  }
}

}  // namespace hadal
