#include "bench/comm_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>

#include <fmt/ranges.h>

#include "base/names.h"
#include "tensor/bf16.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

struct TestFacts {
  CommTest test;
  const char* name;
  bool has_rows;  // the input is [world_size, ...]: at least an element per rank
};
constexpr TestFacts kTests[] = {{CommTest::kBroadcast, "broadcast", false},
                                {CommTest::kAllReduce, "all_reduce", false},
                                {CommTest::kReduceScatter, "reduce_scatter", true},
                                {CommTest::kAllGather, "all_gather", false},
                                {CommTest::kSendRecv, "send_recv", false},
                                {CommTest::kReduce, "reduce", false},
                                {CommTest::kAllToAll, "all2all", true}};

const TestFacts& facts_of(CommTest test) {
  return *std::find_if(std::begin(kTests), std::end(kTests), [&](const TestFacts& f) { return f.test == test; });
}

// A pool of 2 GiB, at least two pairs and at most 33: so that no iteration finds its input in a cache.
constexpr int64_t kPoolBytes = int64_t{2} << 30;
int64_t num_buffer_pairs(const CommBenchOptions& options, int64_t in_bytes, int64_t out_bytes) {
  if (options.same_buffers) return 1;
  return std::clamp<int64_t>(kPoolBytes / std::max(in_bytes, out_bytes), 2, 33);
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

// One run of the benchmark: shapes, buffers, the operation and what it must give.
class Run {
 public:
  Run(Communicator& comm, const CommBenchOptions& options)
      : comm_(comm), options_(options), rank_(comm.rank()), world_(comm.world_size()) {}

  Status prepare();
  Status once(int64_t pair) { return operate(inputs_[pair], outputs_[pair]); }
  int64_t num_pairs() const { return static_cast<int64_t>(inputs_.size()); }
  Expected<CommBenchResult> measure();

 private:
  Status operate(Bytes& in, Bytes& out);
  Status exchange_with_peer(const Bytes& in, Bytes& out);
  std::pair<int, int> peers() const;  // to, from
  bool has_expectation() const;
  float expected(int64_t i) const;
  void check(const Bytes& in, const Bytes& out, CommBenchResult* result) const;

  Communicator& comm_;
  const CommBenchOptions& options_;
  const int rank_;
  const int world_;
  int64_t count_ = 0;      // elements of input
  int64_t out_count_ = 0;  // elements of output
  std::vector<Bytes> inputs_, outputs_;
};

Status Run::prepare() {
  const int64_t element = static_cast<int64_t>(dtype_size_bytes(options_.dtype));
  const int64_t granule = facts_of(options_.test).has_rows ? world_ : 1;
  count_ = options_.size_bytes / element / granule * granule;
  if (count_ < granule) {
    return make_error(ErrorCode::kInvalidArgument, "--size {}: {} needs at least {} bytes", options_.size_bytes,
                      comm_test_name(options_.test), element * granule);
  }
  out_count_ = options_.test == CommTest::kAllGather       ? count_ * world_
               : options_.test == CommTest::kReduceScatter ? count_ / world_
                                                           : count_;
  const int64_t pairs = num_buffer_pairs(options_, count_ * element, out_count_ * element);
  inputs_.assign(pairs, Bytes(count_ * element));
  outputs_.assign(pairs, Bytes(out_count_ * element));
  for (Bytes& input : inputs_) {
    for (int64_t i = 0; i < count_; ++i) store(options_.dtype, input, i, input_value(i, rank_, world_));
  }
  return {};
}

Status Run::operate(Bytes& in, Bytes& out) {
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
  if (options_.num_nodes <= 1) {
    const int peer = rank_ ^ 1;
    return peer < world_ ? std::pair(peer, peer) : std::pair(rank_, rank_);
  }
  const int per_node = world_ / options_.num_nodes;
  return {(rank_ + per_node) % world_, (rank_ + world_ - per_node) % world_};
}

// Even places send first, so that nobody waits in a circle (with an odd number of nodes the last one breaks it).
Status Run::exchange_with_peer(const Bytes& in, Bytes& out) {
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
  return options_.test != CommTest::kReduce || rank_ == options_.root;
}

float Run::expected(int64_t i) const {
  const auto sum = [&](int64_t element) {
    float total = 0;
    for (int rank = 0; rank < world_; ++rank) total += input_value(element, rank, world_);
    return total;
  };
  switch (options_.test) {
    case CommTest::kBroadcast:
      return input_value(i, options_.root, world_);
    case CommTest::kAllReduce:
    case CommTest::kReduce:
      return sum(i);
    case CommTest::kReduceScatter:
      return sum(rank_ * out_count_ + i);
    case CommTest::kAllGather:
      return input_value(i % count_, static_cast<int>(i / count_), world_);
    case CommTest::kAllToAll: {
      const int64_t row = count_ / world_;
      return input_value(rank_ * row + i % row, static_cast<int>(i / row), world_);
    }
    case CommTest::kSendRecv:
      return input_value(i, peers().second, world_);
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
    result->mismatch = fmt::format("index={}, expectedValue={}, value={}, thisRankId={}, tolerance={}, difference={}",
                                   i, wanted, value, rank_, tolerance, std::abs(value - wanted));
    return;
  }
}

Expected<CommBenchResult> Run::measure() {
  HADAL_RETURN_IF_ERROR(prepare());
  HADAL_RETURN_IF_ERROR(once(0));  // warm-up
  HADAL_RETURN_IF_ERROR(comm_.barrier());
  const auto begin = Clock::now();
  for (int64_t i = 0; i < options_.loop; ++i) HADAL_RETURN_IF_ERROR(once(i % num_pairs()));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  CommBenchResult result{.size_bytes = static_cast<int64_t>(inputs_[0].size()), .count = count_};
  result.seconds = seconds / static_cast<double>(options_.loop);
  result.algo_bandwidth = static_cast<double>(result.size_bytes) / result.seconds;
  result.nw_bandwidth = result.algo_bandwidth * nw_factor(options_.test, world_);
  Bytes fresh(outputs_[0].size());
  HADAL_RETURN_IF_ERROR(operate(inputs_[0], fresh));
  check(inputs_[0], fresh, &result);
  return result;
}

std::string dtype_word(DType dtype) { return dtype == DType::kF32 ? "float" : "bfloat16"; }
std::string gigabytes(double rate) { return fmt::format("{:.6f} GB/s", rate / 1e9); }
std::string milliseconds(double seconds) { return fmt::format("{:.6f} ms", seconds * 1e3); }

std::string printed_name(CommTest test) {
  switch (test) {
    case CommTest::kBroadcast:
      return "hcclBroadcast";
    case CommTest::kAllReduce:
      return "hcclAllReduce";
    case CommTest::kReduceScatter:
      return "hcclReduceScatter";
    case CommTest::kAllGather:
      return "hcclAllGather";
    case CommTest::kSendRecv:
      return "hcclSendRecv";
    case CommTest::kReduce:
      return "hcclReduce";
    case CommTest::kAllToAll:
      return "hcclAlltoAll";
  }
  return "";
}

std::string list_of(const std::vector<float>& values) {
  std::string text;
  for (const float value : values) text += fmt::format("{} ", value);
  return text + "...";
}

}  // namespace

