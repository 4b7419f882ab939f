#include "comm/gloo_communicator.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "comm/operation_checks.h"
#include "comm/tree_sum.h"

namespace hadal {
namespace {

constexpr int64_t kOneShotBytes = 512 << 10;  // up to here all ranks send everything to all: one exchange, not two

class GlooCommunicator final : public Communicator {
 public:
  GlooCommunicator(std::shared_ptr<GlooMesh> mesh, std::vector<int> ranks, std::chrono::milliseconds timeout)
      : mesh_(std::move(mesh)),
        ranks_(std::move(ranks)),
        rank_(static_cast<int>(std::find(ranks_.begin(), ranks_.end(), mesh_->rank()) - ranks_.begin())),
        world_(static_cast<int>(ranks_.size())),
        chunk_bytes_(mesh_->chunk_bytes()),
        timeout_(timeout) {
    HADAL_CHECK(rank_ < world_, "rank {} makes a group without itself", mesh_->rank());
  }

  int rank() const override { return rank_; }
  int world_size() const override { return world_; }
  void set_timeout(std::chrono::milliseconds timeout) override { timeout_ = timeout; }
  void give_up(const std::string& why) override;

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
  // One message of at most chunk_bytes_.
  Status post(int peer, std::span<const std::byte> data);
  Expected<std::span<const std::byte>> take(int peer, int64_t num_bytes);
  Status fail(ErrorCode code, const std::string& why);
  // `to(peer)` goes to the peer while `from(peer)` is filled: both are rows of any length, cut into chunks.
  template <typename To, typename From>
  Status exchange(int64_t num_bytes, const To& to, const From& from);

  const std::shared_ptr<GlooMesh> mesh_;
  const std::vector<int> ranks_;  // of the mesh
  const int rank_;
  const int world_;
  const int64_t chunk_bytes_;
  std::chrono::milliseconds timeout_;
  std::vector<std::byte> gathered_;  // [world, bytes of an operation]
  MessageHead head_;
  Status failure_;
};

Status GlooCommunicator::begin(CommOp op, uint64_t num_bytes, int root) {
  if (!failure_) return failure_;
  if (root < 0 || root >= world_) {
    return make_error(ErrorCode::kInvalidArgument, "{}: root {} of {} ranks", comm_op_name(op), root, world_);
  }
  head_ = {static_cast<uint32_t>(op), static_cast<uint32_t>(root), num_bytes, head_.call + 1};
  return {};
}

Status GlooCommunicator::fail(ErrorCode code, const std::string& why) {
  failure_ = make_error(code, "rank {} in {} of {} bytes (operation {}): {}", mesh_->rank(),
                        comm_op_name(static_cast<CommOp>(head_.op)), head_.num_bytes, head_.call, why);
  mesh_->give_up(failure_.error().message);
  return failure_;
}

void GlooCommunicator::give_up(const std::string& why) {
  if (failure_) failure_ = make_error(ErrorCode::kUnavailable, "{}", why);
  mesh_->give_up(why);
}

Status GlooCommunicator::post(int peer, std::span<const std::byte> data) {
  if (Status sent = mesh_->send(ranks_[peer], head_, data); !sent) return fail(sent.error().code, sent.error().message);
  return {};
}

Expected<std::span<const std::byte>> GlooCommunicator::take(int peer, int64_t num_bytes) {
  MessageHead theirs;
  const auto chunk = mesh_->receive(ranks_[peer], &theirs, timeout_);
  if (!chunk) return forward_error(fail(chunk.error().code, chunk.error().message));
  if (theirs.op != head_.op || theirs.root != head_.root || theirs.num_bytes != head_.num_bytes) {
    return forward_error(
        fail(ErrorCode::kInternal, fmt::format("the ranks disagree: rank {} is in {} of {} bytes", ranks_[peer],
                                               comm_op_name(static_cast<CommOp>(theirs.op)), theirs.num_bytes)));
  }
  return std::span<const std::byte>(*chunk, num_bytes);
}

template <typename To, typename From>
Status GlooCommunicator::exchange(int64_t num_bytes, const To& to, const From& from) {
  int64_t at = 0;
  do {  // nothing to exchange is one empty message: everybody waits for everybody
    const int64_t length = std::min(chunk_bytes_, num_bytes - at);
    for (int i = 1; i < world_; ++i) {
      const int peer = (rank_ + i) % world_;
      HADAL_RETURN_IF_ERROR(post(peer, {to(peer) + at, static_cast<size_t>(length)}));
    }
    for (int i = 1; i < world_; ++i) {
      const int peer = (rank_ + world_ - i) % world_;
      HADAL_ASSIGN_OR_RETURN(const auto data, take(peer, length));
      if (length > 0) std::memcpy(from(peer) + at, data.data(), length);
    }
    at += length;
  } while (at < num_bytes);
  return {};
}

Status GlooCommunicator::barrier() {
  HADAL_RETURN_IF_ERROR(begin(CommOp::kBarrier, 0));
  std::byte nothing{};
  const auto nowhere = [&](int) { return &nothing; };
  return exchange(0, nowhere, nowhere);
}

Status GlooCommunicator::all_reduce(void* data, int64_t count, DType dtype) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count));
  const int64_t size = static_cast<int64_t>(dtype_size_bytes(dtype));
  const int64_t num_bytes = count * size;
  HADAL_RETURN_IF_ERROR(begin(CommOp::kAllReduce, num_bytes));
  std::byte* bytes = static_cast<std::byte*>(data);
  std::vector<const void*> inputs(world_);
  if (num_bytes <= kOneShotBytes || world_ == 2) {
    gathered_.resize(std::max<size_t>(gathered_.size(), num_bytes * world_));
    for (int peer = 0; peer < world_; ++peer) inputs[peer] = gathered_.data() + peer * num_bytes;
    inputs[rank_] = bytes;
    HADAL_RETURN_IF_ERROR(exchange(
        num_bytes, [&](int) { return bytes; }, [&](int peer) { return gathered_.data() + peer * num_bytes; }));
    tree_sum(inputs, 0, count, dtype, bytes);
    return {};
  }
  // Equal shares, the last ones empty or short: each rank sums its own, then all send theirs to all.
  const int64_t share = (count + world_ - 1) / world_;
  std::vector<std::byte> padded(share * world_ * size);
  std::memcpy(padded.data(), bytes, num_bytes);
  const MessageHead outer = head_;
  HADAL_RETURN_IF_ERROR(reduce_scatter(padded.data(), padded.data() + rank_ * share * size, share, dtype));
  HADAL_RETURN_IF_ERROR(
      all_gather({padded.data() + rank_ * share * size, static_cast<size_t>(share * size)}, padded.data()));
  head_ = {outer.op, outer.root, outer.num_bytes, head_.call};
  std::memcpy(bytes, padded.data(), num_bytes);
  return {};
}

