#include "bench/comm_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/resource_limits.h"
#include "tensor/bf16.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMostLoops = 1'000'000'000'000;

// The input is [world_size, ...]: at least an element per rank.
bool has_rows(CommTest test) { return test == CommTest::kReduceScatter || test == CommTest::kAllToAll; }

// A pool of 2 GiB, at least two pairs and at most 33: so that no iteration finds its input in a cache. Smaller where
// all ranks' pools (input and output) would take more than half of the memory that is free.
int64_t num_buffer_pairs(const CommBenchOptions& options, int64_t in_bytes, int64_t out_bytes, int world) {
  if (options.same_buffers) return 1;
  int64_t pool_bytes = int64_t{2} << 30;
  if (const auto free_bytes = available_memory_bytes()) {
    pool_bytes = std::min(pool_bytes, static_cast<int64_t>(*free_bytes / 4 / static_cast<uint64_t>(world)));
  }
  return std::clamp<int64_t>(pool_bytes / std::max(in_bytes, out_bytes), 2, 33);
}

// Element i of rank r; small integers, so that sums are exact in both types up to the tolerance below.
float input_value(int64_t i, int rank, int world) { return static_cast<float>(rank + world * (i % 13)); }

using Bytes = std::vector<std::byte>;

void store(DType dtype, Bytes& bytes, int64_t i, float value) {
  if (dtype == DType::kF32) {
    reinterpret_cast<float*>(bytes.data())[i] = value;
  } else {
    reinterpret_cast<bf16_t*>(bytes.data())[i] = f32_to_bf16(value);
  }
}

float load(DType dtype, const Bytes& bytes, int64_t i) {
  return dtype == DType::kF32 ? reinterpret_cast<const float*>(bytes.data())[i]
                              : bf16_to_f32(reinterpret_cast<const bf16_t*>(bytes.data())[i]);
}

bool is_gathered(const CommBenchOptions& options) {
  const bool reduces = options.test == CommTest::kAllReduce || options.test == CommTest::kReduce ||
                       options.test == CommTest::kReduceScatter;
  return reduces && options.reduction != CommReduction::kSum;
}

float join(CommReduction reduction, float a, float b) {
  return reduction == CommReduction::kSum ? a + b : reduction == CommReduction::kMin ? std::min(a, b) : std::max(a, b);
}

// With a ranks_list: the pairs in which this rank receives.
int64_t num_receives(const CommBenchOptions& options, int rank) {
  return std::count_if(options.ranks_list.begin(), options.ranks_list.end(),
                       [&](const auto& pair) { return pair.second == rank; });
}

// One run of the benchmark: shapes, buffers, the operation and what it must give.
class Run {
 public:
  Run(Communicator& comm, const CommBenchOptions& options)
      : comm_(comm), options_(options), rank_(comm.rank()), world_(comm.world_size()) {}

  void prepare();
  Status once(int64_t pair) { return operate(inputs_[pair], outputs_[pair]); }
  int64_t num_pairs() const { return static_cast<int64_t>(inputs_.size()); }
  Expected<CommBenchResult> measure();

 private:
  Status operate(Bytes& in, Bytes& out);
  Status exchange_with_peer(const Bytes& in, Bytes& out);
  Status gather_and_join(const Bytes& in, Bytes& out);
  std::pair<int, int> peers() const;  // to, from
  bool has_expectation() const;
  float expected(int64_t i) const;
  float input_of(int rank, int64_t i) const { return input_value(i, printed_rank(options_, rank), world_); }
  void check(const Bytes& in, const Bytes& out, CommBenchResult* result) const;

  Communicator& comm_;
  const CommBenchOptions& options_;
  const int rank_;
  const int world_;
  int64_t count_ = 0;      // elements of input
  int64_t out_count_ = 0;  // elements of output
  std::vector<Bytes> inputs_, outputs_;
  Bytes gathered_;  // inputs of all ranks, for min and max
};

void Run::prepare() {
  const int64_t element = static_cast<int64_t>(dtype_size_bytes(options_.dtype));
  const int64_t granule = has_rows(options_.test) ? world_ : 1;
  count_ = options_.size_bytes / element / granule * granule;
  out_count_ = options_.test == CommTest::kAllGather       ? count_ * world_
               : options_.test == CommTest::kReduceScatter ? count_ / world_
                                                           : count_;
  const int64_t pairs = num_buffer_pairs(options_, count_ * element, out_count_ * element, world_);
  Bytes input(count_ * element);
  for (int64_t i = 0; i < count_; ++i) store(options_.dtype, input, i, input_of(rank_, i));
  inputs_.assign(pairs, input);
  outputs_.assign(pairs, Bytes(out_count_ * element));
}

