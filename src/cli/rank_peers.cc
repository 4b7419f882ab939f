#include "cli/rank_peers.h"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <utility>

#include "base/log.h"
#include "cli/rank_contract.h"

namespace hadal {

RankPeers::RankPeers(RankPeersOptions options, std::function<void(const std::string&)> lost)
    : options_(std::move(options)),
      lost_(std::move(lost)),
      processes_([this](const RankExit& exit) { local_exit(exit); }) {
  for (size_t node = 0; node < options_.ranks_per_node.size(); ++node) {
    for (int i = 0; i < options_.ranks_per_node[node]; ++i) {
      Peer& peer = peers_.emplace_back();
      peer.node_rank = static_cast<int>(node);
      peer.is_local = node == 0 && i > 0 && options_.starts_local_ranks;
    }
  }
}

RankPeers::~RankPeers() {
  if (options_.launcher != nullptr) options_.launcher->close();
}

Status RankPeers::start_all(const RankIdentity& place) {
  place_ = place;
  for (int rank = 1; rank < world_size(); ++rank) {
    if (is_local(rank)) HADAL_RETURN_IF_ERROR(start_local(rank, 0));
  }
  if (options_.launcher == nullptr) return {};
  options_.launcher->listen([this](const LaunchEvent& event) { launch_event(event); });
  for (size_t node = 1; node < options_.ranks_per_node.size(); ++node) {
    HADAL_RETURN_IF_ERROR(start_node(static_cast<int>(node), 0));
  }
  return {};
}

Status RankPeers::start(int rank, int generation) {
  return is_local(rank) ? start_local(rank, generation) : start_node(node_of(rank), generation);
}

Status RankPeers::start_local(int rank, int generation) {
  RankContract contract{.identity = place_};
  contract.identity.rank = contract.identity.local_rank = rank;
  contract.identity.generation = generation;
  {
    const std::lock_guard lock(mutex_);
    peers_[static_cast<size_t>(rank)].running = true;
    peers_[static_cast<size_t>(rank)].has_joined = false;
  }
  const double join_s = std::chrono::duration<double>(options_.join_timeout).count();
  return processes_.start({.rank = rank,
                           .node_rank = 0,
                           .arguments = {"worker", "--join-timeout", fmt::format("{}", join_s)},
                           .env = rank_environment(contract)});
}

int RankPeers::first_rank(int node_rank) const {
  return std::accumulate(options_.ranks_per_node.begin(), options_.ranks_per_node.begin() + node_rank, 0);
}

Status RankPeers::start_node(int node_rank, int generation) {
  LaunchUnit unit{.node_rank = node_rank,
                  .first_rank = first_rank(node_rank),
                  .num_ranks = options_.ranks_per_node[static_cast<size_t>(node_rank)],
                  .command = {"hadal", "worker"},
                  .env = {}};
  RankContract contract{.identity = place_, .is_agent = true};
  contract.identity.rank = unit.first_rank;
  contract.identity.local_rank = 0;
  contract.identity.local_world_size = unit.num_ranks;
  contract.identity.node_rank = node_rank;
  contract.identity.generation = generation;
  // An address is this node's own; a name may be the same everywhere.
  if (contract.identity.interface_name.find_first_of(".:") != std::string::npos)
    contract.identity.interface_name.clear();
  unit.env = rank_environment(contract);
  {
    const std::lock_guard lock(mutex_);
    for (Peer& peer : peers_) {
      if (peer.node_rank != node_rank) continue;
      peer.running = true;
      peer.has_joined = false;
    }
  }
  return options_.launcher->start(unit);
}

void RankPeers::local_exit(const RankExit& exit) {
  {
    const std::lock_guard lock(mutex_);
    Peer& peer = peers_[static_cast<size_t>(exit.rank)];
    peer.running = false;
    peer.has_joined = false;
    peer.how_ended = exit.what;
  }
  lost_(fmt::format("rank {} (node 0) ended: {}", exit.rank, exit.what));
}

void RankPeers::launch_event(const LaunchEvent& event) {
  if (event.kind == LaunchEvent::Kind::kLog) {
    std::fprintf(stderr, "[node%d] %s\n", event.node_rank, event.what.c_str());
    return;
  }
  if (event.kind == LaunchEvent::Kind::kStarted) return log_info("node {}: {}", event.node_rank, event.what);
  {
    const std::lock_guard lock(mutex_);
    for (size_t rank = 1; rank < peers_.size(); ++rank) {
      if (peers_[rank].node_rank != event.node_rank) continue;
      peers_[rank].running = peers_[rank].has_joined = false;
      peers_[rank].how_ended = event.what;
    }
  }
  lost_(fmt::format("node {} ended: {}", event.node_rank, event.what));
}

std::vector<RankPeers::Ended> RankPeers::take_ended() {
  std::vector<Ended> ended;
  std::vector<int> nodes;
  const std::lock_guard lock(mutex_);
  for (size_t rank = 1; rank < peers_.size(); ++rank) {
    Peer& peer = peers_[rank];
    if (peer.running || !(peer.is_local || is_launched(peer))) continue;
    peer.report = {};
    if (is_launched(peer) && std::find(nodes.begin(), nodes.end(), peer.node_rank) != nodes.end()) continue;
    if (is_launched(peer)) nodes.push_back(peer.node_rank);
    ended.push_back({static_cast<int>(rank), peer.how_ended});
  }
  return ended;
}

void RankPeers::kill(int rank) { processes_.kill(rank); }

void RankPeers::forget_reports() {
  const std::lock_guard lock(mutex_);
  for (Peer& peer : peers_) peer.report = {};
}

bool RankPeers::take_report(int rank, RankReport report) {
  const std::lock_guard lock(mutex_);
  Peer& peer = peers_[static_cast<size_t>(rank)];
  if (peer.is_local && (!peer.running || report.pid != processes_.pid_of(rank))) return false;
  peer.report = std::move(report);
  return true;
}

void RankPeers::note_group() {
  const std::lock_guard lock(mutex_);
  for (Peer& peer : peers_) {
    peer.has_joined = true;
    peer.last_nonce = peer.report.nonce;
    peer.last_pid = peer.report.pid;
  }
}

std::optional<int> RankPeers::first_replaced() const {
  const std::lock_guard lock(mutex_);
  for (size_t rank = 1; rank < peers_.size(); ++rank) {
    if (peers_[rank].report.nonce != peers_[rank].last_nonce) return static_cast<int>(rank);
  }
  return std::nullopt;
}

bool RankPeers::is_overdue(int rank) {
  const std::lock_guard lock(mutex_);
  return std::exchange(peers_[static_cast<size_t>(rank)].has_joined, false);
}

std::string RankPeers::describe(int rank) const { return fmt::format("rank {} (node {})", rank, node_of(rank)); }

RankReport RankPeers::report(int rank) const {
  const std::lock_guard lock(mutex_);
  return peers_[static_cast<size_t>(rank)].report;
}

int RankPeers::last_pid(int rank) const {
  const std::lock_guard lock(mutex_);
  return peers_[static_cast<size_t>(rank)].last_pid;
}

}  // namespace hadal