Status GlooCommunicator::reduce(void* data, int64_t count, DType dtype, int root) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count));
  const int64_t num_bytes = count * static_cast<int64_t>(dtype_size_bytes(dtype));
  HADAL_RETURN_IF_ERROR(begin(CommOp::kReduce, num_bytes, root));
  std::byte* bytes = static_cast<std::byte*>(data);
  gathered_.resize(std::max<size_t>(gathered_.size(), num_bytes * world_));
  int64_t at = 0;
  do {
    const int64_t length = std::min(chunk_bytes_, num_bytes - at);
    if (rank_ != root) HADAL_RETURN_IF_ERROR(post(root, {bytes + at, static_cast<size_t>(length)}));
    for (int peer = 0; rank_ == root && peer < world_; ++peer) {
      if (peer == root) continue;
      HADAL_ASSIGN_OR_RETURN(const auto piece, take(peer, length));
      if (length > 0) std::memcpy(gathered_.data() + peer * num_bytes + at, piece.data(), length);
    }
    at += length;
  } while (at < num_bytes);
  if (rank_ != root) return {};
  std::vector<const void*> inputs(world_);
  for (int peer = 0; peer < world_; ++peer) inputs[peer] = gathered_.data() + peer * num_bytes;
  if (num_bytes > 0) std::memcpy(gathered_.data() + root * num_bytes, bytes, num_bytes);
  tree_sum(inputs, 0, count, dtype, bytes);
  return {};
}

Status GlooCommunicator::reduce_scatter(const void* data, void* mine, int64_t count_per_rank, DType dtype) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count_per_rank));
  const int64_t row_bytes = count_per_rank * static_cast<int64_t>(dtype_size_bytes(dtype));
  HADAL_RETURN_IF_ERROR(begin(CommOp::kReduceScatter, row_bytes * world_));
  const std::byte* rows = static_cast<const std::byte*>(data);
  gathered_.resize(std::max<size_t>(gathered_.size(), row_bytes * world_));
  HADAL_RETURN_IF_ERROR(exchange(
      row_bytes, [&](int peer) { return rows + peer * row_bytes; },
      [&](int peer) { return gathered_.data() + peer * row_bytes; }));
  std::vector<const void*> inputs(world_);
  for (int peer = 0; peer < world_; ++peer) inputs[peer] = gathered_.data() + peer * row_bytes;
  if (row_bytes > 0) std::memcpy(gathered_.data() + rank_ * row_bytes, rows + rank_ * row_bytes, row_bytes);
  tree_sum(inputs, 0, count_per_rank, dtype, mine);
  return {};
}

