// Rank 0's side of bringing ranks together, at the start and again whenever a group broke: the rendezvous, generations,
// who is started again and how often. What the other ranks are, and do, is known to rank_peers.h.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/rank_keys.h"
#include "cli/rank_options.h"
#include "cli/rank_peers.h"
#include "comm/rendezvous.h"
#include "engine/ranked_model.h"

namespace hadal {

struct RankHeadOptions {
  RankOptions ranks;   // place: rank 0's identity, with the port and the token
  std::string config;  // write_rank_config()
  std::string model_hash, numerics_hash;
  std::string version;
  RankPeersOptions peers;
};

// Thread-safe where RankAssembly says so; assemble() on one thread at a time.
class RankHead final : public RankAssembly {
 public:
  // Listens and starts what is to be started; assemble() waits for it. Errors: kIo, those of the launcher.
  static Expected<std::shared_ptr<RankHead>> start(RankHeadOptions options);
  ~RankHead() override;

  Expected<AssembledRanks> assemble() override;
  std::string state() const override;
  void cancel() override;
  void disband() override;
  void on_loss(std::function<void(const std::string&)> lost) override;

  // Lines for people about the last assembly: a head, then one per rank.
  std::vector<std::string> table(const RankReport& own) const;
  // Why assemble() failed for good, with the last lines of the rank's log; empty: it has not.
  std::string fatal_reason() const;

 private:
  using Clock = std::chrono::steady_clock;

  explicit RankHead(RankHeadOptions options);
  Status listen();
  void lose(const std::string& what);

  Status begin_generation();
  Status wait_for_all();
  Status start_ended();
  Status take_reports(std::vector<int>& missing);
  Status replace_silent(const std::vector<int>& missing, Clock::time_point since);
  Expected<RankGroups> join();
  Status count_replaced();
  Status count_restart(int rank, const std::string& how);
  Error fail(int rank, const std::string& how, const std::string& then);
  Status check_cancelled() const;

  RankHeadOptions options_;
  std::unique_ptr<RendezvousServer> server_;
  std::unique_ptr<KeyValueStore> store_;
  int generation_ = -1;
  bool assembled_ = false;  // ever
  std::deque<Clock::time_point> restarts_;
  bool counted_ = false;         // a restart in this assembly
  std::map<int, int> num_ends_;  // by node: end_key numbers used

  mutable std::mutex mutex_;
  // Under mutex_.
  bool is_together_ = false;
  bool cancelled_ = false;
  std::string state_, fatal_, transport_;

  std::mutex lost_mutex_;  // before mutex_; held while it is called
  std::function<void(const std::string&)> lost_;

  RankPeers peers_;  // last: it calls lose() until it is gone
};

}  // namespace hadal
