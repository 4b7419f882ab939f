#include "comm/hierarchical_communicator.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "comm/operation_checks.h"
#include "tensor/bf16.h"

namespace hadal {
namespace {

// Up to here rank 0 of each node exchanges the whole; above, every rank its share, at the same time.
constexpr int64_t kLeaderBytes = 16 << 10;

void widen(const void* values, int64_t count, DType dtype, float* out) {
  if (dtype == DType::kF32) {
    if (count > 0) std::memcpy(out, values, count * sizeof(float));
    return;
  }
  const bf16_t* narrow = static_cast<const bf16_t*>(values);
  for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_f32(narrow[i]);
}

void narrow(const float* values, int64_t count, DType dtype, void* out) {
  if (dtype == DType::kF32) {
    if (count > 0) std::memcpy(out, values, count * sizeof(float));
    return;
  }
  bf16_t* rounded = static_cast<bf16_t*>(out);
  for (int64_t i = 0; i < count; ++i) rounded[i] = f32_to_bf16(values[i]);
}

class HierarchicalCommunicator final : public Communicator {
 public:
  HierarchicalCommunicator(HierarchicalParts parts, std::chrono::milliseconds timeout)
      : parts_(std::move(parts)),
        locals_(parts_.local->world_size()),
        nodes_(parts_.across->world_size()),
        local_rank_(parts_.local->rank()),
        node_(parts_.across->rank()) {
    set_timeout(timeout);
  }

  int rank() const override { return node_ * locals_ + local_rank_; }
  int world_size() const override { return nodes_ * locals_; }
  // Between nodes a little longer: a rank that is missing on one's own node is named by those who wait for it there.
  void set_timeout(std::chrono::milliseconds timeout) override {
    parts_.local->set_timeout(timeout);
    parts_.across->set_timeout(timeout + kElsewhereGrace / 2);
    parts_.all->set_timeout(timeout + kElsewhereGrace / 2);
  }
  void give_up(const std::string& why) override {
    parts_.local->give_up(why);
    parts_.across->give_up(why);
    parts_.all->give_up(why);
  }

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
  Status check_rank(int rank) const;
  Status sum_by_leaders(float* values, int64_t count);
  Status sum_by_shares(float* values, int64_t count);
  // A failure of one part is one of all: the peers behind the others learn why.
  Status local(Status status);
  template <typename Operation>
  Status between_nodes(const Operation& operation);

