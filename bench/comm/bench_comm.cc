// An all-reduce of FP32 values, ours and the MPI library's by turns in the same processes: started by mpirun, which
// also tells our ranks of each other. Prints the latency of every pass and the ratio of the two.
#include <fmt/core.h>
#include <mpi.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "comm/rank_group.h"
#include "comm/rendezvous.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  bool tcp = false;                   // every rank is a node of its own
  std::string address = "127.0.0.1";  // of rank 0
  std::string interface_name;         // with tcp
  int count = 7168, loop = 2000, passes = 5;
};

// The group of all MPI ranks; rank 0 tells the others its port over MPI.
hadal::RankGroups join(const Options& options, int rank, int world) {
  hadal::RendezvousOptions rendezvous{.address = options.address, .token = "bench"};
  std::unique_ptr<hadal::RendezvousServer> server;
  if (rank == 0) {
    server = hadal::RendezvousServer::start(rendezvous).value();
    rendezvous.port = server->port();
  }
  MPI_Bcast(&rendezvous.port, 1, MPI_UINT16_T, 0, MPI_COMM_WORLD);
  const auto store = hadal::connect_rendezvous(rendezvous, rank, std::chrono::milliseconds(30'000)).value();
  auto groups = hadal::join_rank_groups(*store, {.rank = rank,
                                                 .world_size = world,
                                                 .local_rank = options.tcp ? 0 : rank,
                                                 .local_world_size = options.tcp ? 1 : world,
                                                 .node_rank = options.tcp ? rank : 0,
                                                 .nnodes = options.tcp ? world : 1,
                                                 .master_addr = options.address,
                                                 .master_port = rendezvous.port,
                                                 .interface_name = options.interface_name});
  if (!groups) {
    fmt::print(stderr, "bench_comm: {}\n", groups.error().message);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  return std::move(groups).value();
}

// Microseconds of a call: the median, which a switch to another process does not move. The input is written before each
// call, as a model does; a library that copies nothing twice would otherwise look better than it is.
template <typename Call>
double measure(int loop, std::vector<float>& data, int rank, int world, const Call& call) {
  std::vector<double> times;
  for (int i = 0; i < loop + loop / 10; ++i) {
    std::fill(data.begin(), data.end(), static_cast<float>(rank + 1));
    const auto begin = Clock::now();
    call();
    const std::chrono::duration<double, std::micro> time = Clock::now() - begin;
    if (i >= loop / 10) times.push_back(time.count());
    if (data.front() != static_cast<float>(world * (world + 1)) / 2 || data.back() != data.front()) {
      fmt::print(stderr, "bench_comm: wrong sum {}\n", data.front());
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
  }
  std::nth_element(times.begin(), times.begin() + loop / 2, times.end());
  return times[loop / 2];
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void compare(const Options& options, int rank, int world) {
  hadal::RankGroups groups = join(options, rank, world);
  std::vector<float> data(options.count);
  std::vector<double> ours, theirs, ratios;
  for (int pass = 0; pass < options.passes; ++pass) {
    MPI_Barrier(MPI_COMM_WORLD);
    ours.push_back(measure(options.loop, data, rank, world, [&] {
      const hadal::Status status = groups.data->all_reduce(data.data(), options.count, hadal::DType::kF32);
      if (!status) {
        fmt::print(stderr, "bench_comm: {}\n", status.error().message);
        MPI_Abort(MPI_COMM_WORLD, 1);
      }
    }));
    MPI_Barrier(MPI_COMM_WORLD);
    theirs.push_back(measure(options.loop, data, rank, world, [&] {
      MPI_Allreduce(MPI_IN_PLACE, data.data(), options.count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    }));
    ratios.push_back(ours.back() / theirs.back());
    if (rank == 0) {
      fmt::print("pass {}: ours {:.1f} us, MPI {:.1f} us, ratio {:.2f}\n", pass + 1, ours.back(), theirs.back(),
                 ratios.back());
    }
  }
  if (rank != 0) return;
  const double best_ours = *std::min_element(ours.begin(), ours.end());
  const double best_theirs = *std::min_element(theirs.begin(), theirs.end());
  fmt::print(
      "{} FP32 values, {} ranks, {}: ours {:.1f} / {:.1f} us, MPI {:.1f} / {:.1f} us (best / median of {} "
      "passes), ratio {:.2f} / {:.2f}\n",
      options.count, world, groups.transport, best_ours, median_of(ours), best_theirs, median_of(theirs),
      options.passes, best_ours / best_theirs, median_of(ratios));
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  Options options;
  CLI::App app{"All-reduce of FP32 values, ours beside MPI's; run it under mpirun (see bench/comm/compare_openmpi.sh)"};
  app.add_flag("--tcp", options.tcp, "TCP between all ranks; else shared memory");
  app.add_option("--address", options.address, "Of rank 0")->capture_default_str();
  app.add_option("--interface", options.interface_name, "With --tcp; lo for a single machine");
  app.add_option("--count", options.count, "Values")->capture_default_str();
  app.add_option("--loop", options.loop, "Calls in a pass")->capture_default_str();
  app.add_option("--passes", options.passes, "Of each, by turns")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  int rank = 0, world = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world);
  compare(options, rank, world);
  MPI_Finalize();
  return 0;
}
