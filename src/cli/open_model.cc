#include "cli/open_model.h"

#include <utility>

#include "base/resource_limits.h"
#include "bench/tuning_cache.h"
#include "kernels/row_math.h"
#include "model/inspect.h"
#include "model/memory_needs.h"
#include "model/rank_layout.h"
#include "server/server.h"

namespace hadal {
namespace {

MemoryRequest memory_request(const ServeOptions& options, const ModelInspection& model, const OpenedModel& opened) {
  const ModelConfig& config = opened.config;
  MemoryRequest request;
  const uint64_t available = available_memory_bytes().value_or(0);
  // The ranks of this machine share it, and take it at the same time.
  const uint64_t share = available / static_cast<uint64_t>(options.ranks.place.local_world_size);
  request.limit_bytes = static_cast<uint64_t>(static_cast<double>(share) * options.memory_utilization);
  request.weight_bytes = model.weight_memory_bytes;
  WorkspaceLimits limits = {.max_tokens = options.max_num_batched_tokens,
                            .max_positions = opened.max_model_len,
                            .num_threads = opened.num_threads,
                            .kv_dtype = opened.numerics.kv_dtype,
                            .quantises_inputs = !opened.numerics.plan.layers.empty(),
                            .slice = options.ranks.slice()};
  request.workspace_bytes = workspace_bytes(config, *opened.numerics.kernels, limits) +
                            static_cast<uint64_t>(options.max_num_seqs * config.vocab_size) * sizeof(float);
  if (options.max_itl_ms > 0) {  // decode steps between slices have a workspace of their own
    limits.max_tokens = options.max_num_seqs;
    limits.absorbed_only = true;
    request.workspace_bytes += workspace_bytes(config, *opened.numerics.kernels, limits);
  }
  request.kv_bytes_per_token = kv_bytes_per_token(config, opened.numerics.kv_dtype);
  request.block_size = options.block_size;
  request.num_blocks = options.num_blocks;
  request.max_model_len = opened.max_model_len;
  request.max_num_seqs = options.max_num_seqs;
  return request;
}

Expected<int64_t> choose_max_model_len(const ServeOptions& options, const ModelConfig& config) {
  if (options.max_model_len > config.max_position_embeddings) {
    return make_error(ErrorCode::kInvalidArgument, "--max-model-len {}: the model's max_position_embeddings is {}",
                      options.max_model_len, config.max_position_embeddings);
  }
  return options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings;
}

// The first problem as an error that counts the others.
Status first_problem(const std::vector<Error>& problems, const std::string& model) {
  if (problems.empty()) return {};
  return make_error(problems[0].code, "{}{}", problems[0].message,
                    problems.size() == 1 ? ""
                                         : fmt::format(" (and {} more problems; `hadal inspect {}` lists them)",
                                                       problems.size() - 1, model));
}

// `with_text`: also what a server needs of the folder beside the weights.
Expected<OpenedModel> open_parts(const ServeOptions& options, bool with_text) {
  OpenedModel opened;
  HADAL_ASSIGN_OR_RETURN(const KernelTable* kernels, choose_kernels(options));
  HADAL_RETURN_IF_ERROR(check_is_model_folder(options.model));
  ModelInspection model = inspect_model(options.model, *kernels);
  std::vector<Error> problems = std::move(model.problems);
  if (with_text) {
    opened.folder =
        open_serving_text_collecting(options.model, options.chat_template, model.hf, model.config, problems);
  }
  HADAL_RETURN_IF_ERROR(first_problem(problems, options.model));
  opened.config = *model.config;
  HADAL_ASSIGN_OR_RETURN(opened.numerics, choose_numerics(options, opened.config));
  const RankSlice slice = options.ranks.slice();
  HADAL_RETURN_IF_ERROR(check_rank_slice(opened.config, slice));
  if (!opened.numerics.plan.layers.empty() || slice.world_size > 1) {  // else inspect_model() has counted it
    HADAL_ASSIGN_OR_RETURN(model.weight_memory_bytes,
                           weight_memory_bytes(options.model, *opened.numerics.kernels, opened.numerics.plan, slice));
  }
  HADAL_ASSIGN_OR_RETURN(opened.max_model_len, choose_max_model_len(options, opened.config));
  opened.num_threads = apply_tuning(*opened.numerics.kernels, options.num_threads);
  opened.memory_request = memory_request(options, model, opened);
  return opened;
}

}  // namespace

Expected<OpenedModel> open_model(const ServeOptions& options) {
  HADAL_ASSIGN_OR_RETURN(OpenedModel opened, open_parts(options, true));
  auto memory = plan_memory(opened.memory_request);
  if (!memory) return forward_error(std::move(memory), options.model);
  opened.memory = *memory;
  return opened;
}

Expected<OpenedModel> open_model_part(const ServeOptions& options) { return open_parts(options, false); }

EngineOptions engine_options(const ServeOptions& options, const OpenedModel& opened) {
  EngineOptions engine;
  engine.max_model_len = opened.max_model_len;
  engine.max_num_seqs = options.max_num_seqs;
  engine.max_num_batched_tokens = options.max_num_batched_tokens;
  engine.block_size = options.block_size;
  engine.num_blocks = opened.memory.num_blocks;
  engine.max_queued_requests = options.max_queued_requests;
  engine.max_itl_ms = options.max_itl_ms;
  engine.priority_preemption = options.has_priorities();
  engine.enable_prefix_caching = options.enable_prefix_caching;
  engine.prefix_cache_generated = options.prefix_cache_generated;
  engine.seed = options.seed;
  engine.num_valid_tokens = opened.folder.tokenizer->vocab_size();
  engine.row_math = &row_math_for(opened.numerics.kernels->isa);
  return engine;
}

ModelFacts model_facts(const ServeOptions& options, const OpenedModel& opened, const SamplingDefaults& defaults) {
  ModelFacts facts;
  facts.root = options.model;
  facts.max_model_len = opened.max_model_len;
  facts.eos_token_ids = opened.folder.eos_token_ids;
  facts.defaults = defaults;
  facts.cache_dtype = options.kv_cache_dtype;
  facts.block_size = options.block_size;
  facts.num_blocks = opened.memory.num_blocks;
  facts.enable_prefix_caching = options.enable_prefix_caching;
  return facts;
}

Expected<std::unique_ptr<ForwardModel>> load_opened_model(const ServeOptions& options, const OpenedModel& opened,
                                                          LoadProgress progress, ForwardObserver observer,
                                                          RangeObserver* ranges) {
  return load_deepseek_v3(options.model, {.kernels = opened.numerics.kernels,
                                          .kv_dtype = opened.numerics.kv_dtype,
                                          .num_threads = opened.num_threads,
                                          .pin_threads = true,
                                          .progress = std::move(progress),
                                          .observer = std::move(observer),
                                          .numerics = opened.numerics.plan,
                                          .ranges = ranges,
                                          .slice = options.ranks.slice()});
}

}  // namespace hadal
