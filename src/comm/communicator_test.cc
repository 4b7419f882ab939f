// Every operation of every transport: the same bits as the definition.
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include "comm/comm_test_support.h"
#include "comm/gloo_communicator.h"
#include "comm/hierarchical_communicator.h"
#include "comm/local_communicator.h"
#include "comm/tree_sum.h"
#include "tensor/bf16.h"

namespace hadal {
namespace {

constexpr std::chrono::milliseconds kTimeout{60'000};  // never reached

using Body = std::function<void(Communicator&)>;

void run_ranks(int world, const std::function<Expected<std::unique_ptr<Communicator>>(int)>& join, const Body& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank] {
      auto joined = join(rank);
      ASSERT_TRUE(joined) << joined.error().message;
      body(**joined);
      ASSERT_TRUE((*joined)->barrier());  // nobody leaves before the others are done
    });
  }
  for (auto& thread : threads) thread.join();
}

void run_local(int world, int64_t chunk_bytes, const Body& body) {
  const SegmentSizes sizes{world, chunk_bytes, 4096};
  const int fd = SharedSegment::create(sizes).value();
  run_ranks(
      world, [&](int rank) { return join_local_group(fd, {.rank = rank, .sizes = sizes}); }, body);
  close(fd);
}

void run_gloo(int world, int64_t chunk_bytes, const Body& body) {
  MemoryStore store;
  const auto join = [&](int rank) {
    return join_gloo_group(store, {.rank = rank,
                                   .world_size = world,
                                   .address = "127.0.0.1",
                                   .prefix = "test/",
                                   .spin = std::chrono::microseconds(world == 2 ? 50 : 0),
                                   .chunk_bytes = chunk_bytes});
  };
  run_ranks(world, join, body);
}

// Two nodes.
void run_hierarchical(int world, int64_t chunk_bytes, const Body& body) {
  MemoryStore store;
  const int locals = world / 2;
  const SegmentSizes sizes{locals, 1 << 20, 4096};
  const int fds[] = {SharedSegment::create(sizes).value(), SharedSegment::create(sizes).value()};
  const auto join = [&](int rank) -> Expected<std::unique_ptr<Communicator>> {
    HADAL_ASSIGN_OR_RETURN(
        std::shared_ptr<GlooMesh> mesh,
        GlooMesh::connect(store,
                          {.rank = rank, .world_size = world, .address = "127.0.0.1", .chunk_bytes = chunk_bytes}));
    HADAL_ASSIGN_OR_RETURN(auto local, join_local_group(fds[rank / locals], {.rank = rank % locals, .sizes = sizes}));
    std::vector<int> everybody(world);
    std::iota(everybody.begin(), everybody.end(), 0);
    return make_hierarchical({.local = std::move(local),
                              .across = make_gloo_group(mesh, {rank % locals, locals + rank % locals}, kTimeout),
                              .all = make_gloo_group(mesh, everybody, kTimeout)},
                             kTimeout);
  };
  run_ranks(world, join, body);
  for (const int fd : fds) close(fd);
}

struct Transport {
  const char* name;
  void (*run)(int world, int64_t chunk_bytes, const Body& body);
  int world;
  int64_t chunk_bytes;
};

float value_of(int rank, int64_t i) { return static_cast<float>((rank + 1) * 1000003 % 977) / 7 + 0.1F * (i % 113); }

std::vector<float> row_of(int rank, int64_t count) {
  std::vector<float> row(count);
  for (int64_t i = 0; i < count; ++i) row[i] = value_of(rank, i);
  return row;
}

std::vector<float> expected_sum(int world, int64_t count) {
  std::vector<std::vector<float>> rows;
  std::vector<const void*> inputs;
  for (int rank = 0; rank < world; ++rank) rows.push_back(row_of(rank, count));
  for (const auto& row : rows) inputs.push_back(row.data());
  std::vector<float> sum(count);
  tree_sum(inputs, 0, count, DType::kF32, sum.data());
  return sum;
}

std::span<std::byte> bytes_of(auto& values) { return std::as_writable_bytes(std::span(values)); }

std::string name_of(const ::testing::TestParamInfo<Transport>& info) {
  return fmt::format("{}_{}_ranks_{}", info.param.name, info.param.world, info.param.chunk_bytes);
}

class Communicators : public ::testing::TestWithParam<Transport> {};
INSTANTIATE_TEST_SUITE_P(
    Transports, Communicators,
    ::testing::Values(Transport{"local", run_local, 1, 1 << 20}, Transport{"local", run_local, 2, 2048},
                      Transport{"local", run_local, 2, 1 << 20}, Transport{"local", run_local, 3, 2048},
                      Transport{"local", run_local, 4, 1 << 20}, Transport{"local", run_local, 8, 1 << 20},
                      Transport{"gloo", run_gloo, 1, 1 << 17}, Transport{"gloo", run_gloo, 2, 2048},
                      Transport{"gloo", run_gloo, 2, 1 << 17}, Transport{"gloo", run_gloo, 3, 1 << 17},
                      Transport{"gloo", run_gloo, 4, 4096}, Transport{"hierarchical", run_hierarchical, 2, 1 << 17},
                      Transport{"hierarchical", run_hierarchical, 4, 1 << 17},
                      Transport{"hierarchical", run_hierarchical, 8, 4096}),
    name_of);

