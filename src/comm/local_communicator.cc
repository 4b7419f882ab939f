#include "comm/local_communicator.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include <fmt/ranges.h>

#include "comm/operation_checks.h"
#include "comm/peer_watch.h"
#include "comm/tree_sum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int64_t kOneShotBytes = 32 << 10;  // up to here every rank sums everything: one wait instead of two
constexpr int64_t kWholeBytes = 4 << 10;     // up to here a message is published as a whole
constexpr milliseconds kNap{20};             // between looks at peers: bounds how late a death is seen
constexpr int kSpins = 4000;                 // about 40 us, a few times the longest exchange of a decode step
// Ranks of a decode step come apart by some hundred microseconds when one gets less of the memory's bandwidth; a
// sleeper takes tens of them to wake and is late for the next sum. Other processes get the core meanwhile, if they want
// it.
constexpr milliseconds kYielding{2};  // while a rank has a core of its own

constexpr int32_t kHasLeft = -1;  // RankBoard::pid of a rank that ended in order

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Round numbers wrap.
bool has_reached(uint32_t arrived, uint32_t round) { return static_cast<int32_t>(arrived - round) >= 0; }

// What a rank is in, for comparison with the others and for messages.
struct Call {
  CommOp op;
  int root;
  uint64_t num_bytes;
};

std::string describe(uint32_t op, uint32_t root, uint64_t num_bytes) {
  const CommOp known = static_cast<CommOp>(op);
  const bool has_root = known == CommOp::kBroadcast || known == CommOp::kReduce;
  return fmt::format("{} of {} bytes{}", comm_op_name(known), num_bytes,
                     has_root ? fmt::format(" from/to rank {}", root) : "");
}

class LocalCommunicator final : public LocalGroup {
 public:
  LocalCommunicator(std::unique_ptr<SharedSegment> segment, const LocalGroupOptions& options)
      : segment_(std::move(segment)),
        rank_(options.rank),
        world_(options.sizes.world_size),
        slot_bytes_(options.sizes.slot_bytes),
        timeout_(options.timeout),
        first_rank_(options.first_rank),
        num_spins_(!options.spin     ? 0
                   : has_core_each() ? kSpins
                                     : kSpins / 40),
        yielding_(options.spin && has_core_each() ? kYielding : milliseconds(0)),
        slots_(world_) {}
  ~LocalCommunicator() override;

  Status join();

  int rank() const override { return rank_; }
  int world_size() const override { return world_; }
  void set_timeout(std::chrono::milliseconds timeout) override { timeout_ = timeout; }
  void give_up(const std::string& why) override { (void)break_off({ErrorCode::kUnavailable, why}); }
  void set_waits_elsewhere(bool waits) override { segment_->board(rank_).waits_elsewhere.store(waits ? 1 : 0); }

  Status barrier() override;
  Status all_reduce(void* data, int64_t count, DType dtype) override;
  Status reduce(void* data, int64_t count, DType dtype, int root) override;
  Status reduce_scatter(const void* data, void* mine, int64_t count_per_rank, DType dtype) override;
  Status all_gather(std::span<const std::byte> mine, std::byte* all) override;
  Status all_to_all(const std::byte* data, std::byte* result, int64_t bytes_per_rank) override;
  Status broadcast(std::span<std::byte> data, int root) override;
  Status send(std::span<const std::byte> data, int to) override;
  Status recv(std::span<std::byte> data, int from) override;

 private:
  Status begin(CommOp op, uint64_t num_bytes, int root = 0);
  // A round: open() waits until this rank's slot may be written, publish() shows it, gather() waits for the others'.
  Status open();
  void publish();
  Status gather();
  Status gather_from(int peer);
  Status check_same_call(int peer);
  // A whole sum in one round, whose pieces others read while the next ones are written.
  Status sum_in_pieces(std::byte* bytes, int64_t count, DType dtype);
  std::byte* my_slot() { return segment_->slot(rank_, round_); }
  std::span<const void* const> all_slots();

  template <typename Ready>
  Status wait_for(int peer, const Ready& ready);
  Status look_at(int peer, bool has_left, Clock::time_point since);
  bool has_core_each() const { return world_ <= static_cast<int>(std::thread::hardware_concurrency()); }
  Status break_off(Error error);
  int shown(int rank) const { return first_rank_ + rank; }

