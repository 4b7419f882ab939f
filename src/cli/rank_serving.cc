#include "cli/rank_serving.h"

#include "base/topology.h"
#include "cli/command.h"
#include "cli/program_build.h"
#include "cli/rank_agent.h"
#include "cli/rank_config.h"
#include "cli/rank_worker.h"
#include "eval/content_hash.h"

namespace hadal {
namespace {

// Tells when an assembly failed for good.
class WatchedAssembly final : public RankAssembly {
 public:
  WatchedAssembly(std::shared_ptr<RankHead> head, std::function<void(const std::string&)> fatal)
      : head_(std::move(head)), fatal_(std::move(fatal)) {}

  Expected<AssembledRanks> assemble() override {
    if (failure_) return tl::unexpected<Error>(*failure_);
    auto ranks = head_->assemble();
    if (!ranks && ranks.error().code != ErrorCode::kCancelled && was_together_) {
      failure_ = ranks.error();
      fatal_(failure_->message);
    }
    was_together_ = was_together_ || ranks.has_value();
    return ranks;
  }
  std::string state() const override { return head_->state(); }
  void cancel() override { head_->cancel(); }
  void disband() override { head_->disband(); }
  void on_loss(std::function<void(const std::string&)> lost) override { head_->on_loss(std::move(lost)); }

 private:
  const std::shared_ptr<RankHead> head_;
  const std::function<void(const std::string&)> fatal_;
  bool was_together_ = false;
  std::optional<Error> failure_;  // for good: a request that still waits must not wait for ranks once more
};

// Nodes for the ranks, where the backend chooses them.
Status launch_nodes(RankOptions& options) {
  const LaunchRequest request{.world_size = options.world_size(),
                              .nnodes = options.nnodes > 1 ? options.nnodes : 0,
                              .master_addr = options.master_addr,
                              .command = {"hadal", "worker"}};
  HADAL_ASSIGN_OR_RETURN(options.nodes, LaunchedNodes::prepare(options.backend, request));
  if (options.nodes == nullptr) return {};
  options.nnodes = static_cast<int>(options.nodes->layout().ranks_per_node.size());
  options.master_addr = options.nodes->layout().master_addr;
  return {};
}

}  // namespace

Expected<std::optional<RankContract>> other_ranks_contract(const RankOptions& options) {
  HADAL_ASSIGN_OR_RETURN(const auto told, read_rank_contract(current_environment()));
  if (told) return told->identity.rank == 0 ? std::nullopt : told;
  if (options.node_rank == 0) return std::nullopt;
  HADAL_ASSIGN_OR_RETURN(RankContract contract, node_contract(options));
  return contract;
}

Expected<int> run_other_ranks(const ServeOptions& options, const RankContract& contract) {
  HADAL_ASSIGN_OR_RETURN(const std::string version, program_build());
  const RankWorkerOptions worker{.identity = contract.identity,
                                 .version = version,
                                 .model = options.model,
                                 .num_threads = options.num_threads,
                                 .join_timeout = options.ranks.join_timeout};
  if (contract.is_agent) return run_rank_agent(worker);
  end_after_rank_zero();
  HADAL_ASSIGN_OR_RETURN(const bool stopped, run_rank_worker(worker));
  return stopped ? kExitOk : kExitRankZeroGone;
}

Expected<ServeOptions> place_rank_zero(const ServeOptions& options) {
  ServeOptions placed = options;
  if (!options.ranks.is_ranked()) return placed;
  HADAL_ASSIGN_OR_RETURN(const auto told, read_rank_contract(current_environment()));
  if (told) {
    placed.ranks.place = told->identity;
  } else {
    HADAL_RETURN_IF_ERROR(launch_nodes(placed.ranks));
    HADAL_ASSIGN_OR_RETURN(const RankContract contract, node_contract(placed.ranks));
    placed.ranks.place = contract.identity;
  }
  RankIdentity& place = placed.ranks.place;
  if (place.world_size != options.ranks.world_size()) {
    return make_error(ErrorCode::kInvalidArgument, "HADAL_WORLD_SIZE={} with --tensor-parallel-size {}",
                      place.world_size, options.ranks.tensor_parallel_size);
  }
  if (place.token.empty()) place.token = make_rank_token();
  if (placed.num_threads == 0 && place.local_world_size > 1) {
    placed.num_threads = static_cast<int>(share_of_cores(place.local_rank, place.local_world_size).size());
  }
  return placed;
}

Expected<RankServing> start_ranks(const ServeOptions& options, const OpenedModel& opened) {
  if (!options.ranks.is_ranked()) return RankServing(nullptr, {});
  ServeOptions shared = options;
  shared.num_blocks = opened.memory.num_blocks;
  shared.max_model_len = opened.max_model_len;
  shared.num_threads = 0;
  if (options.num_threads > 0) shared.num_threads = options.num_threads;
  RankHeadOptions head;
  head.ranks = options.ranks;
  head.config = write_rank_config(shared, isa_name(opened.numerics.kernels->isa));
  HADAL_ASSIGN_OR_RETURN(head.model_hash, model_hash(options.model));
  head.numerics_hash = numerics_hash(opened.numerics);
  HADAL_ASSIGN_OR_RETURN(head.version, program_build());
  head.peers.launcher = options.ranks.nodes;
  head.peers.join_timeout = options.ranks.join_timeout;
  HADAL_ASSIGN_OR_RETURN(const auto told, read_rank_contract(current_environment()));
  head.peers.starts_local_ranks = !told || told->is_agent;
  const RankIdentity& place = options.ranks.place;
  head.peers.ranks_per_node.assign(static_cast<size_t>(place.nnodes), place.world_size / place.nnodes);
  HADAL_ASSIGN_OR_RETURN(auto started, RankHead::start(std::move(head)));
  // Only now: what the head starts, now or later, must find all cores to take its own share of.
  bind_to_cores(share_of_cores(place.local_rank, place.local_world_size));
  return RankServing(std::move(started), options.ranks.rank_timeout);
}

Expected<std::unique_ptr<ForwardModel>> RankServing::join(std::unique_ptr<ForwardModel> own,
                                                          std::function<void(const std::string&)> fatal) {
  if (head_ == nullptr) return own;
  auto assembly = std::make_shared<WatchedAssembly>(head_, std::move(fatal));
  return make_ranked_model(std::move(own), std::move(assembly), {.timeout = rank_timeout_});
}

std::vector<std::string> RankServing::table(int num_threads) const {
  if (head_ == nullptr) return {};
  return head_->table(own_rank_report(num_threads));
}

}  // namespace hadal