// Sizes below and above the one-shot limit and a slot, and empty: always the bits of the tree.
TEST_P(Communicators, EveryOperationInARow) {
  const int world = GetParam().world;
  GetParam().run(world, GetParam().chunk_bytes, [&](Communicator& comm) {
    const int rank = comm.rank();
    EXPECT_EQ(comm.world_size(), world);
    for (const int64_t count : {0, 1, 7, 500, 1024, 7168, 20011, 150001}) {
      SCOPED_TRACE(count);
      auto data = row_of(rank, count);
      ASSERT_TRUE(comm.all_reduce(data.data(), count, DType::kF32));
      EXPECT_EQ(data, expected_sum(world, count));

      const int root = static_cast<int>(count) % world;
      data = row_of(rank, count);
      ASSERT_TRUE(comm.reduce(data.data(), count, DType::kF32, root));
      EXPECT_EQ(data, rank == root ? expected_sum(world, count) : row_of(rank, count));

      const auto rows = row_of(rank, count * world);
      std::vector<float> mine(count);
      ASSERT_TRUE(comm.reduce_scatter(rows.data(), mine.data(), count, DType::kF32));
      const auto whole = expected_sum(world, count * world);
      EXPECT_TRUE(std::equal(mine.begin(), mine.end(), whole.begin() + rank * count));

      const auto own = row_of(rank, count);
      std::vector<float> all(count * world);
      ASSERT_TRUE(comm.all_gather(std::as_bytes(std::span<const float>(own)), bytes_of(all).data()));
      std::vector<float> exchanged(count * world);
      ASSERT_TRUE(comm.all_to_all(bytes_of(all).data(), bytes_of(exchanged).data(), count * 4));
      for (int peer = 0; peer < world; ++peer) {
        const auto row = row_of(peer, count);
        EXPECT_TRUE(std::equal(row.begin(), row.end(), all.begin() + peer * count));
        const auto to_me = row_of(rank, count);  // all ranks gathered the same: row `rank` of each
        EXPECT_TRUE(std::equal(to_me.begin(), to_me.end(), exchanged.begin() + peer * count));
      }

      auto told = row_of(rank, count);
      ASSERT_TRUE(comm.broadcast(bytes_of(told), root));
      EXPECT_EQ(told, row_of(root, count));
      ASSERT_TRUE(comm.barrier());

      if (world == 1) continue;
      const auto out = row_of(rank, count);
      std::vector<float> in(count);
      const int next = (rank + 1) % world, last = (rank + world - 1) % world;
      const auto receive = [&] { return comm.recv(bytes_of(in), last); };
      const auto give = [&] { return comm.send(std::as_bytes(std::span(out)), next); };
      if (rank % 2 == 0) {
        ASSERT_TRUE(give());
        ASSERT_TRUE(receive());
      } else {
        ASSERT_TRUE(receive());
        ASSERT_TRUE(give());
      }
      EXPECT_EQ(in, row_of(last, count));
    }
  });
}

class FourRanks : public ::testing::TestWithParam<Transport> {};
INSTANTIATE_TEST_SUITE_P(Transports, FourRanks,
                         ::testing::Values(Transport{"local", run_local, 4, 1 << 20},
                                           Transport{"gloo", run_gloo, 4, 1 << 17},
                                           Transport{"hierarchical", run_hierarchical, 4, 1 << 17}),
                         name_of);

TEST_P(FourRanks, SumBf16WithOneRounding) {
  GetParam().run(4, GetParam().chunk_bytes, [&](Communicator& comm) {
    std::vector<bf16_t> data;
    std::vector<float> wide;
    for (const float value : row_of(comm.rank(), 30000)) data.push_back(f32_to_bf16(value));
    ASSERT_TRUE(comm.all_reduce(data.data(), 30000, DType::kBF16));
    for (const bf16_t value : data) wide.push_back(bf16_to_f32(value));
    std::vector<std::vector<float>> rows(4);
    std::vector<const void*> inputs;
    for (int rank = 0; rank < 4; ++rank) {
      for (const float value : row_of(rank, 30000)) rows[rank].push_back(round_to_bf16(value));
      inputs.push_back(rows[rank].data());
    }
    std::vector<float> sum(30000);
    tree_sum(inputs, 0, 30000, DType::kF32, sum.data());
    for (float& value : sum) value = round_to_bf16(value);
    EXPECT_EQ(wide, sum);
  });
}

}  // namespace
}  // namespace hadal