  const std::unique_ptr<SharedSegment> segment_;
  const int rank_;
  const int world_;
  const int64_t slot_bytes_;
  std::chrono::milliseconds timeout_;
  const int first_rank_;
  const int num_spins_;
  const milliseconds yielding_;
  PeerWatch watch_;
  bool joined_ = false;
  uint32_t round_ = 1;  // the next to publish
  Call call_{CommOp::kBarrier, 0, 0};
  uint64_t num_calls_ = 0;
  Status failure_;
  std::vector<const void*> slots_;
};

// The others may still wait for each other, but no more for this one.
LocalCommunicator::~LocalCommunicator() {
  if (!joined_) return;
  segment_->board(rank_).pid.store(kHasLeft);
  segment_->ring();
}

Status LocalCommunicator::join() {
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

Status LocalCommunicator::begin(CommOp op, uint64_t num_bytes, int root) {
  if (!failure_) return failure_;
  if (root < 0 || root >= world_) {
    return make_error(ErrorCode::kInvalidArgument, "{}: root {} of {} ranks", comm_op_name(op), root, world_);
  }
  call_ = {op, root, num_bytes};
  ++num_calls_;
  return {};
}

// The slot of this parity was last read in the round before the last: whoever has published since is done with it.
Status LocalCommunicator::open() {
  for (int peer = 0; peer < world_; ++peer) {
    if (peer == rank_) continue;
    RankBoard& board = segment_->board(peer);
    HADAL_RETURN_IF_ERROR(
        wait_for(peer, [&] { return has_reached(board.arrived.load(std::memory_order_acquire), round_ - 1); }));
  }
  RankBoard& mine = segment_->board(rank_);
  mine.op[round_ % 2] = static_cast<uint32_t>(call_.op);
  mine.root[round_ % 2] = static_cast<uint32_t>(call_.root);
  mine.num_bytes[round_ % 2] = call_.num_bytes;
  return {};
}

void LocalCommunicator::publish() {
  RankBoard& mine = segment_->board(rank_);
  mine.pieces.store(kPiecesPerRound * round_ + kPiecesPerRound - 1, std::memory_order_release);
  mine.arrived.store(round_, std::memory_order_release);
  segment_->ring();
}

Status LocalCommunicator::gather_from(int peer) {
  if (peer == rank_) return {};
  RankBoard& board = segment_->board(peer);
  HADAL_RETURN_IF_ERROR(
      wait_for(peer, [&] { return has_reached(board.arrived.load(std::memory_order_acquire), round_); }));
  return check_same_call(peer);
}

Status LocalCommunicator::gather() {
  for (int peer = 0; peer < world_; ++peer) HADAL_RETURN_IF_ERROR(gather_from(peer));
  return {};
}

Status LocalCommunicator::check_same_call(int peer) {
  const RankBoard& board = segment_->board(peer);
  const uint32_t i = round_ % 2;
  if (board.op[i] == static_cast<uint32_t>(call_.op) && board.root[i] == static_cast<uint32_t>(call_.root) &&
      board.num_bytes[i] == call_.num_bytes) {
    return {};
  }
  return break_off({ErrorCode::kInternal,
                    fmt::format("the ranks disagree at operation {}: rank {} is in {}, rank {} in {}", num_calls_,
                                shown(rank_), describe(static_cast<uint32_t>(call_.op), call_.root, call_.num_bytes),
                                shown(peer), describe(board.op[i], board.root[i], board.num_bytes[i]))});
}

std::span<const void* const> LocalCommunicator::all_slots() {
  for (int peer = 0; peer < world_; ++peer) slots_[peer] = segment_->slot(peer, round_);
  return slots_;
}

template <typename Ready>
Status LocalCommunicator::wait_for(int peer, const Ready& ready) {
  for (int i = 0; i < num_spins_; ++i) {
    if (ready()) return {};
    pause_cpu();
  }
  const auto since = Clock::now();
  while (Clock::now() < since + yielding_) {
    if (ready()) return {};
    sched_yield();
  }
  while (!ready()) {
    segment_->sleep_until(ready, kNap);
    // Asked before the last look at what it left behind: a rank may publish, and then leave.
    const bool has_left = segment_->board(peer).pid.load() == kHasLeft;
    if (ready()) return {};
    HADAL_RETURN_IF_ERROR(look_at(peer, has_left, since));
  }
  return {};
}

// Whether it is still worth waiting.
Status LocalCommunicator::look_at(int peer, bool has_left, Clock::time_point since) {
  const std::string where =
      fmt::format("rank {} in {} (operation {})", shown(rank_),
                  describe(static_cast<uint32_t>(call_.op), call_.root, call_.num_bytes), num_calls_);
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

Status LocalCommunicator::break_off(Error error) {
  segment_->break_off(rank_, error.message);
  segment_->ring();
  if (failure_) failure_ = tl::unexpected(std::move(error));
  return failure_;
}

Status LocalCommunicator::barrier() {
  HADAL_RETURN_IF_ERROR(begin(CommOp::kBarrier, 0));
  HADAL_RETURN_IF_ERROR(open());
  publish();
  HADAL_RETURN_IF_ERROR(gather());
  ++round_;
  return {};
}

Status LocalCommunicator::sum_in_pieces(std::byte* bytes, int64_t count, DType dtype) {
  constexpr int64_t kLine = 64;
  const int64_t size = static_cast<int64_t>(dtype_size_bytes(dtype));
  const int64_t per_piece =
      (count + kPiecesPerRound - 1) / kPiecesPerRound * size / kLine * kLine / size + kLine / size;
  const int64_t num_pieces = (count + per_piece - 1) / per_piece;
  RankBoard& mine = segment_->board(rank_);
  HADAL_RETURN_IF_ERROR(open());
  const auto write = [&](int64_t piece) {
    const int64_t begin = piece * per_piece, end = std::min(count, begin + per_piece);
    std::memcpy(my_slot() + begin * size, bytes + begin * size, (end - begin) * size);
    mine.pieces.store(kPiecesPerRound * round_ + static_cast<uint32_t>(piece), std::memory_order_release);
    if (piece + 1 == num_pieces) publish();
  };
  write(0);
  const auto inputs = all_slots();
  for (int64_t piece = 0; piece < num_pieces; ++piece) {
    if (piece + 1 < num_pieces) write(piece + 1);
    const uint32_t awaited = kPiecesPerRound * round_ + static_cast<uint32_t>(piece);
    for (int peer = 0; peer < world_; ++peer) {
      if (peer == rank_) continue;
      RankBoard& board = segment_->board(peer);
      HADAL_RETURN_IF_ERROR(
          wait_for(peer, [&] { return has_reached(board.pieces.load(std::memory_order_acquire), awaited); }));
      if (piece == 0) HADAL_RETURN_IF_ERROR(check_same_call(peer));
    }
    const int64_t begin = piece * per_piece, end = std::min(count, begin + per_piece);
    tree_sum(inputs, begin, end - begin, dtype, bytes + begin * size);
  }
  ++round_;
  return {};
}

Status LocalCommunicator::all_reduce(void* data, int64_t count, DType dtype) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count));
  const int64_t size = static_cast<int64_t>(dtype_size_bytes(dtype));
  HADAL_RETURN_IF_ERROR(begin(CommOp::kAllReduce, count * size));
  std::byte* bytes = static_cast<std::byte*>(data);
  const int64_t per_round = slot_bytes_ / size;
  const bool one_shot = count * size <= kOneShotBytes || world_ == 1;
  if (one_shot && count * size > kWholeBytes && count <= per_round) return sum_in_pieces(bytes, count, dtype);
  for (int64_t at = 0; at < count; at += per_round) {
    const int64_t length = std::min(per_round, count - at);
    HADAL_RETURN_IF_ERROR(open());
    std::memcpy(my_slot(), bytes + at * size, length * size);
    publish();
    HADAL_RETURN_IF_ERROR(gather());
    if (one_shot) {
      tree_sum(all_slots(), 0, length, dtype, bytes + at * size);
      ++round_;
      continue;
    }
    // Each rank sums its share, then all read all shares.
    const auto share_begin = [&](int64_t rank) { return length * rank / world_; };
    const auto inputs = all_slots();
    ++round_;
    const int64_t begin = share_begin(rank_);
    tree_sum(inputs, begin, share_begin(rank_ + 1) - begin, dtype, my_slot() + begin * size);
    HADAL_RETURN_IF_ERROR(open());
    publish();
    for (int i = 0; i < world_; ++i) {
      const int peer = (rank_ + i) % world_;  // not all at the same one
      HADAL_RETURN_IF_ERROR(gather_from(peer));
      std::memcpy(bytes + (at + share_begin(peer)) * size, segment_->slot(peer, round_) + share_begin(peer) * size,
                  (share_begin(peer + 1) - share_begin(peer)) * size);
    }
    ++round_;
  }
  return {};
}

