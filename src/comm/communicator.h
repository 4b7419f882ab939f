// Collectives between the ranks of one group. Every rank calls the same operations in the same order with the same
// sizes; a rank that does not is an error that names both operations. Sums are FP32, joined as a binary tree over the
// ranks in ascending order and rounded once (design.md section 4 a): they depend neither on message size nor on
// transport, and a power-of-two group that splits a larger tree's leaves evenly gives the larger tree's bits.
//
// Single-owner: one thread per communicator. Every call blocks until it is done, fails, or has waited `timeout`.
// After an error the communicator is broken: all later calls return it, and peers learn of it at once.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"
#include "tensor/dtype.h"

namespace hadal {

enum class CommOp : uint32_t {
  kBarrier,
  kAllReduce,
  kReduce,
  kReduceScatter,
  kAllGather,
  kAllToAll,
  kBroadcast,
  kSend,
  kRecv,
};
const char* comm_op_name(CommOp op);

// Errors of all operations: kUnavailable for a peer that died, gave up or did not come in time, naming this rank, the
// one it waited for, the operation and its number; kInvalidArgument for sizes and ranks out of range; kInternal when
// the ranks disagree about the operation.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  virtual void set_timeout(std::chrono::milliseconds timeout) = 0;
  // Breaks the communicator; peers that wait, or will, get an error that tells them why.
  virtual void give_up([[maybe_unused]] const std::string& why) {}

  virtual Status barrier() = 0;
  // data: f32 or bf16 [count], summed in place. Cost (shared memory): count bytes written, world_size times as many
  // read up to 32 KiB; above that twice as many, each rank summing its share.
  virtual Status all_reduce(void* data, int64_t count, DType dtype) = 0;
  // As all_reduce, but only `root` gets the sum; `data` of the others is untouched.
  virtual Status reduce(void* data, int64_t count, DType dtype, int root) = 0;
  // data: [world_size, count_per_rank]; mine: [count_per_rank], row `rank` of the sum.
  virtual Status reduce_scatter(const void* data, void* mine, int64_t count_per_rank, DType dtype) = 0;
  // all: [world_size, mine.size()] bytes. `mine` may be its row `rank`.
  virtual Status all_gather(std::span<const std::byte> mine, std::byte* all) = 0;
  // data and result: [world_size, bytes_per_rank]; row r of data goes to rank r. They must not overlap.
  virtual Status all_to_all(const std::byte* data, std::byte* result, int64_t bytes_per_rank) = 0;
  virtual Status broadcast(std::span<std::byte> data, int root) = 0;
  // Matched in order per pair of ranks; sizes must agree.
  virtual Status send(std::span<const std::byte> data, int to) = 0;
  virtual Status recv(std::span<std::byte> data, int from) = 0;
};

}  // namespace hadal
