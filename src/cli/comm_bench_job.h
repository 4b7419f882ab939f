// The ranks of `hadal comm bench`: where they are, as hccl_demo's flags and environment say, and what each of them
// does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/comm_bench.h"

namespace hadal {

struct CommBenchJob {
  std::vector<CommTest> tests;
  CommBenchOptions bench;  // test and size_bytes are set from the lists
  std::vector<int64_t> sizes;
  bool is_range = false;  // prints the table
  std::string result_csv, data_csv;

  int nranks = -1, node_id = -1, ranks_per_node = -1;  // -1: not given
  std::vector<int> custom_comm;                        // ranks that take part; empty: all
  std::string comm_id;                                 // "host:port" of node 0; empty: one machine
  std::string interface_name, token;
  int timeout_minutes = 0;  // 0: none
};

// As parse_comm_size; a letter that is no unit is complained of on stderr and means bytes, as in hccl_demo.
Expected<int64_t> read_comm_size(const std::string& text);
// Sizes MIN, MIN * 2^inc ... <= MAX. Errors: kInvalidArgument.
Expected<std::vector<int64_t>> comm_size_range(const std::string& min, const std::string& max, int inc);
// "0,1,8,9". Errors: kInvalidArgument naming the flag.
Expected<std::vector<int>> parse_rank_list(const std::string& flag, const std::string& text);

// Starts this node's ranks, each a process, and waits for all. Call before any thread exists. Returns an exit code.
int run_comm_bench_job(const CommBenchJob& job);

}  // namespace hadal
