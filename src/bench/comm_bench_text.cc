// The printed text of hccl_demo, to the letter.
#include <algorithm>
#include <cstdlib>

#include <fmt/ranges.h>

#include "base/names.h"
#include "bench/comm_bench.h"

namespace hadal {
namespace {

struct TestName {
  CommTest test;
  const char* name;
  const char* printed;
};
constexpr TestName kTests[] = {{CommTest::kBroadcast, "broadcast", "hcclBroadcast"},
                               {CommTest::kAllReduce, "all_reduce", "hcclAllReduce"},
                               {CommTest::kReduceScatter, "reduce_scatter", "hcclReduceScatter"},
                               {CommTest::kAllGather, "all_gather", "hcclAllGather"},
                               {CommTest::kSendRecv, "send_recv", "hcclSendRecv"},
                               {CommTest::kReduce, "reduce", "hcclReduce"},
                               {CommTest::kAllToAll, "all2all", "hcclAlltoAll"}};

const TestName& names_of(CommTest test) {
  return *std::find_if(std::begin(kTests), std::end(kTests), [&](const TestName& t) { return t.test == test; });
}

std::string dtype_word(DType dtype) { return dtype == DType::kF32 ? "float" : "bfloat16"; }
std::string gigabytes(double rate) { return fmt::format("{:.6f} GB/s", rate / 1e9); }
std::string milliseconds(double seconds) { return fmt::format("{:.6f} ms", seconds * 1e3); }

std::string list_of(const std::vector<float>& values) {
  std::string text;
  for (const float value : values) text += fmt::format("{} ", value);
  return text + "...";
}

}  // namespace

const char* comm_test_name(CommTest test) { return names_of(test).name; }

std::vector<CommTest> all_comm_tests() {
  std::vector<CommTest> tests;
  for (const TestName& entry : kTests) tests.push_back(entry.test);
  return tests;
}

Expected<CommTest> parse_comm_test(const std::string& name) {
  std::vector<std::string> names;
  for (const TestName& entry : kTests) {
    if (name == entry.name) return entry.test;
    names.emplace_back(entry.name);
  }
  const std::string near = closest_name(name, names);
  return make_error(ErrorCode::kInvalidArgument, "--test {}: expected one of {}{}", name, fmt::join(names, ", "),
                    near.empty() ? "" : "; did you mean " + near + "?");
}

const char* comm_reduction_name(CommReduction reduction) {
  return reduction == CommReduction::kSum ? "sum" : reduction == CommReduction::kMin ? "min" : "max";
}

Expected<CommReduction> parse_comm_reduction(const std::string& name) {
  for (const CommReduction known : {CommReduction::kSum, CommReduction::kMin, CommReduction::kMax}) {
    if (name == comm_reduction_name(known)) return known;
  }
  return make_error(ErrorCode::kInvalidArgument, "--reduction_op {}: sum, min or max", name);
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

std::string comm_bench_headline(const CommBenchOptions& options, const CommBenchResult& result, int rank) {
  const std::string name =
      names_of(options.test).printed + (options.ranks_list.empty() ? "" : fmt::format("_rank_{}", rank));
  const std::string title = fmt::format("{}(dataSize={}, count={}, dtype={}, iterations={})", name, result.size_bytes,
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
                                      dtype_word(options.dtype), comm_reduction_name(options.reduction),
                                      milliseconds(result.seconds)};
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