Status LocalCommunicator::reduce(void* data, int64_t count, DType dtype, int root) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count));
  const int64_t size = static_cast<int64_t>(dtype_size_bytes(dtype));
  HADAL_RETURN_IF_ERROR(begin(CommOp::kReduce, count * size, root));
  std::byte* bytes = static_cast<std::byte*>(data);
  const int64_t per_round = slot_bytes_ / size;
  for (int64_t at = 0; at < count; at += per_round, ++round_) {
    const int64_t length = std::min(per_round, count - at);
    HADAL_RETURN_IF_ERROR(open());
    std::memcpy(my_slot(), bytes + at * size, length * size);
    publish();
    HADAL_RETURN_IF_ERROR(gather());
    if (rank_ == root) tree_sum(all_slots(), 0, length, dtype, bytes + at * size);
  }
  return {};
}

Status LocalCommunicator::reduce_scatter(const void* data, void* mine, int64_t count_per_rank, DType dtype) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count_per_rank));
  const int64_t size = static_cast<int64_t>(dtype_size_bytes(dtype));
  HADAL_RETURN_IF_ERROR(begin(CommOp::kReduceScatter, count_per_rank * size * world_));
  const std::byte* bytes = static_cast<const std::byte*>(data);
  // A piece of every row at a time, so that each rank finds its own.
  const int64_t per_round = slot_bytes_ / size / world_;
  if (per_round == 0)
    return make_error(ErrorCode::kInvalidArgument, "slots of {} bytes for {} ranks", slot_bytes_, world_);
  for (int64_t at = 0; at < count_per_rank; at += per_round, ++round_) {
    const int64_t length = std::min(per_round, count_per_rank - at);
    HADAL_RETURN_IF_ERROR(open());
    for (int row = 0; row < world_; ++row) {
      std::memcpy(my_slot() + row * length * size, bytes + (row * count_per_rank + at) * size, length * size);
    }
    publish();
    HADAL_RETURN_IF_ERROR(gather());
    tree_sum(all_slots(), rank_ * length, length, dtype, static_cast<std::byte*>(mine) + at * size);
  }
  return {};
}