Status Run::operate(Bytes& in, Bytes& out) {
  if (is_gathered(options_)) return gather_and_join(in, out);
  switch (options_.test) {
    case CommTest::kBroadcast:
      if (rank_ == options_.root) return comm_.broadcast(in, options_.root);
      return comm_.broadcast(out, options_.root);
    case CommTest::kAllReduce:
    case CommTest::kReduce:  // ours work in place
      std::copy(in.begin(), in.end(), out.begin());
      if (options_.test == CommTest::kReduce) return comm_.reduce(out.data(), count_, options_.dtype, options_.root);
      return comm_.all_reduce(out.data(), count_, options_.dtype);
    case CommTest::kReduceScatter:
      return comm_.reduce_scatter(in.data(), out.data(), out_count_, options_.dtype);
    case CommTest::kAllGather:
      return comm_.all_gather(in, out.data());
    case CommTest::kAllToAll:
      return comm_.all_to_all(in.data(), out.data(), static_cast<int64_t>(in.size()) / world_);
    case CommTest::kSendRecv:
      return exchange_with_peer(in, out);
  }
  return {};
}

// One machine: ranks 2k and 2k + 1, the last odd one with itself. Several: the same local rank of the next and from the
// previous node.
std::pair<int, int> Run::peers() const {
  for (auto pair = options_.ranks_list.rbegin(); pair != options_.ranks_list.rend(); ++pair) {
    if (pair->second == rank_) return {rank_, pair->first};  // what came last
  }
  if (options_.num_nodes <= 1) {
    const int peer = rank_ ^ 1;
    return peer < world_ ? std::pair(peer, peer) : std::pair(rank_, rank_);
  }
  const int per_node = world_ / options_.num_nodes;
  return {(rank_ + per_node) % world_, (rank_ + world_ - per_node) % world_};
}

Status Run::gather_and_join(const Bytes& in, Bytes& out) {
  gathered_.resize(in.size() * static_cast<size_t>(world_));
  HADAL_RETURN_IF_ERROR(comm_.all_gather(in, gathered_.data()));
  if (options_.test == CommTest::kReduce && rank_ != options_.root) return {};
  const int64_t first = options_.test == CommTest::kReduceScatter ? rank_ * out_count_ : 0;
  for (int64_t i = 0; i < out_count_; ++i) {
    float joined = load(options_.dtype, gathered_, first + i);
    for (int64_t rank = 1; rank < world_; ++rank) {
      joined = join(options_.reduction, joined, load(options_.dtype, gathered_, rank * count_ + first + i));
    }
    store(options_.dtype, out, i, joined);
  }
  return {};
}

// Even places send first, so that nobody waits in a circle (with an odd number of nodes the last one breaks it).
Status Run::exchange_with_peer(const Bytes& in, Bytes& out) {
  for (const auto& [sender, receiver] : options_.ranks_list) {  // the first unfinished pair always can go on
    if (sender == receiver && rank_ == sender) out = in;
    if (sender == receiver) continue;
    if (rank_ == sender) HADAL_RETURN_IF_ERROR(comm_.send(in, receiver));
    if (rank_ == receiver) HADAL_RETURN_IF_ERROR(comm_.recv(out, sender));
  }
  if (!options_.ranks_list.empty()) return {};
  const auto [to, from] = peers();
  if (to == rank_) {
    out = in;
    return {};
  }
  const int place = options_.num_nodes <= 1 ? rank_ : rank_ / (world_ / options_.num_nodes);
  if (place % 2 == 0) {
    HADAL_RETURN_IF_ERROR(comm_.send(in, to));
    return comm_.recv(out, from);
  }
  HADAL_RETURN_IF_ERROR(comm_.recv(out, from));
  return comm_.send(in, to);
}

bool Run::has_expectation() const {
  if (!options_.check_correctness) return false;
  if (options_.test == CommTest::kBroadcast) return rank_ != options_.root;
  if (options_.test == CommTest::kSendRecv) return prints_headline(options_, rank_);
  return options_.test != CommTest::kReduce || rank_ == options_.root;
}

float Run::expected(int64_t i) const {
  const auto joined = [&](int64_t element) {
    float value = input_of(0, element);
    for (int rank = 1; rank < world_; ++rank) value = join(options_.reduction, value, input_of(rank, element));
    return value;
  };
  switch (options_.test) {
    case CommTest::kBroadcast:
      return input_of(options_.root, i);
    case CommTest::kAllReduce:
    case CommTest::kReduce:
      return joined(i);
    case CommTest::kReduceScatter:
      return joined(rank_ * out_count_ + i);
    case CommTest::kAllGather:
      return input_of(static_cast<int>(i / count_), i % count_);
    case CommTest::kAllToAll: {
      const int64_t row = count_ / world_;
      return input_of(static_cast<int>(i / row), rank_ * row + i % row);
    }
    case CommTest::kSendRecv:
      return input_of(peers().second, i);
  }
  return 0;
}

