// A model on several ranks behind the interface of one. Rank 0 holds a RankedModel: each call is broadcast through the
// control group and then run on its own part; the other ranks run run_rank(). Nothing is decided elsewhere.
//
// A lost rank is noticed by whichever comes first: a sum that fails, a ping that nobody answers (every second without a
// step), or the launcher (RankAssembly). Then calls fail with kUnavailable until restore() has brought the ranks
// together again. Weights stay where they are.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "comm/rank_group.h"
#include "engine/step_wire.h"
#include "model/forward_model.h"

namespace hadal {

struct AssembledRanks {
  RankGroups groups;
  uint32_t generation = 0;
};

// Brings the ranks of a group together, again whenever one was lost. Implemented where processes are started.
class RankAssembly {
 public:
  virtual ~RankAssembly() = default;
  // Waits until all ranks have loaded and joined, starting lost ones again: as long as loading takes. Errors:
  // kUnavailable: for good, naming rank, node and how it ended; kCancelled after cancel(). On one thread at a time.
  virtual Expected<AssembledRanks> assemble() = 0;
  // What it waits for: "rank 1 (node 0) ended: signal 9 (Killed); restart 1 of 3". Thread-safe.
  virtual std::string state() const = 0;
  // From any thread: an assemble() that runs, or comes, ends soon.
  virtual void cancel() = 0;
  // The ranks are no group any more: until the next assemble() nothing that ends is a loss. When it returns, no call of
  // `lost` runs. Thread-safe.
  virtual void disband() = 0;
  // `lost` is called from any thread, with what happened, when a rank that had joined ends. Before assemble(); empty:
  // nobody is called any more.
  virtual void on_loss(std::function<void(const std::string&)> lost) = 0;
};

struct RankedModelOptions {
  std::chrono::milliseconds heartbeat{1'000};  // without a step
  std::chrono::milliseconds timeout{10'000};   // for an answer to anything but the setup
  std::chrono::milliseconds setup_timeout{600'000};
};

// `own`: the part of rank 0. Assembles the ranks once. The result owns one thread. Errors: as assemble().
Expected<std::unique_ptr<ForwardModel>> make_ranked_model(std::unique_ptr<ForwardModel> own,
                                                          std::shared_ptr<RankAssembly> assembly,
                                                          const RankedModelOptions& options = {});

// What a rank other than 0 keeps from group to group: its part of the model and what was set up in it.
struct RankState {
  ForwardModel* model = nullptr;
  int64_t kv[3] = {};  // arguments of allocate_kv(), once it was called
  int64_t max_tokens_between = 0;
};

// Runs what rank 0 sends. True: rank 0 says stop. Errors: kUnavailable when the group broke, naming why; the rank may
// then join the next one.
Expected<bool> run_rank(RankState& state, const AssembledRanks& ranks, const RankedModelOptions& options = {});

}  // namespace hadal