const char* comm_test_name(CommTest test) { return facts_of(test).name; }

Expected<CommTest> parse_comm_test(const std::string& name) {
  std::vector<std::string> names;
  for (const TestFacts& facts : kTests) {
    if (name == facts.name) return facts.test;
    names.emplace_back(facts.name);
  }
  const std::string near = closest_name(name, names);
  return make_error(ErrorCode::kInvalidArgument, "--test {}: expected one of {}{}", name, fmt::join(names, ", "),
                    near.empty() ? "" : "; did you mean " + near + "?");
}

Expected<int64_t> parse_comm_size(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const std::string unit(end);
  double factor = 1;
  if (unit == "k" || unit == "K") factor = 1 << 10;
  if (unit == "m" || unit == "M") factor = 1 << 20;
  if (unit == "g" || unit == "G") factor = 1 << 30;
  const bool is_known = unit.empty() || factor > 1 || unit == "b" || unit == "B";
  if (end == text.c_str() || !is_known || !(value > 0) || value * factor > 1e15) {
    return make_error(ErrorCode::kInvalidArgument, "size {}: expected bytes, or a number with K, M or G as 32M", text);
  }
  return static_cast<int64_t>(value * factor);
}

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

Expected<CommBenchResult> run_comm_bench(Communicator& comm, const CommBenchOptions& options) {
  if (options.loop < 1 || options.root < 0 || options.root >= comm.world_size()) {
    return make_error(ErrorCode::kInvalidArgument, "--loop {} --test_root {}: {} ranks", options.loop, options.root,
                      comm.world_size());
  }
  return Run(comm, options).measure();
}

