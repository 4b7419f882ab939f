// One rank's place among those of its machine: joining, waiting for others, and noticing who does not come any more.
// What they exchange is the communicator's. Internal to comm/.
#pragma once

#include <sched.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "comm/local_communicator.h"
#include "comm/peer_watch.h"
#include "comm/shared_segment.h"

namespace hadal {

// What a rank is in, for comparison with the others and for messages.
struct LocalCall {
  CommOp op = CommOp::kBarrier;
  int root = 0;
  uint64_t num_bytes = 0;
};
std::string describe_call(uint32_t op, uint32_t root, uint64_t num_bytes);

// Single-owner. Leaves the group when it is destroyed.
class LocalMember {
 public:
  LocalMember(std::unique_ptr<SharedSegment> segment, const LocalGroupOptions& options);
  ~LocalMember();
  LocalMember(const LocalMember&) = delete;
  LocalMember& operator=(const LocalMember&) = delete;

  SharedSegment& segment() { return *segment_; }
  int rank() const { return rank_; }
  int world_size() const { return world_; }
  const LocalCall& call() const { return call_; }
  uint64_t num_calls() const { return num_calls_; }
  int shown(int rank) const { return first_rank_ + rank; }  // as messages count ranks
  void set_timeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }

  // Waits for all. Errors: kInvalidArgument (the rank is taken), kUnavailable (who is missing).
  Status join();
  // Before an operation. Errors: that of break_off(), from then on; kInvalidArgument (no such root).
  Status begin(CommOp op, uint64_t num_bytes, int root = 0);
  // Until ready(), which reads what `peer` publishes before it ring()s: busily at first, then asleep. Errors:
  // kUnavailable: a rank gave up, left, died, or does not come within the timeout.
  template <typename Ready>
  Status wait_for(int peer, const Ready& ready);
  // Tells the others. The first error stays, and is returned.
  Status break_off(Error error);

 private:
  using Clock = std::chrono::steady_clock;

  bool has_core_each() const;
  bool has_left(int peer);
  Status look_at(int peer, bool has_left, Clock::time_point since);
  static void pause_cpu();

  static constexpr std::chrono::milliseconds kNap{20};  // between looks at peers: bounds how late a death is seen

  const std::unique_ptr<SharedSegment> segment_;
  const int rank_;
  const int world_;
  const int first_rank_;
  std::chrono::milliseconds timeout_;
  const int num_spins_;
  const std::chrono::milliseconds yielding_;
  PeerWatch watch_;
  bool joined_ = false;
  LocalCall call_;
  uint64_t num_calls_ = 0;
  Status failure_;
};

inline void LocalMember::pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

template <typename Ready>
Status LocalMember::wait_for(int peer, const Ready& ready) {
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
    const bool left = has_left(peer);
    if (ready()) return {};
    HADAL_RETURN_IF_ERROR(look_at(peer, left, since));
  }
  return {};
}

}  // namespace hadal
