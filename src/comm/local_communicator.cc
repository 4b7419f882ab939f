#include "comm/local_communicator.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "comm/local_member.h"
#include "comm/operation_checks.h"
#include "comm/tree_sum.h"

namespace hadal {
namespace {

constexpr int64_t kOneShotBytes = 32 << 10;  // up to here every rank sums everything: one wait instead of two
constexpr int64_t kWholeBytes = 4 << 10;     // up to here a message is published as a whole

// Round numbers wrap.
bool has_reached(uint32_t arrived, uint32_t round) { return static_cast<int32_t>(arrived - round) >= 0; }

class LocalCommunicator final : public LocalGroup {
 public:
  LocalCommunicator(std::unique_ptr<SharedSegment> segment, const LocalGroupOptions& options)
      : member_(std::move(segment), options),
        segment_(&member_.segment()),
        rank_(options.rank),
        world_(options.sizes.world_size),
        slot_bytes_(options.sizes.slot_bytes),
        inputs_(world_) {}

  Status join() { return member_.join(); }

  int rank() const override { return rank_; }
  int world_size() const override { return world_; }
  void set_timeout(std::chrono::milliseconds timeout) override { member_.set_timeout(timeout); }
  void give_up(const std::string& why) override { (void)member_.break_off({ErrorCode::kUnavailable, why}); }
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
  // A round: open() waits until this rank's slot may be written, publish() shows it, gather() waits for the others'.
  Status open();
  void publish();
  Status gather();
  Status gather_from(int peer);
  Status check_same_call(int peer);
  // A whole sum in one round, whose pieces others read while the next ones are written.
  Status sum_in_pieces(std::byte* bytes, int64_t count, DType dtype);
  std::byte* my_slot() { return segment_->slot(rank_, round_); }
  // What all ranks publish in this round; this rank's own where the caller keeps it: its slot is the peers' to read.
  std::span<const void* const> all_inputs(const void* mine);

