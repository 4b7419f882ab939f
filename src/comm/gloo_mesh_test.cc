#include "comm/gloo_mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>
#include <thread>
#include <vector>

#include "comm/comm_test_support.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// Of a rank that tells the others that it gave up.
class GivingUpStore final : public KeyValueStore {
 public:
  explicit GivingUpStore(KeyValueStore& store) : store_(store) {}
  Status set(const std::string& key, const std::string& value) override {
    return store_.set(key, key.starts_with("greeting/") ? "" : value);
  }
  Expected<std::string> get(const std::string& key, milliseconds timeout) override { return store_.get(key, timeout); }

 private:
  KeyValueStore& store_;
};

// However long ranks would wait for each other. The one that gave up by its own message goes on here, and learns that
// the other one has given up in turn.
TEST(GlooMesh, ARankThatCouldNotConnectEndsTheJoiningOfAll) {
  MemoryStore store;
  GivingUpStore gives_up(store);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::string> whys(2);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 2; ++rank) {
    ranks.emplace_back([&, rank] {
      KeyValueStore& mine = rank == 1 ? static_cast<KeyValueStore&>(gives_up) : store;
      const auto mesh = GlooMesh::connect(mine, {.rank = rank,
                                                 .world_size = 2,
                                                 .address = "127.0.0.1",
                                                 .timeout = milliseconds(600'000),
                                                 .join_timeout = milliseconds(600'000)});
      whys[rank] = mesh ? "" : mesh.error().message;
    });
  }
  for (auto& rank : ranks) rank.join();
  EXPECT_THAT(whys[0], HasSubstr("rank 1 could not connect to all others"));
  EXPECT_FALSE(whys[1].empty());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::minutes(5));
}

// Shows its address, and then does not read the others' until they have given up.
class DeafStore final : public KeyValueStore {
 public:
  DeafStore(KeyValueStore& store, std::latch& others) : store_(store), others_(others) {}
  Status set(const std::string& key, const std::string& value) override { return store_.set(key, value); }
  Expected<std::string> get(const std::string& key, milliseconds timeout) override {
    if (!is_address(key)) return store_.get(key, timeout);
    others_.wait();
    return make_error(ErrorCode::kUnavailable, "deaf");
  }

 private:
  static bool is_address(const std::string& key) { return key == "0" || key == "1"; }

  KeyValueStore& store_;
  std::latch& others_;
};

TEST(GlooMesh, ARankThatNeverConnectsIsWaitedForAsLongAsForJoining) {
  for (const int deaf : {0, 1}) {
    MemoryStore store;
    std::latch others(1);
    DeafStore no_answers(store, others);
    const auto connect = [](KeyValueStore& with, int rank) {
      return GlooMesh::connect(with, {.rank = rank,
                                      .world_size = 2,
                                      .address = "127.0.0.1",
                                      .timeout = milliseconds(600'000),
                                      .join_timeout = milliseconds(1'000)});
    };
    const auto begin = std::chrono::steady_clock::now();
    std::thread silent([&] { EXPECT_FALSE(connect(no_answers, deaf)); });
    EXPECT_FALSE(connect(store, 1 - deaf));
    others.count_down();
    silent.join();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::minutes(5));
  }
}

}  // namespace
}  // namespace hadal
