#include "cli/rank_worker.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/resource_limits.h"
#include "base/topology.h"
#include "cli/open_model.h"
#include "cli/rank_config.h"
#include "comm/rendezvous.h"
#include "engine/ranked_model.h"
#include "eval/content_hash.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;

class RankWorker {
 public:
  explicit RankWorker(const RankWorkerOptions& options)
      : options_(options), generation_(options.identity.generation), nonce_(make_rank_token()) {}

  Expected<bool> run() {
    HADAL_RETURN_IF_ERROR(meet());
    if (Status loaded = load(); !loaded) {
      // So that rank 0 need not wait for the reason.
      RankReport report = own_rank_report(0);
      report.nonce = nonce_;
      report.error = loaded.error().message;
      static_cast<void>(store_->set(ready_key(generation_, options_.identity.rank), write_rank_report(report)));
      return forward_error(std::move(loaded));
    }
    for (;; ++generation_) {
      HADAL_ASSIGN_OR_RETURN(const Outcome outcome, take_part());
      if (outcome != Outcome::kOver) return outcome == Outcome::kStopped;
    }
  }

 private:
  enum class Outcome { kOver, kStopped, kGone };

  Status meet();
  Status load();
  Expected<Outcome> take_part();

  const RankWorkerOptions options_;
  int generation_;
  const std::string nonce_;
  std::unique_ptr<KeyValueStore> store_;
  int num_threads_ = 0;
  RankOptions ranks_;                    // as rank 0 says
  std::optional<RangeObserver> ranges_;  // of a calibration
  std::unique_ptr<ForwardModel> model_;
  RankState state_;
};

Status RankWorker::meet() {
  const RankIdentity& identity = options_.identity;
  HADAL_ASSIGN_OR_RETURN(store_, connect_rendezvous({.address = identity.master_addr,
                                                     .port = identity.master_port,
                                                     .token = identity.token,
                                                     .facts = {{"version", options_.version},
                                                               {"world size", std::to_string(identity.world_size)}}},
                                                    identity.rank, options_.join_timeout));
  return {};
}

Status RankWorker::load() {
  const RankIdentity& identity = options_.identity;
  HADAL_ASSIGN_OR_RETURN(const std::string config, store_->get(kConfigKey, options_.join_timeout));
  HADAL_ASSIGN_OR_RETURN(ServeOptions serve, parse_rank_config(config));
  if (!options_.model.empty()) serve.model = options_.model;
  if (options_.num_threads > 0) serve.num_threads = options_.num_threads;
  serve.ranks.place = identity;
  ranks_ = serve.ranks;
  set_log_format(serve.log_format == "json" ? LogFormat::kJson : LogFormat::kHuman);
  HADAL_ASSIGN_OR_RETURN(const std::string wanted_hash, store_->get(kModelKey, options_.join_timeout));
  HADAL_ASSIGN_OR_RETURN(const std::string own_hash, model_hash(serve.model));
  if (own_hash != wanted_hash) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the model differs: {} here has fingerprint {}, rank 0's has {}: copy the same folder to every "
                      "node, or give --model",
                      serve.model, own_hash, wanted_hash);
  }
  const std::vector<int> cores = share_of_cores(identity.local_rank, identity.local_world_size);
  bind_to_cores(cores);
  if (serve.num_threads == 0) serve.num_threads = static_cast<int>(cores.size());
  HADAL_ASSIGN_OR_RETURN(OpenedModel opened, open_model_part(serve));
  HADAL_ASSIGN_OR_RETURN(const std::string wanted_numerics, store_->get(kNumericsKey, options_.join_timeout));
  if (const std::string own = numerics_hash(opened.numerics); own != wanted_numerics) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the numerics differ: \"{}\" here, \"{}\" on rank 0: copy the same INC configuration and "
                      "measurement files to every node",
                      own, wanted_numerics);
  }
  num_threads_ = opened.num_threads;
  if (!serve.calibrated_world_sizes.empty()) {
    HADAL_ASSIGN_OR_RETURN(ranges_, RangeObserver::create(opened.config, serve.calibrated_world_sizes));
  }
  HADAL_ASSIGN_OR_RETURN(model_, load_opened_model(serve, opened, {}, {}, ranges_ ? &*ranges_ : nullptr));
  state_.model = model_.get();
  return {};
}

Expected<RankWorker::Outcome> RankWorker::take_part() {
  const RankIdentity& identity = options_.identity;
  RankReport report = own_rank_report(num_threads_);
  report.nonce = nonce_;
  if (!store_->set(ready_key(generation_, identity.rank), write_rank_report(report))) return Outcome::kGone;
  const auto go = store_->get(go_key(generation_, identity.rank), options_.join_timeout);
  if (!go) {
    log_error("rank 0 is gone: {}", go.error().message);
    return Outcome::kGone;
  }
  if (*go != nonce_) return Outcome::kOver;
  RankIdentity place = identity;
  place.generation = generation_;
  auto groups = join_rank_groups(*store_, place,
                                 {.join_timeout = ranks_.group_timeout(),
                                  .data_timeout = ranks_.rank_timeout,
                                  .control_timeout = ranks_.rank_timeout});
  if (!groups) {
    log_warning("generation {} did not come together: {}", generation_, groups.error().message);
    return Outcome::kOver;
  }
  const AssembledRanks ranks{.groups = std::move(*groups), .generation = static_cast<uint32_t>(generation_)};
  const auto stopped = run_rank(state_, ranks, {.timeout = ranks_.rank_timeout});
  if (stopped) return Outcome::kStopped;
  log_warning("generation {} is over: {}", generation_, stopped.error().message);
  return Outcome::kOver;
}

}  // namespace

Expected<bool> run_rank_worker(const RankWorkerOptions& options) { return RankWorker(options).run(); }

RankReport own_rank_report(int num_threads) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  return {.nonce = "",
          .error = "",
          .pid = getpid(),
          .host = host,
          .num_threads = num_threads,
          .memory_bytes = resident_anonymous_bytes()};
}

std::vector<int> share_of_cores(int local_rank, int local_world_size) {
  const CpuTopology topology = detect_topology();
  const int num_cores = static_cast<int>(topology.cores.size());
  const int total = std::max(1, std::min(default_num_threads(topology), num_cores));
  const int begin = total >= local_world_size ? total * local_rank / local_world_size : local_rank % total;
  const int end = total >= local_world_size ? total * (local_rank + 1) / local_world_size : begin + 1;
  return {topology.cores.begin() + begin, topology.cores.begin() + end};
}

void bind_to_cores(std::span<const int> cores) {
  cpu_set_t share;
  CPU_ZERO(&share);
  for (const int core : cores) CPU_SET(core, &share);
  if (sched_setaffinity(0, sizeof share, &share) != 0) log_warning("cores cannot be bound here");
}

}  // namespace hadal
