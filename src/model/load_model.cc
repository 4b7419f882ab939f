#include "model/load_model.h"

#include <utility>
#include <vector>

#include "base/topology.h"
#include "formats/checkpoint.h"
#include "formats/hf_config.h"
#include "model/config.h"
#include "model/deepseek_v3.h"
#include "model/weight_plan.h"

namespace hadal {

Expected<std::unique_ptr<ForwardModel>> load_deepseek_v3(const std::filesystem::path& dir, const LoadOptions& options) {
  HADAL_ASSIGN_OR_RETURN(const HfConfig hf, load_hf_config(dir));
  auto config = make_model_config(hf);
  if (!config) return forward_error(std::move(config), (dir / "config.json").string());
  HADAL_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir));
  const std::vector<PlannedTensor> plan = weight_plan(*config);
  std::vector<Error> problems;
  check_checkpoint(*config, plan, checkpoint, CheckpointState::kComplete, problems);
  if (!problems.empty()) {
    if (problems.size() > 1) {
      problems[0].message += fmt::format(" (and {} more problems; `hadal inspect` lists them)", problems.size() - 1);
    }
    return tl::unexpected<Error>(std::move(problems[0]).in(dir.string()));
  }
  HADAL_RETURN_IF_ERROR(check_rank_slice(*config, options.slice));
  const KernelTable& kernels = options.kernels != nullptr ? *options.kernels : kernels_for(available_isas().back());
  const CpuTopology topology = detect_topology();
  ThreadPoolOptions pool_options;
  pool_options.num_threads = options.num_threads > 0 ? options.num_threads : default_num_threads(topology);
  if (options.pin_threads) pool_options.pin_cpus = topology.cores;
  NodeShares shares = make_node_shares(topology, pool_options.pin_cpus, pool_options.num_threads);
  auto pool = std::make_unique<ThreadPool>(std::move(pool_options));
  HADAL_ASSIGN_OR_RETURN(ModelWeights weights, load_weights(*config, plan, checkpoint, kernels.act_dtype, shares,
                                                            options.progress, options.numerics, options.slice));
  return std::make_unique<DeepseekV3Model>(std::move(*config), std::move(weights), kernels,
                                           options.kv_dtype.value_or(kernels.act_dtype), std::move(pool),
                                           std::move(shares), options.observer, options.ranges, options.slice);
}

}  // namespace hadal