  LocalMember member_;
  SharedSegment* const segment_;  // the member's
  const int rank_;
  const int world_;
  const int64_t slot_bytes_;
  uint32_t round_ = 1;  // the next to publish
  std::vector<const void*> inputs_;
};

// The slot of this parity was last read in the round before the last: whoever has published since is done with it.
Status LocalCommunicator::open() {
  for (int peer = 0; peer < world_; ++peer) {
    if (peer == rank_) continue;
    RankBoard& board = segment_->board(peer);
    HADAL_RETURN_IF_ERROR(
        member_.wait_for(peer, [&] { return has_reached(board.arrived.load(std::memory_order_acquire), round_ - 1); }));
  }
  const LocalCall& call = member_.call();
  RankBoard& mine = segment_->board(rank_);
  mine.op[round_ % 2] = static_cast<uint32_t>(call.op);
  mine.root[round_ % 2] = static_cast<uint32_t>(call.root);
  mine.num_bytes[round_ % 2] = call.num_bytes;
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
      member_.wait_for(peer, [&] { return has_reached(board.arrived.load(std::memory_order_acquire), round_); }));
  return check_same_call(peer);
}

Status LocalCommunicator::gather() {
  for (int peer = 0; peer < world_; ++peer) HADAL_RETURN_IF_ERROR(gather_from(peer));
  return {};
}

Status LocalCommunicator::check_same_call(int peer) {
  const LocalCall& call = member_.call();
  const RankBoard& board = segment_->board(peer);
  const uint32_t i = round_ % 2;
  if (board.op[i] == static_cast<uint32_t>(call.op) && board.root[i] == static_cast<uint32_t>(call.root) &&
      board.num_bytes[i] == call.num_bytes) {
    return {};
  }
  return member_.break_off(
      {ErrorCode::kInternal,
       fmt::format("the ranks disagree at operation {}: rank {} is in {}, rank {} in {}", member_.num_calls(),
                   member_.shown(rank_), describe_call(static_cast<uint32_t>(call.op), call.root, call.num_bytes),
                   member_.shown(peer), describe_call(board.op[i], board.root[i], board.num_bytes[i]))});
}

std::span<const void* const> LocalCommunicator::all_inputs(const void* mine) {
  for (int peer = 0; peer < world_; ++peer) inputs_[peer] = segment_->slot(peer, round_);
  inputs_[rank_] = mine;
  return inputs_;
}

Status LocalCommunicator::barrier() {
  HADAL_RETURN_IF_ERROR(member_.begin(CommOp::kBarrier, 0));
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
  const auto inputs = all_inputs(bytes);
  for (int64_t piece = 0; piece < num_pieces; ++piece) {
    if (piece + 1 < num_pieces) write(piece + 1);
    const uint32_t awaited = kPiecesPerRound * round_ + static_cast<uint32_t>(piece);
    for (int peer = 0; peer < world_; ++peer) {
      if (peer == rank_) continue;
      RankBoard& board = segment_->board(peer);
      HADAL_RETURN_IF_ERROR(
          member_.wait_for(peer, [&] { return has_reached(board.pieces.load(std::memory_order_acquire), awaited); }));
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
  HADAL_RETURN_IF_ERROR(member_.begin(CommOp::kAllReduce, count * size));
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
      tree_sum(all_inputs(bytes + at * size), 0, length, dtype, bytes + at * size);
      ++round_;
      continue;
    }
    // Each rank sums its share, then all read all shares.
    const auto share_begin = [&](int64_t rank) { return length * rank / world_; };
    const auto inputs = all_inputs(bytes + at * size);
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
  HADAL_RETURN_IF_ERROR(member_.begin(CommOp::kReduce, count * size, root));
  std::byte* bytes = static_cast<std::byte*>(data);
  const int64_t per_round = slot_bytes_ / size;
  for (int64_t at = 0; at < count; at += per_round, ++round_) {
    const int64_t length = std::min(per_round, count - at);
    HADAL_RETURN_IF_ERROR(open());
    std::memcpy(my_slot(), bytes + at * size, length * size);
    publish();
    HADAL_RETURN_IF_ERROR(gather());
    if (rank_ == root) tree_sum(all_inputs(bytes + at * size), 0, length, dtype, bytes + at * size);
  }
  return {};
}

Status LocalCommunicator::reduce_scatter(const void* data, void* mine, int64_t count_per_rank, DType dtype) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count_per_rank));
  const int64_t size = static_cast<int64_t>(dtype_size_bytes(dtype));
  HADAL_RETURN_IF_ERROR(member_.begin(CommOp::kReduceScatter, count_per_rank * size * world_));
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
    tree_sum(all_inputs(my_slot()), rank_ * length, length, dtype, static_cast<std::byte*>(mine) + at * size);
  }
  return {};
}

Status LocalCommunicator::all_gather(std::span<const std::byte> mine, std::byte* all) {
  HADAL_RETURN_IF_ERROR(member_.begin(CommOp::kAllGather, mine.size()));
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
  HADAL_RETURN_IF_ERROR(member_.begin(CommOp::kAllToAll, static_cast<uint64_t>(bytes_per_rank)));
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
  HADAL_RETURN_IF_ERROR(member_.begin(CommOp::kBroadcast, data.size(), root));
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
  HADAL_RETURN_IF_ERROR(member_.begin(CommOp::kSend, data.size(), to));
  Mailbox& box = segment_->mailbox(rank_, to);
  const size_t piece_bytes = static_cast<size_t>(segment_->sizes().piece_bytes);
  size_t at = 0;
  do {  // an empty message is one empty piece
    const uint32_t number = box.written.load(std::memory_order_relaxed);
    HADAL_RETURN_IF_ERROR(member_.wait_for(to, [&] { return number - box.read.load(std::memory_order_acquire) < 2; }));
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
  HADAL_RETURN_IF_ERROR(member_.begin(CommOp::kRecv, data.size(), from));
  Mailbox& box = segment_->mailbox(from, rank_);
  const size_t piece_bytes = static_cast<size_t>(segment_->sizes().piece_bytes);
  size_t at = 0;
  do {
    const uint32_t number = box.read.load(std::memory_order_relaxed);
    HADAL_RETURN_IF_ERROR(
        member_.wait_for(from, [&] { return box.written.load(std::memory_order_acquire) != number; }));
    if (box.num_bytes[number % 2] != data.size()) {
      return member_.break_off(
          {ErrorCode::kInternal,
           fmt::format("rank {} sends {} bytes, rank {} expects {} (operation {})", member_.shown(from),
                       box.num_bytes[number % 2], member_.shown(rank_), data.size(), member_.num_calls())});
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