  const HierarchicalParts parts_;
  const int locals_, nodes_;  // ranks of a node; nodes
  const int local_rank_, node_;
  std::vector<float> wide_, sums_;  // FP32 of an operation
  std::vector<std::byte> rows_, sent_;
};

Status HierarchicalCommunicator::check_rank(int rank) const {
  if (rank >= 0 && rank < world_size()) return {};
  return make_error(ErrorCode::kInvalidArgument, "rank {} of {}", rank, world_size());
}

Status HierarchicalCommunicator::local(Status status) {
  if (!status) give_up(status.error().message);
  return status;
}

template <typename Operation>
Status HierarchicalCommunicator::between_nodes(const Operation& operation) {
  parts_.local->set_waits_elsewhere(true);
  Status status = operation();
  if (!status) give_up(status.error().message);
  parts_.local->set_waits_elsewhere(false);
  return status;
}

Status HierarchicalCommunicator::barrier() {
  HADAL_RETURN_IF_ERROR(local(parts_.local->barrier()));
  if (local_rank_ == 0) HADAL_RETURN_IF_ERROR(between_nodes([&] { return parts_.across->barrier(); }));
  return local(parts_.local->barrier());
}

Status HierarchicalCommunicator::sum_by_leaders(float* values, int64_t count) {
  HADAL_RETURN_IF_ERROR(local(parts_.local->reduce(values, count, DType::kF32, 0)));
  if (local_rank_ == 0) {
    HADAL_RETURN_IF_ERROR(between_nodes([&] { return parts_.across->all_reduce(values, count, DType::kF32); }));
  }
  return local(parts_.local->broadcast(std::as_writable_bytes(std::span(values, static_cast<size_t>(count))), 0));
}

// values: [locals_, count / locals_].
Status HierarchicalCommunicator::sum_by_shares(float* values, int64_t count) {
  const int64_t share = count / locals_;
  float* mine = values + local_rank_ * share;
  sums_.resize(std::max<size_t>(sums_.size(), share));
  HADAL_RETURN_IF_ERROR(local(parts_.local->reduce_scatter(values, sums_.data(), share, DType::kF32)));
  HADAL_RETURN_IF_ERROR(between_nodes([&] { return parts_.across->all_reduce(sums_.data(), share, DType::kF32); }));
  std::memcpy(mine, sums_.data(), share * sizeof(float));
  return local(parts_.local->all_gather(std::as_bytes(std::span(mine, static_cast<size_t>(share))),
                                        reinterpret_cast<std::byte*>(values)));
}

Status HierarchicalCommunicator::all_reduce(void* data, int64_t count, DType dtype) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count));
  if (count * static_cast<int64_t>(sizeof(float)) <= kLeaderBytes) {
    if (dtype == DType::kF32) return sum_by_leaders(static_cast<float*>(data), count);
    wide_.resize(std::max<size_t>(wide_.size(), count));
    widen(data, count, dtype, wide_.data());
    HADAL_RETURN_IF_ERROR(sum_by_leaders(wide_.data(), count));
  } else {
    const int64_t padded = (count + locals_ - 1) / locals_ * locals_;
    if (dtype == DType::kF32 && padded == count) return sum_by_shares(static_cast<float*>(data), count);
    wide_.resize(std::max<size_t>(wide_.size(), padded));
    widen(data, count, dtype, wide_.data());
    std::fill(wide_.begin() + count, wide_.begin() + padded, 0.0F);
    HADAL_RETURN_IF_ERROR(sum_by_shares(wide_.data(), padded));
  }
  narrow(wide_.data(), count, dtype, data);
  return {};
}

Status HierarchicalCommunicator::reduce(void* data, int64_t count, DType dtype, int root) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count));
  HADAL_RETURN_IF_ERROR(check_rank(root));
  wide_.resize(std::max<size_t>(wide_.size(), count));
  widen(data, count, dtype, wide_.data());
  const int owner = root % locals_;
  HADAL_RETURN_IF_ERROR(local(parts_.local->reduce(wide_.data(), count, DType::kF32, owner)));
  if (local_rank_ != owner) return {};
  HADAL_RETURN_IF_ERROR(
      between_nodes([&] { return parts_.across->reduce(wide_.data(), count, DType::kF32, root / locals_); }));
  if (rank() == root) narrow(wide_.data(), count, dtype, data);
  return {};
}

// Inside the node, local rank j gets the node's sums of rows j, locals_ + j, ...: of every rank that it exchanges with.
Status HierarchicalCommunicator::reduce_scatter(const void* data, void* mine, int64_t count_per_rank, DType dtype) {
  HADAL_RETURN_IF_ERROR(check_sum(dtype, count_per_rank));
  const int64_t count = count_per_rank;
  const std::byte* rows = static_cast<const std::byte*>(data);
  const int64_t row_bytes = count * static_cast<int64_t>(dtype_size_bytes(dtype));
  wide_.resize(std::max<size_t>(wide_.size(), count * world_size()));
  for (int j = 0; j < locals_; ++j) {
    for (int n = 0; n < nodes_; ++n) {
      widen(rows + (n * locals_ + j) * row_bytes, count, dtype, wide_.data() + (j * nodes_ + n) * count);
    }
  }
  sums_.resize(std::max<size_t>(sums_.size(), count * (nodes_ + 1)));
  HADAL_RETURN_IF_ERROR(local(parts_.local->reduce_scatter(wide_.data(), sums_.data(), count * nodes_, DType::kF32)));
  float* own = sums_.data() + count * nodes_;
  HADAL_RETURN_IF_ERROR(
      between_nodes([&] { return parts_.across->reduce_scatter(sums_.data(), own, count, DType::kF32); }));
  narrow(own, count, dtype, mine);
  return {};
}