Status GlooCommunicator::all_gather(std::span<const std::byte> mine, std::byte* all) {
  const int64_t row_bytes = static_cast<int64_t>(mine.size());
  HADAL_RETURN_IF_ERROR(begin(CommOp::kAllGather, row_bytes));
  HADAL_RETURN_IF_ERROR(exchange(
      row_bytes, [&](int) { return mine.data(); }, [&](int peer) { return all + peer * row_bytes; }));
  std::byte* row = all + rank_ * row_bytes;
  if (row != mine.data() && row_bytes > 0) std::memcpy(row, mine.data(), row_bytes);
  return {};
}

Status GlooCommunicator::all_to_all(const std::byte* data, std::byte* result, int64_t bytes_per_rank) {
  if (bytes_per_rank < 0) return make_error(ErrorCode::kInvalidArgument, "all_to_all of {} bytes", bytes_per_rank);
  HADAL_RETURN_IF_ERROR(begin(CommOp::kAllToAll, static_cast<uint64_t>(bytes_per_rank)));
  HADAL_RETURN_IF_ERROR(exchange(
      bytes_per_rank, [&](int peer) { return data + peer * bytes_per_rank; },
      [&](int peer) { return result + peer * bytes_per_rank; }));
  const int64_t own = rank_ * bytes_per_rank;
  if (bytes_per_rank > 0) std::memcpy(result + own, data + own, bytes_per_rank);
  return {};
}

Status GlooCommunicator::broadcast(std::span<std::byte> data, int root) {
  HADAL_RETURN_IF_ERROR(begin(CommOp::kBroadcast, data.size(), root));
  const int64_t total = static_cast<int64_t>(data.size());
  int64_t at = 0;
  do {
    const int64_t length = std::min(chunk_bytes_, total - at);
    for (int peer = 0; rank_ == root && peer < world_; ++peer) {
      if (peer != root) HADAL_RETURN_IF_ERROR(post(peer, {data.data() + at, static_cast<size_t>(length)}));
    }
    if (rank_ != root) {
      HADAL_ASSIGN_OR_RETURN(const auto piece, take(root, length));
      if (length > 0) std::memcpy(data.data() + at, piece.data(), length);
    }
    at += length;
  } while (at < total);
  return {};
}

Status GlooCommunicator::send(std::span<const std::byte> data, int to) {
  HADAL_RETURN_IF_ERROR(check_peer(rank_, to, world_));
  HADAL_RETURN_IF_ERROR(begin(CommOp::kSend, data.size()));
  const int64_t total = static_cast<int64_t>(data.size());
  int64_t at = 0;
  do {
    const int64_t length = std::min(chunk_bytes_, total - at);
    HADAL_RETURN_IF_ERROR(post(to, {data.data() + at, static_cast<size_t>(length)}));
    at += length;
  } while (at < total);
  return {};
}

Status GlooCommunicator::recv(std::span<std::byte> data, int from) {
  HADAL_RETURN_IF_ERROR(check_peer(rank_, from, world_));
  HADAL_RETURN_IF_ERROR(begin(CommOp::kSend, data.size()));  // what the other side is in
  const int64_t total = static_cast<int64_t>(data.size());
  int64_t at = 0;
  do {
    const int64_t length = std::min(chunk_bytes_, total - at);
    HADAL_ASSIGN_OR_RETURN(const auto piece, take(from, length));
    if (length > 0) std::memcpy(data.data() + at, piece.data(), length);
    at += length;
  } while (at < total);
  return {};
}

}  // namespace

std::unique_ptr<Communicator> make_gloo_group(std::shared_ptr<GlooMesh> mesh, std::vector<int> ranks,
                                              std::chrono::milliseconds timeout) {
  return std::make_unique<GlooCommunicator>(std::move(mesh), std::move(ranks), timeout);
}

Expected<std::unique_ptr<Communicator>> join_gloo_group(KeyValueStore& store, const GlooGroupOptions& options) {
  HADAL_ASSIGN_OR_RETURN(std::shared_ptr<GlooMesh> mesh, GlooMesh::connect(store, options));
  std::vector<int> ranks(options.world_size);
  std::iota(ranks.begin(), ranks.end(), 0);
  return make_gloo_group(std::move(mesh), std::move(ranks), options.timeout);
}

}  // namespace hadal
