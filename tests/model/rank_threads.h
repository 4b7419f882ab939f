// Ranks as threads of one process, each with its own model and a communicator through shared memory.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "tiny_model.h"

namespace hadal {

// As tiny_config(), but rows of a head, columns of o_proj and widths of MLPs end inside scale blocks and panels, leaves
// of experts have odd widths, the vocabulary leaves ranks without a share. 8 heads.
Json ragged_config();

// Joins `world_size` threads to a group and calls body(rank, communicator) on each. What they throw is thrown again
// when all are done.
using RankBody = std::function<void(int rank, std::unique_ptr<Communicator> communicator)>;
void run_ranks(int world_size, const RankBody& body);

using Logits = std::vector<std::vector<float>>;
using Scenario = std::function<Logits(TestRunner&)>;

// What a scenario gives on rank 0 when all ranks run it; a single rank has no communicator. threads_of: of a rank's
// pool, where they differ.
Logits run_scenario(const std::filesystem::path& dir, TestRunner::Options options, int world_size, bool expert_parallel,
                    const Scenario& scenario, const std::function<int(int rank)>& threads_of = {});

// A prompt in chunks (full tiles in the expanded form, a tail), then tokens one by one.
Logits prefill_and_decode(TestRunner& runner);

void expect_same_bits(const Logits& got, const Logits& wanted);

}  // namespace hadal
