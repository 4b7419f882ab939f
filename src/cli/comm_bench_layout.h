// Where the ranks of `hadal comm bench` are, as hccl_demo's flags and environment say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/comm_bench_job.h"
#include "comm/rank_group.h"

namespace hadal {

// A group of all ranks, or of those of --custom_comm: numbers inside it, and who is where.
struct CommBenchLayout {
  std::vector<int> members;  // hccl_demo's ranks, ascending
  int ranks_per_node = 1;
  std::string host;   // of rank 0, which listens there
  uint16_t port = 0;  // 0: rank 0 chooses

  int node_of(int member) const { return member / ranks_per_node; }
  std::vector<int> nodes() const {
    std::vector<int> found;
    for (const int member : members) {
      if (found.empty() || found.back() != node_of(member)) found.push_back(node_of(member));
    }
    return found;
  }
  // `rank`: inside the group, below members.size().
  RankIdentity identity_of(size_t rank, const CommBenchJob& job) const;
};

// Errors: kInvalidArgument naming the flag or HCCL_COMM_ID.
Expected<CommBenchLayout> plan_comm_bench_layout(const CommBenchJob& job);

}  // namespace hadal
