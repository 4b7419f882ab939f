// The link test of the Gaudi guide (HabanaAI/hccl_demo): collectives timed and checked, printed in its format to the
// letter, over any Communicator. Sizes are bytes of input per rank; GB is 1e9 bytes.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "comm/communicator.h"

namespace hadal {

enum class CommTest { kBroadcast, kAllReduce, kReduceScatter, kAllGather, kSendRecv, kReduce, kAllToAll };

// "all_reduce" ...; errors: kInvalidArgument with the nearest name.
Expected<CommTest> parse_comm_test(const std::string& name);
const char* comm_test_name(CommTest test);  // "all_reduce"
std::vector<CommTest> all_comm_tests();

// "32m", "1.5G", "512": powers of 1024, any case. Errors: kInvalidArgument.
Expected<int64_t> parse_comm_size(const std::string& text);

// Ranks of a model only sum: the transports do that alone. Of the others all inputs are gathered and joined here.
enum class CommReduction { kSum, kMin, kMax };
Expected<CommReduction> parse_comm_reduction(const std::string& name);  // "sum"; errors: kInvalidArgument
const char* comm_reduction_name(CommReduction reduction);

struct CommBenchOptions {
  CommTest test = CommTest::kBroadcast;
  bool latency = false;  // --measure latency, else bw
  int64_t size_bytes = 33'554'432;
  int64_t loop = 1000;
  int num_warm_ups = 1;
  int root = 0;  // of the operation, and the rank that prints; inside the group
  DType dtype = DType::kF32;
  CommReduction reduction = CommReduction::kSum;
  bool same_buffers = false;
  bool check_correctness = true;
  bool keep_data = false;    // input and output of the check go into the result
  int num_nodes = 1;         // send_recv pairs neighbours on one machine, and nodes in a ring on several
  std::vector<int> members;  // of --custom_comm: the group's ranks as hccl_demo numbers them; empty: 0, 1, ...
  std::vector<std::pair<int, int>> ranks_list;  // of send_recv, sender and receiver: instead of those pairs
};

struct CommBenchResult {
  int64_t size_bytes = 0;                       // input of a rank, as asked for
  int64_t count = 0;                            // its whole elements
  double seconds = 0;                           // per iteration
  double algo_bandwidth = 0, nw_bandwidth = 0;  // bytes/s
  bool has_expectation = false;                 // this rank has something to compare with
  bool is_correct = true;
  std::vector<float> first_inputs, first_outputs;  // for the line of this rank
  std::string mismatch;                            // the first one, in the peer's words
  std::vector<float> input, output;                // with keep_data
};

// What can be told before the ranks start. Errors: kInvalidArgument (numbers out of range, sizes too small).
Status check_comm_bench(const CommBenchOptions& options, int world_size);
// Bytes that one rank needs at least: two pairs of buffers, the output of the check, for min and max what is gathered.
// May be more than there is.
double comm_bench_bytes(const CommBenchOptions& options, int world_size);

// Collective: all ranks call it with equal options. Errors: of the communicator; of check_comm_bench.
Expected<CommBenchResult> run_comm_bench(Communicator& comm, const CommBenchOptions& options);

// Bytes over the network per input byte (2(n-1)/n for all_reduce ...).
double nw_factor(CommTest test, int world_size);

// Whether this rank prints headlines: the root; in send_recv every rank, with a ranks_list every receiver.
bool prints_headline(const CommBenchOptions& options, int rank);
// hccl_demo's number of a rank of the group: what inputs are made of, and what is printed as `rank` below.
int printed_rank(const CommBenchOptions& options, int rank);
// What it prints for one size.
std::string comm_bench_headline(const CommBenchOptions& options, const CommBenchResult& result, int rank);
// What every rank prints about its check, "" without an expectation.
std::string comm_bench_check_line(const CommBenchOptions& options, const CommBenchResult& result, int rank);
// The table at the end of a size range.
std::string comm_bench_summary(const CommBenchOptions& options, const std::vector<CommBenchResult>& results);
// A line of --result_csv, without a line break.
std::string comm_bench_csv(const CommBenchOptions& options, const CommBenchResult& result, int rank);

}  // namespace hadal