Status LocalCommunicator::all_gather(std::span<const std::byte> mine, std::byte* all) {
  HADAL_RETURN_IF_ERROR(begin(CommOp::kAllGather, mine.size()));
  const int64_t total = static_cast<int64_t>(mine.size());
  for (int64_t at = 0; at < total; at += slot_bytes_, ++round_) {
    const int64_t length = std::min(slot_bytes_, total - at);
    HADAL_RETURN_IF_ERROR(open());
    std::memcpy(my_slot(), mine.data() + at, length);
    publish();
    for (int peer = 0; peer < world_; ++peer) {
      HADAL_RETURN_IF_ERROR(gather_from(peer));
      std::byte* row = all + peer * total + at;
      if (row != mine.data() + at) std::memcpy(row, segment_->slot(peer, round_), length);
    }
  }
  return {};
}

Status LocalCommunicator::all_to_all(const std::byte* data, std::byte* result, int64_t bytes_per_rank) {
  if (bytes_per_rank < 0) return make_error(ErrorCode::kInvalidArgument, "all_to_all of {} bytes", bytes_per_rank);
  HADAL_RETURN_IF_ERROR(begin(CommOp::kAllToAll, static_cast<uint64_t>(bytes_per_rank)));
  const int64_t per_round = slot_bytes_ / world_;
  for (int64_t at = 0; at < bytes_per_rank; at += per_round, ++round_) {
    const int64_t length = std::min(per_round, bytes_per_rank - at);
    HADAL_RETURN_IF_ERROR(open());
    for (int row = 0; row < world_; ++row) {
      std::memcpy(my_slot() + row * length, data + row * bytes_per_rank + at, length);
    }
    publish();
    for (int peer = 0; peer < world_; ++peer) {
      HADAL_RETURN_IF_ERROR(gather_from(peer));
      std::memcpy(result + peer * bytes_per_rank + at, segment_->slot(peer, round_) + rank_ * length, length);
    }
  }
  return {};
}