void Run::check(const Bytes& in, const Bytes& out, CommBenchResult* result) const {
  for (int64_t i = 0; i < std::min<int64_t>(4, count_); ++i)
    result->first_inputs.push_back(load(options_.dtype, in, i));
  for (int64_t i = 0; i < std::min<int64_t>(4, out_count_); ++i) {
    result->first_outputs.push_back(load(options_.dtype, out, i));
  }
  result->has_expectation = has_expectation();
  for (int64_t i = 0; result->has_expectation && i < out_count_; ++i) {
    const float value = load(options_.dtype, out, i), wanted = expected(i);
    // A bfloat16 holds 8 bits: each of up to 8 roundings on the way may move it by half of the last one.
    const float tolerance =
        options_.dtype == DType::kF32 || world_ == 1 ? 0 : std::abs(value) * std::min(world_, 8) / 256.0F;
    if (std::abs(value - wanted) <= tolerance) continue;
    result->is_correct = false;
    result->mismatch =
        fmt::format("index={}, expectedValue={}, value={}, thisRankId={}, tolerance={}, difference={}", i, wanted,
                    value, printed_rank(options_, rank_), tolerance, std::abs(value - wanted));
    return;
  }
}

Expected<CommBenchResult> Run::measure() {
  prepare();
  for (int i = 0; i < options_.num_warm_ups; ++i) HADAL_RETURN_IF_ERROR(once(i % num_pairs()));
  HADAL_RETURN_IF_ERROR(comm_.barrier());
  const auto begin = Clock::now();
  for (int64_t i = 0; i < options_.loop; ++i) HADAL_RETURN_IF_ERROR(once(i % num_pairs()));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  // Of odd sizes, too, the peer's headline tells what was asked for.
  CommBenchResult result{.size_bytes = options_.size_bytes,
                         .count = options_.size_bytes / static_cast<int64_t>(dtype_size_bytes(options_.dtype))};
  result.seconds = seconds / static_cast<double>(options_.loop);
  result.algo_bandwidth = static_cast<double>(result.size_bytes) / result.seconds;
  const auto receives = num_receives(options_, rank_);
  result.nw_bandwidth = result.algo_bandwidth * (receives > 0 ? receives : nw_factor(options_.test, world_));
  Bytes fresh(outputs_[0].size());
  HADAL_RETURN_IF_ERROR(operate(inputs_[0], fresh));
  check(inputs_[0], fresh, &result);
  for (int64_t i = 0; options_.keep_data && i < count_; ++i) {
    result.input.push_back(load(options_.dtype, inputs_[0], i));
  }
  for (int64_t i = 0; options_.keep_data && i < out_count_; ++i) {
    result.output.push_back(load(options_.dtype, fresh, i));
  }
  return result;
}

}  // namespace

double nw_factor(CommTest test, int world_size) {
  const double n = world_size;
  switch (test) {
    case CommTest::kAllReduce:
      return 2 * (n - 1) / n;
    case CommTest::kReduceScatter:
    case CommTest::kAllToAll:
      return (n - 1) / n;
    case CommTest::kAllGather:
      return n - 1;
    case CommTest::kBroadcast:
    case CommTest::kReduce:
    case CommTest::kSendRecv:
      return 1;
  }
  return 1;
}

int printed_rank(const CommBenchOptions& options, int rank) {
  return options.members.empty() ? rank : options.members[rank];
}

bool prints_headline(const CommBenchOptions& options, int rank) {
  if (options.test != CommTest::kSendRecv) return rank == options.root;
  return options.ranks_list.empty() || num_receives(options, rank) > 0;
}

Status check_comm_bench(const CommBenchOptions& options, int world) {
  if (options.loop < 1 || options.loop > kMostLoops) {
    return make_error(ErrorCode::kInvalidArgument, "--loop {}: 1 .. {} iterations", options.loop, kMostLoops);
  }
  if (options.root < 0 || options.root >= world) {
    return make_error(ErrorCode::kInvalidArgument, "--test_root {}: {} ranks, from 0", options.root, world);
  }
  const auto element = static_cast<int64_t>(dtype_size_bytes(options.dtype));
  const int64_t least = has_rows(options.test) ? element * world : element;
  if (options.size_bytes < least) {
    return make_error(ErrorCode::kInvalidArgument, "--size {}: {} of {} ranks needs at least {} bytes",
                      options.size_bytes, comm_test_name(options.test), world, least);
  }
  for (const auto& [sender, receiver] : options.ranks_list) {
    if (sender >= 0 && receiver >= 0 && sender < world && receiver < world) continue;
    return make_error(ErrorCode::kInvalidArgument, "--ranks_list: {},{} of {} ranks", sender, receiver, world);
  }
  if (options.num_nodes < 1 || (options.test == CommTest::kSendRecv && world % options.num_nodes != 0)) {
    return make_error(ErrorCode::kInvalidArgument, "{} ranks on {} nodes", world, options.num_nodes);
  }
  return {};
}

double comm_bench_bytes(const CommBenchOptions& options, int world) {
  const auto in = static_cast<double>(options.size_bytes);
  const double out = options.test == CommTest::kAllGather ? in * world : in;
  return 2 * (in + out) + out + (is_gathered(options) ? in * world : 0);
}

Expected<CommBenchResult> run_comm_bench(Communicator& comm, const CommBenchOptions& options) {
  HADAL_RETURN_IF_ERROR(check_comm_bench(options, comm.world_size()));
  return Run(comm, options).measure();
}

}  // namespace hadal
