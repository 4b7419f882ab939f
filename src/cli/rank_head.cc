#include "cli/rank_head.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/log.h"
#include "cli/memory_plan.h"
#include "cli/rank_contract.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;

constexpr std::chrono::minutes kRestartWindow{10};
constexpr size_t kShownLines = 12;  // of a dead rank's log
constexpr milliseconds kPoll{50};

RendezvousOptions rendezvous_options(const RankHeadOptions& options) {
  const RankIdentity& place = options.ranks.place;
  return {.address = place.master_addr,
          .port = place.master_port,
          .token = place.token,
          .facts = {{"version", options.version}, {"world size", std::to_string(place.world_size)}}};
}

}  // namespace

RankHead::RankHead(RankHeadOptions options) : options_(std::move(options)) {
  peers_.resize(static_cast<size_t>(options_.ranks.place.world_size));
  int rank = 0;
  for (size_t node = 0; node < options_.ranks_per_node.size(); ++node) {
    for (int i = 0; i < options_.ranks_per_node[node]; ++i, ++rank) {
      peers_[static_cast<size_t>(rank)].node_rank = static_cast<int>(node);
      peers_[static_cast<size_t>(rank)].is_local = node == 0 && rank != 0 && options_.starts_local_ranks;
    }
  }
}

Expected<std::shared_ptr<RankHead>> RankHead::start(RankHeadOptions options) {
  std::shared_ptr<RankHead> head(new RankHead(std::move(options)));
  HADAL_RETURN_IF_ERROR(head->listen());
  HADAL_RETURN_IF_ERROR(head->start_all());
  return head;
}

RankHead::~RankHead() {
  server_.reset();  // so that ranks that still wait for a group end by themselves
  if (options_.launcher != nullptr) options_.launcher->close();
  processes_.reset();
}

