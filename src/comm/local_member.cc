#include "comm/local_member.h"

#include <unistd.h>

#include <thread>
#include <vector>

#include <fmt/ranges.h>

namespace hadal {
namespace {

using std::chrono::milliseconds;

constexpr int kSpins = 4000;  // about 40 us, a few times the longest exchange of a decode step
// Ranks of a decode step come apart by some hundred microseconds when one gets less of the memory's bandwidth; a
// sleeper takes tens of them to wake and is late for the next sum. Other processes get the core meanwhile, if they want
// it.
constexpr milliseconds kYielding{2};  // while a rank has a core of its own

constexpr int32_t kHasLeft = -1;  // RankBoard::pid of a rank that ended in order

}  // namespace

std::string describe_call(uint32_t op, uint32_t root, uint64_t num_bytes) {
  const CommOp known = static_cast<CommOp>(op);
  const bool has_root = known == CommOp::kBroadcast || known == CommOp::kReduce;
  return fmt::format("{} of {} bytes{}", comm_op_name(known), num_bytes,
                     has_root ? fmt::format(" from/to rank {}", root) : "");
}

LocalMember::LocalMember(std::unique_ptr<SharedSegment> segment, const LocalGroupOptions& options)
    : segment_(std::move(segment)),
      rank_(options.rank),
      world_(options.sizes.world_size),
      first_rank_(options.first_rank),
      timeout_(options.timeout),
      num_spins_(!options.spin     ? 0
                 : has_core_each() ? kSpins
                                   : kSpins / 40),
      yielding_(options.spin && has_core_each() ? kYielding : milliseconds(0)) {}

bool LocalMember::has_core_each() const { return world_ <= static_cast<int>(std::thread::hardware_concurrency()); }

// The others may still wait for each other, but no more for this one.
LocalMember::~LocalMember() {
  if (!joined_) return;
  segment_->board(rank_).pid.store(kHasLeft);
  segment_->ring();
}

Status LocalMember::join() {
  RankBoard& mine = segment_->board(rank_);
  int32_t nobody = 0;
  if (!mine.pid.compare_exchange_strong(nobody, getpid())) {
    return make_error(ErrorCode::kInvalidArgument, "rank {} has joined already, as process {}: give every rank its own",
                      shown(rank_), nobody);
  }
  joined_ = true;
  segment_->ring();
  const auto deadline = Clock::now() + timeout_;
  std::vector<int> missing;
  const auto all_here = [&] {
    missing.clear();
    for (int rank = 0; rank < world_; ++rank) {
      if (segment_->board(rank).pid.load() == 0) missing.push_back(shown(rank));
    }
    return missing.empty();
  };
  while (!all_here()) {
    if (Clock::now() >= deadline) {
      return break_off(
          {ErrorCode::kUnavailable,
           fmt::format("rank {} waited {} ms for rank(s) {} of {} to start on this machine: see their logs",
                       shown(rank_), timeout_.count(), fmt::join(missing, ", "), world_)});
    }
    segment_->sleep_until(all_here, kNap);
  }
  for (int rank = 0; rank < world_; ++rank) watch_.add(segment_->board(rank).pid.load());
  return {};
}

Status LocalMember::begin(CommOp op, uint64_t num_bytes, int root) {
  if (!failure_) return failure_;
  if (root < 0 || root >= world_) {
    return make_error(ErrorCode::kInvalidArgument, "{}: root {} of {} ranks", comm_op_name(op), root, world_);
  }
  call_ = {op, root, num_bytes};
  ++num_calls_;
  return {};
}

bool LocalMember::has_left(int peer) { return segment_->board(peer).pid.load() == kHasLeft; }

// Whether it is still worth waiting.
Status LocalMember::look_at(int peer, bool has_left, Clock::time_point since) {
  const std::string where =
      fmt::format("rank {} in {} (operation {})", shown(rank_),
                  describe_call(static_cast<uint32_t>(call_.op), call_.root, call_.num_bytes), num_calls_);
  if (const auto broken = segment_->broken_by(); broken) {
    return break_off(
        {ErrorCode::kUnavailable, fmt::format("{}: rank {} gave up: {}", where, shown(broken->rank), broken->why)});
  }
  if (has_left) {
    return break_off({ErrorCode::kUnavailable, fmt::format("{}: rank {} has left the group", where, shown(peer))});
  }
  for (int other = 0; other < world_; ++other) {
    const int32_t pid = segment_->board(other).pid.load();
    if (pid != kHasLeft && watch_.has_ended(other)) {
      return break_off(
          {ErrorCode::kUnavailable, fmt::format("{}: rank {} (process {}) has died", where, shown(other), pid)});
    }
  }
  const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - since);
  const bool is_elsewhere = segment_->board(peer).waits_elsewhere.load() != 0;
  if (waited < timeout_ + (is_elsewhere ? kElsewhereGrace : milliseconds(0))) return {};
  return break_off(
      {ErrorCode::kUnavailable, fmt::format("{}: waited {} ms for rank {} (process {}), which lives but does not come",
                                            where, waited.count(), shown(peer), segment_->board(peer).pid.load())});
}

Status LocalMember::break_off(Error error) {
  segment_->break_off(rank_, error.message);
  segment_->ring();
  if (failure_) failure_ = tl::unexpected(std::move(error));
  return failure_;
}

}  // namespace hadal
