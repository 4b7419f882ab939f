#include "cli/comm_bench_job.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fstream>

#include <fmt/ranges.h>

#include "base/resource_limits.h"
#include "cli/comm_bench_layout.h"
#include "cli/command.h"
#include "cli/version.h"
#include "comm/rank_group.h"
#include "comm/rendezvous.h"

namespace hadal {
namespace {

constexpr std::chrono::milliseconds kJoinTimeout{120'000};
constexpr std::chrono::milliseconds kOperationTimeout{120'000};  // a slow link takes its time over 1 GiB

// What must be the same on all nodes, in words.
std::string shown_job(const CommBenchJob& job) {
  std::vector<const char*> tests;
  for (const CommTest test : job.tests) tests.push_back(comm_test_name(test));
  return fmt::format(
      "test {} size {} loop {} root {} type {} op {} measure {} same_buffers {} check {} comm {} list {}",
      fmt::join(tests, ","), fmt::join(job.sizes, ","), job.bench.loop, job.bench.root, dtype_name(job.bench.dtype),
      comm_reduction_name(job.bench.reduction), job.bench.latency ? "latency" : "bw", job.bench.same_buffers,
      job.bench.check_correctness, fmt::join(job.custom_comm, ","), job.bench.ranks_list.size());
}

std::string time_stamp() {
  char text[32] = {};
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  std::strftime(text, sizeof text, "%Y-%m-%d_%H%M", localtime_r(&now, &local));
  return text;
}

Status write_data_csv(const std::string& folder, const CommBenchOptions& options, const CommBenchResult& result,
                      int rank, bool is_first) {
  const auto write = [&](const char* which, const std::vector<float>& values) -> Status {
    const std::string path =
        fmt::format("{}/HCCL_demo_{}_{}_{}_{}.csv", folder, comm_test_name(options.test), which, rank, time_stamp());
    std::ofstream file(path, is_first ? std::ios::trunc : std::ios::app);
    for (const float value : values) file << fmt::format("{}\n", value);
    file.flush();
    return file ? Status() : make_error(ErrorCode::kIo, "--data_csv: cannot write {}", path);
  };
  HADAL_RETURN_IF_ERROR(write("input", result.input));
  return write("output", result.output);
}

// What one process is and does.
class RankRun {
 public:
  RankRun(const CommBenchJob& job, const CommBenchLayout& layout, size_t rank)
      : job_(job), layout_(layout), id_(layout.identity_of(rank, job)) {}

  // tell_port: rank 0 has found a free port, if none was given.
  Status run(uint16_t port, const std::function<void(uint16_t)>& tell_port);

 private:
  Status run_tests(Communicator& comm);
  Status run_sizes(Communicator& comm, const CommBenchOptions& options);
  Expected<CommBenchResult> run_one(Communicator& comm, const CommBenchOptions& options);
  int printed_rank() const { return hadal::printed_rank(job_.bench, id_.rank); }
  void print(const std::string& text) const {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  const CommBenchJob& job_;
  const CommBenchLayout& layout_;
  RankIdentity id_;
};

Status RankRun::run(uint16_t port, const std::function<void(uint16_t)>& tell_port) {
  RendezvousOptions rendezvous{
      .address = layout_.host,
      .port = port,
      .token = id_.token,
      .facts = {{"version", kVersion}, {"world size", std::to_string(id_.world_size)}, {"command", shown_job(job_)}}};
  std::unique_ptr<RendezvousServer> server;
  if (id_.rank == 0) {
    HADAL_ASSIGN_OR_RETURN(server, RendezvousServer::start(rendezvous));
    rendezvous.port = server->port();
    tell_port(rendezvous.port);
  }
  id_.master_port = rendezvous.port;
  HADAL_ASSIGN_OR_RETURN(const std::unique_ptr<KeyValueStore> store,
                         connect_rendezvous(rendezvous, id_.rank, kJoinTimeout));
  HADAL_ASSIGN_OR_RETURN(RankGroups groups, join_rank_groups(*store, id_,
                                                             {.join_timeout = kJoinTimeout,
                                                              .data_timeout = kOperationTimeout,
                                                              .control_timeout = kOperationTimeout}));
  if (id_.rank == job_.bench.root) {
    print(
        fmt::format("hadal comm bench: {} rank(s) on {} node(s), {}\n", id_.world_size, id_.nnodes, groups.transport));
  }
  HADAL_RETURN_IF_ERROR(run_tests(*groups.data));
  return groups.data->barrier();
}

Status RankRun::run_tests(Communicator& comm) {
  for (const CommTest test : job_.tests) {
    CommBenchOptions options = job_.bench;
    options.test = test;
    options.num_nodes = id_.nnodes;
    options.keep_data = !job_.data_csv.empty();
    if (test != CommTest::kSendRecv) options.ranks_list.clear();
    HADAL_RETURN_IF_ERROR(run_sizes(comm, options));
  }
  return {};
}

Status RankRun::run_sizes(Communicator& comm, const CommBenchOptions& options) {
  std::vector<CommBenchResult> results;
  bool all_correct = true;
  for (const int64_t size : job_.sizes) {
    CommBenchOptions one = options;
    one.size_bytes = size;
    if (job_.is_range && id_.rank == options.root) print(fmt::format("Processing data_size {}\n", size));
    HADAL_ASSIGN_OR_RETURN(CommBenchResult result, run_one(comm, one));
    all_correct = all_correct && result.is_correct;
    results.push_back(std::move(result));
  }
  if (job_.is_range && id_.rank == options.root) print(comm_bench_summary(options, results));
  if (all_correct) return {};
  return make_error(ErrorCode::kInternal, "HCCL demo error: Collective operation has failed on correctness.");
}

Expected<CommBenchResult> RankRun::run_one(Communicator& comm, const CommBenchOptions& options) {
  HADAL_ASSIGN_OR_RETURN(CommBenchResult result, run_comm_bench(comm, options));
  print(comm_bench_check_line(options, result, printed_rank()));
  HADAL_RETURN_IF_ERROR(comm.barrier());  // headlines come after all checks of this machine
  if (prints_headline(options, id_.rank)) {
    if (!job_.is_range) print(comm_bench_headline(options, result, printed_rank()));
    if (!job_.result_csv.empty()) {
      std::ofstream file(job_.result_csv, std::ios::app);
      file << comm_bench_csv(options, result, printed_rank()) + "\n";
      file.flush();
      if (!file) return make_error(ErrorCode::kIo, "--result_csv: cannot append to {}", job_.result_csv);
    }
  }
  if (!job_.data_csv.empty()) {
    const bool is_first = options.size_bytes == job_.sizes[0];
    HADAL_RETURN_IF_ERROR(write_data_csv(job_.data_csv, options, result, printed_rank(), is_first));
  }
  HADAL_RETURN_IF_ERROR(comm.barrier());
  return result;
}

// In the process of one rank; never returns. `ports` passes a port that the system chose from rank 0 to the others.
[[noreturn]] void be_rank(const CommBenchJob& job, const CommBenchLayout& layout, size_t rank, const int ports[2],
                          size_t num_here) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  uint16_t port = layout.port;
  int code = kExitFailed;
  try {
    if (port == 0 && rank != 0) {
      close(ports[1]);
      if (read(ports[0], &port, sizeof port) != sizeof port) _exit(kExitFailed);  // rank 0 has said why
    }
    const Status status = RankRun(job, layout, rank).run(port, [&](uint16_t chosen) {
      for (size_t i = 1; i < num_here && layout.port == 0; ++i) (void)!write(ports[1], &chosen, sizeof chosen);
    });
    if (!status) fmt::print(stderr, "hadal comm bench: {}\n", status.error().message);
    code = status ? kExitOk : status.error().code == ErrorCode::kInvalidArgument ? kExitBadUsage : kExitFailed;
  } catch (const std::exception& error) {
    fmt::print(stderr, "hadal comm bench: rank {}: {}\n", layout.members[rank], error.what());
  }
  std::fflush(nullptr);
  _exit(code);
}

// The job in the numbers of the group of --custom_comm. As in hccl_demo, a root outside is replaced by its first rank.
CommBenchJob inside_group(CommBenchJob job, const CommBenchLayout& layout) {
  if (job.custom_comm.empty()) return job;
  const auto& members = layout.members;
  const auto root = std::find(members.begin(), members.end(), job.bench.root);
  if (root == members.end()) {
    fmt::print(stderr, "hadal comm bench: rank {} is not one of --custom_comm: the root is rank {}\n", job.bench.root,
               members[0]);
  }
  job.bench.root = root == members.end() ? 0 : static_cast<int>(root - members.begin());
  job.bench.members = members;
  return job;
}

// What every rank would find out, told once. Errors: kInvalidArgument; kResourceExhausted (memory).
Status check_before_start(const CommBenchJob& job, const CommBenchLayout& layout) {
  const int world = static_cast<int>(layout.members.size());
  const int num_nodes = static_cast<int>(layout.nodes().size());
  double needed = 0;
  for (const CommTest test : job.tests) {
    for (const int64_t size : job.sizes) {
      CommBenchOptions options = job.bench;
      options.test = test;
      options.size_bytes = size;
      options.num_nodes = num_nodes;
      HADAL_RETURN_IF_ERROR(check_comm_bench(options, world));
      needed = std::max(needed, comm_bench_bytes(options, world) * world / num_nodes);
    }
  }
  const auto available = available_memory_bytes();
  if (!available || needed <= static_cast<double>(*available)) return {};
  return make_error(ErrorCode::kResourceExhausted,
                    "--size {}: the ranks of this node need {:.1f} GiB of memory at least, {:.1f} are free: take a "
                    "smaller size or fewer ranks",
                    job.sizes.back(), needed / (1 << 30), static_cast<double>(*available) / (1 << 30));
}

int wait_for_all(const std::vector<pid_t>& ranks, const std::vector<size_t>& numbers) {
  int code = kExitOk;
  for (size_t i = 0; i < ranks.size(); ++i) {
    int status = 0;
    while (waitpid(ranks[i], &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
      fmt::print(stderr, "hadal comm bench: rank {} was ended by signal {} ({})\n", numbers[i], WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    }
    const int its_code = WIFEXITED(status) ? WEXITSTATUS(status) : kExitFailed;
    if (code == kExitOk) code = its_code;
  }
  return code;
}

}  // namespace

Expected<int64_t> read_comm_size(const std::string& text) {
  auto size = parse_comm_size(text);
  if (size || text.empty() || std::isalpha(static_cast<unsigned char>(text.back())) == 0) return size;
  const auto bytes = parse_comm_size(text.substr(0, text.size() - 1) + "B");
  if (!bytes) return size;
  fmt::print(stderr, "hadal comm bench: size {}: {} is no unit (G, M, K or B, as 32M); taken as {} bytes\n", text,
             text.back(), *bytes);
  return bytes;
}

Expected<std::vector<int64_t>> comm_size_range(const std::string& min, const std::string& max, int inc) {
  HADAL_ASSIGN_OR_RETURN(const int64_t least, read_comm_size(min));
  HADAL_ASSIGN_OR_RETURN(const int64_t most, read_comm_size(max));
  if (least > most || inc < 1 || inc > 40) {
    return make_error(ErrorCode::kInvalidArgument, "--size_range {} {} --size_range_inc {}: the range is empty", min,
                      max, inc);
  }
  std::vector<int64_t> sizes;
  for (double size = static_cast<double>(least); size <= static_cast<double>(most);
       size *= static_cast<double>(int64_t{1} << inc)) {
    sizes.push_back(static_cast<int64_t>(size));
  }
  return sizes;
}

Expected<std::vector<int>> parse_rank_list(const std::string& flag, const std::string& text) {
  std::vector<int> ranks;
  for (size_t at = 0; at <= text.size() && ranks.size() < 4096;) {
    const size_t end = std::min(text.find(',', at), text.size());
    int rank = -1;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, rank);
    if (error != std::errc() || stop != text.data() + end || rank < 0) {
      return make_error(ErrorCode::kInvalidArgument, "{} {}: expected ranks separated by commas, as 0,1,8,9", flag,
                        text);
    }
    ranks.push_back(rank);
    at = end + 1;
  }
  return ranks;
}

int run_comm_bench_job(const CommBenchJob& given) {
  const auto layout = plan_comm_bench_layout(given);
  if (!layout) {
    fmt::print(stderr, "hadal comm bench: {}\n", layout.error().message);
    return kExitBadUsage;
  }
  CommBenchJob job = inside_group(given, *layout);
  if (job.token.empty()) job.token = make_rank_token();  // one machine: only its ranks need to know it
  if (const Status status = check_before_start(job, *layout); !status) {
    fmt::print(stderr, "hadal comm bench: {}\n", status.error().message);
    return status.error().code == ErrorCode::kInvalidArgument ? kExitBadUsage : kExitFailed;
  }
  std::vector<size_t> mine;
  for (size_t rank = 0; rank < layout->members.size(); ++rank) {
    if (layout->node_of(layout->members[rank]) == std::max(0, job.node_id)) mine.push_back(rank);
  }
  int ports[2] = {-1, -1};
  if (pipe(ports) != 0) {
    fmt::print(stderr, "hadal comm bench: pipe: {}\n", strerror(errno));
    return kExitFailed;
  }
  std::fflush(nullptr);  // else every process would print it
  std::vector<pid_t> ranks;
  for (const size_t rank : mine) {
    const pid_t child = fork();
    if (child == 0) be_rank(job, *layout, rank, ports, mine.size());
    if (child < 0) {
      fmt::print(stderr, "hadal comm bench: cannot start rank {}: {}\n", rank, strerror(errno));
      for (const pid_t started : ranks) kill(started, SIGKILL);
      return kExitFailed;
    }
    ranks.push_back(child);
  }
  close(ports[0]);
  close(ports[1]);
  if (job.timeout_minutes > 0) alarm(static_cast<unsigned>(job.timeout_minutes) * 60U);  // children die with us
  return wait_for_all(ranks, mine);
}

}  // namespace hadal
