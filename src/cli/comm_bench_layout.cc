#include "cli/comm_bench_layout.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

namespace hadal {
namespace {

constexpr int kMostRanks = 1024;  // that the rendezvous has room for

// Gaudi cards, by which hccl_demo counts the ranks of a node.
int count_gaudi_cards() {
  int count = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/bus/pci/devices", ignored)) {
    std::string vendor;
    std::ifstream(entry.path() / "vendor") >> vendor;
    if (vendor == "0x1da3") ++count;
  }
  return count;
}

Status check_place(const CommBenchJob& job, int ranks_per_node) {
  if (job.nranks < 1) return make_error(ErrorCode::kInvalidArgument, "--nranks N is required: ranks on all nodes");
  if (job.nranks > kMostRanks) {
    return make_error(ErrorCode::kInvalidArgument, "--nranks {}: at most {}", job.nranks, kMostRanks);
  }
  if (ranks_per_node < 1) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--ranks_per_node is required on several nodes (no Gaudi cards here to count)");
  }
  if (job.nranks > ranks_per_node && job.nranks % ranks_per_node != 0) {
    return make_error(ErrorCode::kInvalidArgument, "--nranks {} is not a multiple of --ranks_per_node {}", job.nranks,
                      ranks_per_node);
  }
  const int num_nodes = std::max(1, job.nranks / ranks_per_node);
  if (job.node_id >= num_nodes) {
    return make_error(ErrorCode::kInvalidArgument, "--node_id {} of {} node(s): {} ranks, {} per node", job.node_id,
                      num_nodes, job.nranks, ranks_per_node);
  }
  if (num_nodes == 1) return {};
  if (job.comm_id.empty() || job.node_id < 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{} ranks with {} per node need several nodes: run the same command on each, with --node_id "
                      "0 .. {} and the environment variable HCCL_COMM_ID=<address of node 0>:<free port>",
                      job.nranks, ranks_per_node, num_nodes - 1);
  }
  return {};
}

}  // namespace

RankIdentity CommBenchLayout::identity_of(size_t rank, const CommBenchJob& job) const {
  const int node = node_of(members[rank]);
  const auto here = [&](int member) { return node_of(member) == node; };
  const auto first = std::find_if(members.begin(), members.end(), here) - members.begin();
  const std::vector<int> all = nodes();
  return {.rank = static_cast<int>(rank),
          .world_size = static_cast<int>(members.size()),
          .local_rank = static_cast<int>(rank) - static_cast<int>(first),
          .local_world_size = static_cast<int>(std::count_if(members.begin(), members.end(), here)),
          .node_rank = static_cast<int>(std::find(all.begin(), all.end(), node) - all.begin()),
          .nnodes = static_cast<int>(all.size()),
          .master_addr = host,
          .master_port = port,
          .interface_name = job.interface_name,
          .token = job.token};
}

Expected<CommBenchLayout> plan_comm_bench_layout(const CommBenchJob& job) {
  CommBenchLayout layout{.ranks_per_node = job.ranks_per_node, .host = "127.0.0.1"};
  if (layout.ranks_per_node < 0) {
    const int cards = job.node_id < 0 ? 0 : count_gaudi_cards();
    layout.ranks_per_node = cards > 0 ? cards : job.node_id <= 0 && job.comm_id.empty() ? job.nranks : -1;
  }
  HADAL_RETURN_IF_ERROR(check_place(job, layout.ranks_per_node));
  if (!job.comm_id.empty()) {
    const size_t colon = job.comm_id.rfind(':');
    const std::string port = colon == std::string::npos ? "" : job.comm_id.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), layout.port);
    if (colon == 0 || error != std::errc() || end != port.data() + port.size() || layout.port == 0) {
      return make_error(ErrorCode::kInvalidArgument, "HCCL_COMM_ID={}: expected <address of node 0>:<port>",
                        job.comm_id);
    }
    layout.host = job.comm_id.substr(0, colon);
    if (layout.host.starts_with("[") && layout.host.ends_with("]")) layout.host = layout.host.substr(1, colon - 2);
  }
  for (int rank = 0; rank < job.nranks; ++rank) {
    const bool takes_part = job.custom_comm.empty() ||
                            std::find(job.custom_comm.begin(), job.custom_comm.end(), rank) != job.custom_comm.end();
    if (takes_part) layout.members.push_back(rank);
  }
  if (job.bench.root < 0 || job.bench.root >= job.nranks) {
    return make_error(ErrorCode::kInvalidArgument, "--test_root {}: {} ranks, from 0", job.bench.root, job.nranks);
  }
  for (const int rank : job.custom_comm) {
    if (rank < 0 || rank >= job.nranks) {
      return make_error(ErrorCode::kInvalidArgument, "--custom_comm: rank {} of {}", rank, job.nranks);
    }
  }
  return layout;
}

}  // namespace hadal