Status LocalCommunicator::broadcast(std::span<std::byte> data, int root) {
  HADAL_RETURN_IF_ERROR(begin(CommOp::kBroadcast, data.size(), root));
  const int64_t total = static_cast<int64_t>(data.size());
  for (int64_t at = 0; at < total; at += slot_bytes_, ++round_) {
    const int64_t length = std::min(slot_bytes_, total - at);
    HADAL_RETURN_IF_ERROR(open());
    if (rank_ == root) std::memcpy(my_slot(), data.data() + at, length);
    publish();
    HADAL_RETURN_IF_ERROR(gather_from(root));
    if (rank_ != root) std::memcpy(data.data() + at, segment_->slot(root, round_), length);
  }
  return {};
}

Status LocalCommunicator::send(std::span<const std::byte> data, int to) {
  HADAL_RETURN_IF_ERROR(check_peer(rank_, to, world_));
  HADAL_RETURN_IF_ERROR(begin(CommOp::kSend, data.size(), to));
  Mailbox& box = segment_->mailbox(rank_, to);
  const size_t piece_bytes = static_cast<size_t>(segment_->sizes().piece_bytes);
  size_t at = 0;
  do {  // an empty message is one empty piece
    const uint32_t number = box.written.load(std::memory_order_relaxed);
    HADAL_RETURN_IF_ERROR(wait_for(to, [&] { return number - box.read.load(std::memory_order_acquire) < 2; }));
    const size_t length = std::min(piece_bytes, data.size() - at);
    box.num_bytes[number % 2] = data.size();
    if (length > 0) std::memcpy(segment_->piece(rank_, to, number), data.data() + at, length);
    box.written.store(number + 1, std::memory_order_release);
    segment_->ring();
    at += length;
  } while (at < data.size());
  return {};
}

Status LocalCommunicator::recv(std::span<std::byte> data, int from) {
  HADAL_RETURN_IF_ERROR(check_peer(rank_, from, world_));
  HADAL_RETURN_IF_ERROR(begin(CommOp::kRecv, data.size(), from));
  Mailbox& box = segment_->mailbox(from, rank_);
  const size_t piece_bytes = static_cast<size_t>(segment_->sizes().piece_bytes);
  size_t at = 0;
  do {
    const uint32_t number = box.read.load(std::memory_order_relaxed);
    HADAL_RETURN_IF_ERROR(wait_for(from, [&] { return box.written.load(std::memory_order_acquire) != number; }));
    if (box.num_bytes[number % 2] != data.size()) {
      return break_off(
          {ErrorCode::kInternal, fmt::format("rank {} sends {} bytes, rank {} expects {} (operation {})", shown(from),
                                             box.num_bytes[number % 2], shown(rank_), data.size(), num_calls_)});
    }
    const size_t length = std::min(piece_bytes, data.size() - at);
    if (length > 0) std::memcpy(data.data() + at, segment_->piece(from, rank_, number), length);
    box.read.store(number + 1, std::memory_order_release);
    segment_->ring();
    at += length;
  } while (at < data.size());
  return {};
}

}  // namespace

Expected<std::unique_ptr<LocalGroup>> join_local_group(int fd, const LocalGroupOptions& options) {
  if (options.rank < 0 || options.rank >= options.sizes.world_size) {
    return make_error(ErrorCode::kInvalidArgument, "rank {} of {}", options.rank, options.sizes.world_size);
  }
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<SharedSegment> segment, SharedSegment::map(fd, options.sizes));
  auto communicator = std::make_unique<LocalCommunicator>(std::move(segment), options);
  HADAL_RETURN_IF_ERROR(communicator->join());
  return communicator;
}

}  // namespace hadal
