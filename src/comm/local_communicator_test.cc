#include "comm/local_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace hadal {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::span<std::byte> bytes_of(auto& values) { return std::as_writable_bytes(std::span(values)); }

constexpr milliseconds kLong{60'000};  // never reached when all goes well

class Group {
 public:
  explicit Group(int world_size, int64_t slot_bytes = 1 << 20) : sizes_{world_size, slot_bytes, 4096} {
    fd_ = SharedSegment::create(sizes_).value();
  }
  ~Group() { close(fd_); }

  std::unique_ptr<Communicator> join(int rank, milliseconds timeout = kLong) const {
    auto joined = join_local_group(fd_, {.rank = rank, .sizes = sizes_, .timeout = timeout});
    EXPECT_TRUE(joined) << joined.error().message;
    return std::move(*joined);
  }

  // Every rank on a thread of its own.
  void run(const std::function<void(Communicator&)>& body, milliseconds timeout = kLong) const {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < sizes_.world_size; ++rank) {
      threads.emplace_back([&, rank] { body(*join(rank, timeout)); });
    }
    for (auto& thread : threads) thread.join();
  }

  int fd() const { return fd_; }
  const SegmentSizes& sizes() const { return sizes_; }

 private:
  SegmentSizes sizes_;
  int fd_ = -1;
};

TEST(LocalCommunicator, NamesADisagreement) {
  const Group group(2);
  group.run([](Communicator& comm) {
    std::vector<float> data(8);
    const Status status =
        comm.rank() == 0 ? comm.all_reduce(data.data(), 8, DType::kF32) : comm.broadcast(bytes_of(data), 0);
    if (status) return;  // one of the two may not have to look
    EXPECT_THAT(status.error().message, AnyOf(HasSubstr("the ranks disagree at operation 1"), HasSubstr("gave up")));
    EXPECT_EQ(comm.barrier().error().message, status.error().message) << "broken for good";
  });
}

TEST(LocalCommunicator, RefusesWhatCannotBe) {
  const Group group(1);
  EXPECT_FALSE(join_local_group(group.fd(), {.rank = 1, .sizes = group.sizes()}));
  EXPECT_EQ(join_local_group(group.fd(), {.rank = 0, .sizes = {2, 1 << 20, 4096}}).error().code, ErrorCode::kCorrupt);
  const auto comm = group.join(0);
  EXPECT_THAT(join_local_group(group.fd(), {.rank = 0, .sizes = group.sizes()}).error().message,
              HasSubstr("has joined already"));
  float value = 0;
  EXPECT_EQ(comm->all_reduce(&value, 1, DType::kI8).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(comm->reduce(&value, 1, DType::kF32, 1).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(comm->send({}, 0).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(comm->barrier());
}

TEST(LocalCommunicator, NamesRanksThatNeverStart) {
  const Group group(3);
  const auto joined = join_local_group(group.fd(), {.rank = 1, .sizes = group.sizes(), .timeout = milliseconds(60)});
  ASSERT_FALSE(joined);
  EXPECT_THAT(joined.error().message, HasSubstr("rank 1 waited 60 ms for rank(s) 0, 2 of 3"));
}

// Rank 1 is another process, whose end is `how`; returns what rank 0 is told and how long it took.
Status lose_peer(int how, milliseconds timeout, milliseconds* waited) {
  const Group group(2);
  const pid_t child = fork();
  if (child == 0) {
    auto comm = group.join(1);
    comm->barrier();
    if (how == 0) {
      comm.reset();
      _exit(0);
    }
    kill(getpid(), how);
    for (;;) pause();
  }
  const auto comm = group.join(0, timeout);
  EXPECT_TRUE(comm->barrier());
  const auto begin = std::chrono::steady_clock::now();
  float value = 1;
  const Status status = comm->all_reduce(&value, 1, DType::kF32);
  *waited = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return status;
}

TEST(LocalCommunicator, ADeadPeerIsAnErrorAtOnce) {
  milliseconds waited{0};
  const Status killed = lose_peer(SIGKILL, kLong, &waited);  // a zombie until waitpid
  ASSERT_FALSE(killed);
  EXPECT_THAT(killed.error().message,
              AllOf(HasSubstr("rank 0 in all_reduce of 4 bytes (operation 2): rank 1"), HasSubstr("has died")));
  EXPECT_LT(waited, kLong);
  const Status left = lose_peer(0, kLong, &waited);
  ASSERT_FALSE(left);
  EXPECT_THAT(left.error().message, HasSubstr("rank 1 has left the group"));
}

TEST(LocalCommunicator, AFrozenPeerIsAnErrorAfterTheTimeout) {
  milliseconds waited{0};
  const Status status = lose_peer(SIGSTOP, milliseconds(150), &waited);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("which lives but does not come"));
  EXPECT_GE(waited, milliseconds(150));
}

TEST(LocalCommunicator, OneGivesUpAndAllLearnOfIt) {
  const Group group(3);
  group.run([](Communicator& comm) {
    ASSERT_TRUE(comm.barrier());
    if (comm.rank() == 2) return;  // leaves
    comm.set_timeout(comm.rank() == 0 ? milliseconds(50) : kLong);
    const Status status = comm.rank() == 0 ? comm.recv({}, 1) : comm.send({}, 0);
    if (comm.rank() == 1) {
      ASSERT_TRUE(status);
      float value = 0;
      EXPECT_FALSE(comm.recv(std::as_writable_bytes(std::span(&value, 1)), 0));  // rank 0 never sends
    }
  });
}

}  // namespace
}  // namespace hadal