Status RankHead::listen() {
  RendezvousOptions rendezvous = rendezvous_options(options_);
  HADAL_ASSIGN_OR_RETURN(server_, RendezvousServer::start(rendezvous));
  options_.ranks.place.master_port = rendezvous.port = server_->port();
  HADAL_ASSIGN_OR_RETURN(store_, connect_rendezvous(rendezvous, 0, milliseconds(5'000)));
  HADAL_RETURN_IF_ERROR(store_->set(kConfigKey, options_.config));
  return store_->set(kModelKey, options_.model_hash);
}

Status RankHead::start_all() {
  processes_ = std::make_unique<RankProcesses>([this](const RankExit& exit) { local_exit(exit); });
  for (size_t rank = 1; rank < peers_.size(); ++rank) {
    if (peers_[rank].is_local) HADAL_RETURN_IF_ERROR(start_local(static_cast<int>(rank)));
  }
  if (options_.launcher != nullptr)
    options_.launcher->listen([this](const LaunchEvent& event) { launch_event(event); });
  for (size_t node = 1; options_.launcher != nullptr && node < options_.ranks_per_node.size(); ++node) {
    HADAL_RETURN_IF_ERROR(start_node(static_cast<int>(node)));
  }
  return {};
}

Status RankHead::start_local(int rank) {
  RankContract contract{.identity = options_.ranks.place};
  contract.identity.rank = contract.identity.local_rank = rank;
  contract.identity.generation = std::max(0, generation_);
  {
    const std::lock_guard lock(mutex_);
    peers_[static_cast<size_t>(rank)].running = true;
    peers_[static_cast<size_t>(rank)].has_joined = false;
  }
  const double join_s = std::chrono::duration<double>(options_.ranks.join_timeout).count();
  return processes_->start({.rank = rank,
                            .node_rank = 0,
                            .arguments = {"worker", "--join-timeout", fmt::format("{}", join_s)},
                            .env = rank_environment(contract)});
}

int RankHead::first_rank(int node_rank) const {
  int first = 0;
  for (int node = 0; node < node_rank; ++node) first += options_.ranks_per_node[static_cast<size_t>(node)];
  return first;
}

Status RankHead::start_node(int node_rank) {
  LaunchUnit unit{.node_rank = node_rank,
                  .first_rank = first_rank(node_rank),
                  .num_ranks = options_.ranks_per_node[static_cast<size_t>(node_rank)],
                  .command = {"hadal", "worker"},
                  .env = {}};
  RankContract contract{.identity = options_.ranks.place, .is_agent = true};
  contract.identity.rank = unit.first_rank;
  contract.identity.local_rank = 0;
  contract.identity.local_world_size = unit.num_ranks;
  contract.identity.node_rank = node_rank;
  contract.identity.generation = std::max(0, generation_);
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

void RankHead::local_exit(const RankExit& exit) {
  std::string what;
  {
    const std::lock_guard lock(mutex_);
    Peer& peer = peers_[static_cast<size_t>(exit.rank)];
    peer.running = false;
    peer.has_joined = false;
    peer.how_ended = exit.what;
    what = fmt::format("rank {} (node 0) ended: {}", exit.rank, exit.what);
    changed_.notify_all();
  }
  lose(what);
}

void RankHead::launch_event(const LaunchEvent& event) {
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
    changed_.notify_all();
  }
  lose(fmt::format("node {} ended: {}", event.node_rank, event.what));
}

// Tells the model, once per group.
void RankHead::lose(const std::string& what) {
  const std::lock_guard lost_lock(lost_mutex_);
  {
    const std::lock_guard lock(mutex_);
    if (!is_together_) return;
    is_together_ = false;
    state_ = what;
  }
  if (lost_) lost_(what);
}

void RankHead::disband() {
  const std::lock_guard lost_lock(lost_mutex_);
  const std::lock_guard lock(mutex_);
  is_together_ = false;
}

void RankHead::on_loss(std::function<void(const std::string&)> lost) {
  const std::lock_guard lock(lost_mutex_);
  lost_ = std::move(lost);
}

std::string RankHead::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

std::string RankHead::fatal_reason() const {
  const std::lock_guard lock(mutex_);
  return fatal_;
}

void RankHead::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

Status RankHead::check_cancelled() const {
  const std::lock_guard lock(mutex_);
  if (cancelled_) return make_error(ErrorCode::kCancelled, "the server stops");
  return {};
}

std::string RankHead::describe(int rank) const {
  return fmt::format("rank {} (node {})", rank, peers_[static_cast<size_t>(rank)].node_rank);
}

Error RankHead::fail(int rank, const std::string& how, const std::string& then) {
  std::string text = fmt::format("{}: {}; {}", describe(rank), how, then);
  std::vector<std::string> lines = processes_->last_lines(rank);
  if (lines.size() > kShownLines) lines.erase(lines.begin(), lines.end() - kShownLines);
  if (!lines.empty()) text += fmt::format(". Its last lines:\n  {}", fmt::join(lines, "\n  "));
  const std::lock_guard lock(mutex_);
  fatal_ = text;
  return {ErrorCode::kUnavailable, std::move(text)};
}

// Errors: the limit is reached, or nothing was ever served.
Status RankHead::count_restart(int rank, const std::string& how) {
  if (!assembled_) return tl::unexpected<Error>(fail(rank, how, "the server does not start"));
  const auto now = Clock::now();
  while (!restarts_.empty() && now - restarts_.front() > kRestartWindow) restarts_.pop_front();
  const int64_t limit = options_.ranks.restart_limit;
  if (static_cast<int64_t>(restarts_.size()) >= limit) {
    return tl::unexpected<Error>(
        fail(rank, how,
             fmt::format("ranks were restarted {} times within {} minutes, the limit of --restart-limit",
                         restarts_.size(), kRestartWindow.count())));
  }
  restarts_.push_back(now);
  counted_ = true;
  const std::string state = fmt::format("{}: {}; restart {} of {}", describe(rank), how, restarts_.size(), limit);
  log_warning("{}", state);
  const std::lock_guard lock(mutex_);
  state_ = state;
  return {};
}

Expected<AssembledRanks> RankHead::assemble() {
  counted_ = false;
  for (;;) {
    HADAL_RETURN_IF_ERROR(begin_generation());
    HADAL_RETURN_IF_ERROR(wait_for_all());
    auto groups = join();
    if (!groups) {
      log_warning("the ranks did not come together: {}", groups.error().message);
      if (!assembled_) return forward_error(std::move(groups));
      HADAL_RETURN_IF_ERROR(count_restart(0, groups.error().message));
      continue;
    }
    if (assembled_ && !counted_) HADAL_RETURN_IF_ERROR(count_replaced());
    assembled_ = true;
    const std::lock_guard lock(mutex_);
    transport_ = groups->transport;
    for (Peer& peer : peers_) {
      peer.has_joined = true;
      peer.last_nonce = peer.report.nonce;
      peer.last_pid = peer.report.pid;
    }
    is_together_ = true;
    state_.clear();
    return AssembledRanks{.groups = std::move(*groups), .generation = static_cast<uint32_t>(generation_)};
  }
}

// Ranks that somebody else has started again. A group that breaks again and again is no better than a rank that does.
Status RankHead::count_replaced() {
  for (size_t i = 1; i < peers_.size(); ++i) {
    if (peers_[i].report.nonce == peers_[i].last_nonce) continue;
    const int rank = static_cast<int>(i);
    const auto how = store_->get(ended_key(rank), milliseconds(0));
    return count_restart(rank, how ? "ended: " + *how : "was started again");
  }
  return count_restart(0, "the ranks lost each other");
}

// Whoever waits for the last generation learns that it is over.
Status RankHead::begin_generation() {
  const int world = options_.ranks.place.world_size;
  for (int rank = 1; generation_ >= 0 && rank < world; ++rank) {
    HADAL_RETURN_IF_ERROR(store_->set(go_key(generation_, rank), kOver));
  }
  ++generation_;
  const std::lock_guard lock(mutex_);
  is_together_ = false;
  if (generation_ > 0) state_ = state_.empty() ? "the ranks are brought together again" : state_;
  for (Peer& peer : peers_) peer.report = {};
  return {};
}

// Starts what has ended, until all have reported.
Status RankHead::wait_for_all() {
  const auto since = Clock::now();
  std::vector<int> missing;
  for (size_t rank = 1; rank < peers_.size(); ++rank) missing.push_back(static_cast<int>(rank));
  while (!missing.empty()) {
    HADAL_RETURN_IF_ERROR(check_cancelled());
    HADAL_RETURN_IF_ERROR(start_ended());
    HADAL_RETURN_IF_ERROR(take_reports(missing));
    if (missing.empty()) break;
    HADAL_RETURN_IF_ERROR(replace_silent(missing, since));
    if (Clock::now() - since > options_.ranks.join_timeout) {
      return tl::unexpected<Error>(fail(
          missing.front(),
          fmt::format("it did not come within {} s (missing: ranks {})",
                      std::chrono::duration<double>(options_.ranks.join_timeout).count(), fmt::join(missing, ", ")),
          "is its node up, its command started, and the port open?"));
    }
  }
  return {};
}

Status RankHead::start_ended() {
  std::vector<std::pair<int, std::string>> ended;
  std::vector<int> nodes;
  {
    const std::lock_guard lock(mutex_);
    for (size_t rank = 1; rank < peers_.size(); ++rank) {
      Peer& peer = peers_[rank];
      const bool is_launched = peer.node_rank > 0 && options_.launcher != nullptr;
      if (peer.running || !(peer.is_local || is_launched)) continue;
      peer.report = {};
      if (is_launched && std::find(nodes.begin(), nodes.end(), peer.node_rank) != nodes.end()) continue;
      if (is_launched) nodes.push_back(peer.node_rank);
      ended.emplace_back(static_cast<int>(rank), peer.how_ended);
    }
  }
  for (const auto& [rank, how] : ended) {
    HADAL_RETURN_IF_ERROR(count_restart(rank, "ended: " + how));
    const Peer& peer = peers_[static_cast<size_t>(rank)];
    HADAL_RETURN_IF_ERROR(peer.is_local ? start_local(rank) : start_node(peer.node_rank));
  }
  return {};
}

Status RankHead::take_reports(std::vector<int>& missing) {
  std::vector<int> still_missing;
  milliseconds patience = kPoll;  // for the first that is not here
  for (const int rank : missing) {
    auto text = store_->get(ready_key(generation_, rank), patience);
    if (!text) {
      patience = milliseconds(0);
      still_missing.push_back(rank);
      continue;
    }
    HADAL_ASSIGN_OR_RETURN(RankReport report, parse_rank_report(*text));
    if (!report.error.empty()) {
      return tl::unexpected<Error>(fail(rank, report.error, "it cannot take part"));
    }
    const std::lock_guard lock(mutex_);
    Peer& peer = peers_[static_cast<size_t>(rank)];
    // One that was left by a process that has ended since.
    if (peer.is_local && (!peer.running || report.pid != processes_->pid_of(rank))) {
      still_missing.push_back(rank);
      continue;
    }
    peer.report = std::move(report);
  }
  missing = std::move(still_missing);
  return {};
}

// A rank that has its weights only has to notice that its group is gone.
Status RankHead::replace_silent(const std::vector<int>& missing, Clock::time_point since) {
  if (Clock::now() - since < 2 * options_.ranks.rank_timeout) return {};
  for (const int rank : missing) {
    Peer& peer = peers_[static_cast<size_t>(rank)];
    {
      const std::lock_guard lock(mutex_);
      if (!peer.has_joined) continue;
      peer.has_joined = false;
    }
    log_warning("{} does not answer: it is ended and started again", describe(rank));
    if (peer.is_local) {
      processes_->kill(rank);
    } else {
      HADAL_RETURN_IF_ERROR(count_restart(rank, "does not answer"));
      HADAL_RETURN_IF_ERROR(
          store_->set(end_key(peer.node_rank, num_ends_[peer.node_rank]++), write_rank_to_end({rank, peer.last_pid})));
    }
  }
  return {};
}

Expected<RankGroups> RankHead::join() {
  for (size_t rank = 1; rank < peers_.size(); ++rank) {
    HADAL_RETURN_IF_ERROR(store_->set(go_key(generation_, static_cast<int>(rank)), peers_[rank].report.nonce));
  }
  RankIdentity identity = options_.ranks.place;
  identity.generation = generation_;
  return join_rank_groups(*store_, identity,
                          {.join_timeout = options_.ranks.group_timeout(),
                           .data_timeout = options_.ranks.rank_timeout,
                           .control_timeout = options_.ranks.rank_timeout});
}

std::vector<std::string> RankHead::table(const RankReport& own) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> lines = {fmt::format("ranks      {} over {}, rendezvous {}:{}", peers_.size(), transport_,
                                                options_.ranks.place.master_addr, options_.ranks.place.master_port)};
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    const RankReport& report = rank == 0 ? own : peers_[rank].report;
    lines.push_back(fmt::format("rank {:<5} node {}, pid {}, {}, {} threads, {}", rank, peers_[rank].node_rank,
                                report.pid, report.host, report.num_threads, format_bytes(report.memory_bytes)));
  }
  return lines;
}

}  // namespace hadal