std::string comm_bench_headline(const CommBenchOptions& options, const CommBenchResult& result) {
  const std::string title =
      fmt::format("{}(dataSize={}, count={}, dtype={}, iterations={})", printed_name(options.test), result.size_bytes,
                  result.count, dtype_word(options.dtype), options.loop);
  const std::string rule(title.size() + 12, '#');
  const std::string first = options.latency ? "Host Latency   : " + milliseconds(result.seconds)
                                            : "NW Bandwidth   : " + gigabytes(result.nw_bandwidth);
  const std::string second = options.latency ? "Device Latency : " + milliseconds(result.seconds)
                                             : "Algo Bandwidth : " + gigabytes(result.algo_bandwidth);
  return fmt::format("{0}\n[BENCHMARK] {1}\n[BENCHMARK]     {2}\n[BENCHMARK]     {3}\n{0}\n", rule, title, first,
                     second);
}

std::string comm_bench_check_line(const CommBenchOptions& options, const CommBenchResult& result, int rank) {
  if (!result.has_expectation) return "";
  std::string line = fmt::format("rank={} size={} <{}> Input Buffer [{}] Output Buffer [{}] which is {}.\n", rank,
                                 result.size_bytes, dtype_word(options.dtype), list_of(result.first_inputs),
                                 list_of(result.first_outputs), result.is_correct ? "fine" : "bad");
  return result.is_correct ? line : result.mismatch + "\n" + line;
}

std::string comm_bench_summary(const CommBenchOptions& options, const std::vector<CommBenchResult>& results) {
  const std::string title = fmt::format("[{} SUMMARY REPORT]", options.latency ? "LATENCY" : "BANDWIDTH");
  const std::string second =
      fmt::format("(src!=dst, collective={}, iterations={})", comm_test_name(options.test), options.loop);
  std::string text = fmt::format("\n{}\n{}\n{}\n\n", std::string(second.size() + 1, '#'), title, second);
  const auto row = [&](const std::vector<std::string>& cells) {
    for (const std::string& cell : cells) text += fmt::format("{:<18}", cell);
    text += "\n";
  };
  if (options.latency) {
    row({"size", "count", "type", "redop", "Host Latency", "Device Latency"});
    row({"(B)", "(elements)", "", "", "(ms)", "(ms)"});
  } else {
    row({"size", "count", "type", "redop", "time", "algoBW", "nw_bw"});
    row({"(B)", "(elements)", "", "", "(ms)", "(GB/s)", "(GB/s)"});
  }
  for (const CommBenchResult& result : results) {
    std::vector<std::string> cells = {std::to_string(result.size_bytes), std::to_string(result.count),
                                      dtype_word(options.dtype), "sum", milliseconds(result.seconds)};
    if (options.latency) {
      cells.push_back(cells.back());
    } else {
      cells.push_back(gigabytes(result.algo_bandwidth));
      cells.push_back(gigabytes(result.nw_bandwidth));
    }
    row(cells);
  }
  return text;
}

std::string comm_bench_csv(const CommBenchOptions& options, const CommBenchResult& result, int rank) {
  const std::string first = options.latency ? milliseconds(result.seconds) : gigabytes(result.nw_bandwidth);
  const std::string second = options.latency ? first : gigabytes(result.algo_bandwidth);
  return fmt::format("{},{},{},{},{},{},{}", comm_test_name(options.test), rank, dtype_word(options.dtype),
                     result.size_bytes, options.loop, first, second);
}

}  // namespace hadal
