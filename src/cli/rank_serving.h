// What `hadal serve` and `hadal calibrate` do about ranks: which one it is, starting the others, and joining them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/open_model.h"
#include "cli/rank_contract.h"
#include "cli/rank_head.h"
#include "cli/serve_options.h"

namespace hadal {

// The contract of a process that was started as rank 0 is and does not have rank 0; nothing when it has. Errors:
// kInvalidArgument.
Expected<std::optional<RankContract>> other_ranks_contract(const RankOptions& options);
// Runs it to its end. Returns an exit code.
Expected<int> run_other_ranks(const ServeOptions& options, const RankContract& contract);

// The options with rank 0's place filled in and its threads chosen. Errors: kInvalidArgument.
Expected<ServeOptions> place_rank_zero(const ServeOptions& options);

// The other ranks, while rank 0 loads; nothing with one rank.
class RankServing {
 public:
  explicit RankServing(std::shared_ptr<RankHead> head, std::chrono::milliseconds rank_timeout)
      : head_(std::move(head)), rank_timeout_(rank_timeout) {}

  // Waits for all ranks. `fatal` is called, from any thread, when lost ranks do not come back. Errors: as
  // make_ranked_model().
  Expected<std::unique_ptr<ForwardModel>> join(std::unique_ptr<ForwardModel> own,
                                               std::function<void(const std::string&)> fatal);
  // Lines for people; none with one rank.
  std::vector<std::string> table(int num_threads) const;

 private:
  std::shared_ptr<RankHead> head_;  // null: one rank
  std::chrono::milliseconds rank_timeout_;
};

// Requires options of place_rank_zero(). Binds the calling thread, and those it starts afterwards, to rank 0's cores.
// Errors: as RankHead::start().
Expected<RankServing> start_ranks(const ServeOptions& options, const OpenedModel& opened);

}  // namespace hadal
