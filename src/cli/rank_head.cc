#include "cli/rank_head.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "base/log.h"
#include "cli/memory_plan.h"

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

RankHead::RankHead(RankHeadOptions options)
    : options_(std::move(options)), peers_(options_.peers, [this](const std::string& what) { lose(what); }) {}

Expected<std::shared_ptr<RankHead>> RankHead::start(RankHeadOptions options) {
  std::shared_ptr<RankHead> head(new RankHead(std::move(options)));
  HADAL_RETURN_IF_ERROR(head->listen());
  HADAL_RETURN_IF_ERROR(head->peers_.start_all(head->options_.ranks.place));
  return head;
}

RankHead::~RankHead() {
  server_.reset();  // so that ranks that still wait for a group end by themselves
}

Status RankHead::listen() {
  RendezvousOptions rendezvous = rendezvous_options(options_);
  HADAL_ASSIGN_OR_RETURN(server_, RendezvousServer::start(rendezvous));
  options_.ranks.place.master_port = rendezvous.port = server_->port();
  HADAL_ASSIGN_OR_RETURN(store_, connect_rendezvous(rendezvous, 0, milliseconds(5'000)));
  HADAL_RETURN_IF_ERROR(store_->set(kConfigKey, options_.config));
  HADAL_RETURN_IF_ERROR(store_->set(kModelKey, options_.model_hash));
  return store_->set(kNumericsKey, options_.numerics_hash);
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
}

Status RankHead::check_cancelled() const {
  const std::lock_guard lock(mutex_);
  if (cancelled_) return make_error(ErrorCode::kCancelled, "the server stops");
  return {};
}

Error RankHead::fail(int rank, const std::string& how, const std::string& then) {
  std::string text = fmt::format("{}: {}; {}", peers_.describe(rank), how, then);
  std::vector<std::string> lines = peers_.last_lines(rank);
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
  const std::string state =
      fmt::format("{}: {}; restart {} of {}", peers_.describe(rank), how, restarts_.size(), limit);
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
    peers_.note_group();
    const std::lock_guard lock(mutex_);
    transport_ = groups->transport;
    is_together_ = true;
    state_.clear();
    return AssembledRanks{.groups = std::move(*groups), .generation = static_cast<uint32_t>(generation_)};
  }
}

// Ranks that somebody else has started again. A group that breaks again and again is no better than a rank that does.
Status RankHead::count_replaced() {
  const auto rank = peers_.first_replaced();
  if (!rank) return count_restart(0, "the ranks lost each other");
  const auto how = store_->get(ended_key(*rank), milliseconds(0));
  return count_restart(*rank, how ? "ended: " + *how : "was started again");
}

// Whoever waits for the last generation learns that it is over.
Status RankHead::begin_generation() {
  for (int rank = 1; generation_ >= 0 && rank < peers_.world_size(); ++rank) {
    HADAL_RETURN_IF_ERROR(store_->set(go_key(generation_, rank), kOver));
  }
  ++generation_;
  peers_.forget_reports();
  const std::lock_guard lock(mutex_);
  is_together_ = false;
  if (generation_ > 0) state_ = state_.empty() ? "the ranks are brought together again" : state_;
  return {};
}

// Starts what has ended, until all have reported.
Status RankHead::wait_for_all() {
  const auto since = Clock::now();
  std::vector<int> missing(static_cast<size_t>(peers_.world_size() - 1));
  std::iota(missing.begin(), missing.end(), 1);
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
  for (const RankPeers::Ended& ended : peers_.take_ended()) {
    HADAL_RETURN_IF_ERROR(count_restart(ended.rank, "ended: " + ended.how));
    HADAL_RETURN_IF_ERROR(peers_.start(ended.rank, generation_));
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
    if (!peers_.take_report(rank, std::move(report))) still_missing.push_back(rank);
  }
  missing = std::move(still_missing);
  return {};
}

// A rank that has its weights only has to notice that its group is gone.
Status RankHead::replace_silent(const std::vector<int>& missing, Clock::time_point since) {
  if (Clock::now() - since < 2 * options_.ranks.rank_timeout) return {};
  for (const int rank : missing) {
    if (!peers_.is_overdue(rank)) continue;
    if (!options_.peers.starts_local_ranks) {
      return tl::unexpected<Error>(
          fail(rank, "does not answer", "whoever started each rank alone (mpirun, srun) has to start all again"));
    }
    log_warning("{} does not answer: it is ended and started again", peers_.describe(rank));
    if (peers_.is_local(rank)) {
      peers_.kill(rank);
      continue;
    }
    HADAL_RETURN_IF_ERROR(count_restart(rank, "does not answer"));
    const int node = peers_.node_of(rank);
    HADAL_RETURN_IF_ERROR(
        store_->set(end_key(node, num_ends_[node]++), write_rank_to_end({rank, peers_.last_pid(rank)})));
  }
  return {};
}

Expected<RankGroups> RankHead::join() {
  for (int rank = 1; rank < peers_.world_size(); ++rank) {
    HADAL_RETURN_IF_ERROR(store_->set(go_key(generation_, rank), peers_.report(rank).nonce));
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
  std::vector<std::string> lines = {fmt::format("ranks      {} over {}, rendezvous {}:{}", peers_.world_size(),
                                                transport_, options_.ranks.place.master_addr,
                                                options_.ranks.place.master_port)};
  for (int rank = 0; rank < peers_.world_size(); ++rank) {
    const RankReport report = rank == 0 ? own : peers_.report(rank);
    lines.push_back(fmt::format("rank {:<5} node {}, pid {}, {}, {} threads, {}", rank, peers_.node_of(rank),
                                report.pid, report.host, report.num_threads, format_bytes(report.memory_bytes)));
  }
  return lines;
}

}  // namespace hadal