Status HierarchicalCommunicator::all_gather(std::span<const std::byte> mine, std::byte* all) {
  const int64_t row = static_cast<int64_t>(mine.size());
  sent_.resize(row * nodes_);
  HADAL_RETURN_IF_ERROR(between_nodes([&] { return parts_.across->all_gather(mine, sent_.data()); }));
  rows_.resize(row * world_size());
  HADAL_RETURN_IF_ERROR(local(parts_.local->all_gather(sent_, rows_.data())));
  for (int j = 0; row > 0 && j < locals_; ++j) {
    for (int n = 0; n < nodes_; ++n) {
      std::memcpy(all + (n * locals_ + j) * row, rows_.data() + (j * nodes_ + n) * row, row);
    }
  }
  return {};
}

// Inside the node, local rank j gets what goes to local rank j of any node; then it goes to that node.
Status HierarchicalCommunicator::all_to_all(const std::byte* data, std::byte* result, int64_t bytes_per_rank) {
  const int64_t row = bytes_per_rank;
  if (row < 0) return make_error(ErrorCode::kInvalidArgument, "all_to_all of {} bytes", row);
  rows_.resize(row * world_size());
  sent_.resize(row * world_size());
  for (int j = 0; row > 0 && j < locals_; ++j) {
    for (int n = 0; n < nodes_; ++n) {
      std::memcpy(sent_.data() + (j * nodes_ + n) * row, data + (n * locals_ + j) * row, row);
    }
  }
  HADAL_RETURN_IF_ERROR(local(parts_.local->all_to_all(sent_.data(), rows_.data(), row * nodes_)));
  for (int i = 0; row > 0 && i < locals_; ++i) {  // rows_: [from local i, to node n]
    for (int n = 0; n < nodes_; ++n) {
      std::memcpy(sent_.data() + (n * locals_ + i) * row, rows_.data() + (i * nodes_ + n) * row, row);
    }
  }
  return between_nodes([&] { return parts_.across->all_to_all(sent_.data(), result, row * locals_); });
}

Status HierarchicalCommunicator::broadcast(std::span<std::byte> data, int root) {
  HADAL_RETURN_IF_ERROR(check_rank(root));
  const int owner = root % locals_;
  if (local_rank_ == owner) {
    HADAL_RETURN_IF_ERROR(between_nodes([&] { return parts_.across->broadcast(data, root / locals_); }));
  }
  return local(parts_.local->broadcast(data, owner));
}

Status HierarchicalCommunicator::send(std::span<const std::byte> data, int to) {
  HADAL_RETURN_IF_ERROR(check_rank(to));
  if (to / locals_ == node_) return local(parts_.local->send(data, to % locals_));
  return between_nodes([&] { return parts_.all->send(data, to); });
}

Status HierarchicalCommunicator::recv(std::span<std::byte> data, int from) {
  HADAL_RETURN_IF_ERROR(check_rank(from));
  if (from / locals_ == node_) return local(parts_.local->recv(data, from % locals_));
  return between_nodes([&] { return parts_.all->recv(data, from); });
}

}  // namespace

bool can_be_hierarchical(int local_world_size) { return std::has_single_bit(static_cast<unsigned>(local_world_size)); }

std::unique_ptr<Communicator> make_hierarchical(HierarchicalParts parts, std::chrono::milliseconds timeout) {
  HADAL_CHECK(can_be_hierarchical(parts.local->world_size()), "{} ranks on a node", parts.local->world_size());
  return std::make_unique<HierarchicalCommunicator>(std::move(parts), timeout);
}

}  // namespace hadal
