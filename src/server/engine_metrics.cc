#include "server/engine_metrics.h"

#include "server/server.h"

namespace hadal {
namespace {

const std::vector<double> kIterationTokenBounds = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const std::vector<double> kFirstTokenBounds = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                               1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const std::vector<double> kTokenGapBounds = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                             .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const std::vector<double> kRequestTimeBounds = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                                30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const std::vector<double> kStepTimeMsBounds = {1,  2,   3,   5,   8,   10,  20,   30,   50,
                                               80, 100, 200, 300, 500, 800, 1000, 2000, 3000};
const std::vector<double> kSampleCountBounds = {1, 2, 5, 10, 20};

}  // namespace

// Registers with the labels that all of them carry.
struct EngineMetrics::Registrar {
  MetricsRegistry* registry;
  MetricLabels labels;

  MetricLabels with(const char* name, const char* value) const {
    MetricLabels more = labels;
    if (name != nullptr) more.emplace_back(name, value);
    return more;
  }
  Gauge* gauge(const char* name, const char* help, const char* label = nullptr, const char* value = nullptr) const {
    return &registry->gauge(name, help, with(label, value));
  }
  Counter* counter(const char* name, const char* help, const char* label = nullptr, const char* value = nullptr) const {
    return &registry->counter(name, help, with(label, value));
  }
  Histogram* histogram(const char* name, const char* help, const std::vector<double>& bounds) const {
    return &registry->histogram(name, help, bounds, labels);
  }
};

EngineMetrics::EngineMetrics(MetricsRegistry* registry, const std::string& model_name, const ModelFacts& facts)
    : has_prefix_cache_(facts.enable_prefix_caching) {
  const Registrar add{registry, {{"model_name", model_name}, {"engine", "0"}}};
  add_gauges(add);
  add_counters(add);
  add_histograms(add, facts.max_model_len);
  add_step_counters(registry);
  registry
      ->gauge("vllm:cache_config_info", "Information of the LLMEngine CacheConfig",
              {{"block_size", std::to_string(facts.block_size)},
               {"cache_dtype", facts.cache_dtype},
               {"cpu_offload_gb", "0"},
               {"enable_prefix_caching", facts.enable_prefix_caching ? "True" : "False"},
               {"engine", "0"},
               {"gpu_memory_utilization", "0.9"},
               {"num_cpu_blocks", "0"},
               {"num_gpu_blocks", std::to_string(facts.num_blocks)},
               {"num_gpu_blocks_override", "None"},
               {"sliding_window", "None"},
               {"swap_space_bytes", "0"}})
      .set(1);
}

void EngineMetrics::add_gauges(const Registrar& add) {
  running = add.gauge("vllm:num_requests_running", "Number of requests in the current batch.");
  waiting = add.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.");
  waiting_for_capacity =
      add.gauge("vllm:num_requests_waiting_by_reason", "Waiting requests by reason.", "reason", "capacity");
  add.gauge("vllm:num_requests_waiting_by_reason", "Waiting requests by reason.", "reason", "deferred");
  add.gauge("vllm:num_requests_swapped", "Requests swapped to the host; none ever are.");
  cache_usage = {add.gauge("vllm:kv_cache_usage_perc", "KV-cache usage; 1 means 100 percent."),
                 add.gauge("vllm:gpu_cache_usage_perc", "KV-cache usage; 1 means 100 percent.")};
  add.gauge("vllm:cpu_cache_usage_perc", "Usage of a second cache on the host; there is none.");
  cache_hit_rate =
      add.gauge("vllm:gpu_prefix_cache_hit_rate", "Prefix cache hits per lookup since start; -1 when off.");
  cache_hit_rate->set(-1);
  add.gauge("vllm:cpu_prefix_cache_hit_rate", "-1: there is no second cache on the host.")->set(-1);
  add.gauge("vllm:spec_decode_draft_acceptance_rate", "Accepted per drafted token.");
  add.gauge("vllm:spec_decode_efficiency", "Emitted tokens per step of speculation.");
}

void EngineMetrics::add_counters(const Registrar& add) {
  cache_queries = {add.counter("vllm:prefix_cache_queries_total", "Prefix cache lookups, in tokens."),
                   add.counter("vllm:gpu_prefix_cache_queries_total", "Prefix cache lookups, in tokens.")};
  cache_hits = {add.counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in tokens."),
                add.counter("vllm:gpu_prefix_cache_hits_total", "Prefix cache hits, in tokens.")};
  preemptions = add.counter("vllm:num_preemptions_total", "Preemptions since start.");
  prompt_tokens = add.counter("vllm:prompt_tokens_total", "Prompt tokens processed.");
  prompt_tokens_cached = add.counter("vllm:prompt_tokens_cached_total", "Prompt tokens found in the prefix cache.");
  add.counter("vllm:prompt_tokens_recomputed_total",
              "Cached prompt tokens computed again; they are not counted as cached.");
  const auto source = [&](const char* from) {
    return add.counter("vllm:prompt_tokens_by_source_total", "Prompt tokens by where they came from.", "source", from);
  };
  prompt_tokens_computed = source("local_compute");
  prompt_tokens_from_cache = source("local_cache_hit");
  source("external_kv_transfer");
  generation_tokens = add.counter("vllm:generation_tokens_total", "Tokens generated.");
  add.counter("vllm:tokens_total", "Prompt and generated tokens; vLLM defines it and never counts.");
  const auto success = [&](const char* reason) {
    return add.counter("vllm:request_success_total", "Requests ended, by reason.", "finished_reason", reason);
  };
  success_stop = success("stop");
  success_length = success("length");
  success_abort = success("abort");
  success_error = success("error");
  add.counter("vllm:spec_decode_num_drafts_total", "Drafts; there is no speculation.");
  add.counter("vllm:spec_decode_num_draft_tokens_total", "Drafted tokens.");
  add.counter("vllm:spec_decode_num_accepted_tokens_total", "Accepted draft tokens.");
  add.counter("vllm:spec_decode_num_emitted_tokens_total", "Tokens emitted by speculation.");
  add.counter("vllm:spec_decode_num_accepted_tokens_per_pos_total", "Accepted draft tokens by position.", "position",
              "0");
}

void EngineMetrics::add_histograms(const Registrar& add, int64_t max_model_len) {
  const std::vector<double> token_bounds = one_two_five_bounds(max_model_len);
  iteration_tokens = add.histogram("vllm:iteration_tokens_total", "Tokens per engine step.", kIterationTokenBounds);
  first_token = add.histogram("vllm:time_to_first_token_seconds", "Time to first token.", kFirstTokenBounds);
  token_gap = {add.histogram("vllm:inter_token_latency_seconds", "Time between tokens.", kTokenGapBounds),
               add.histogram("vllm:time_per_output_token_seconds", "Time between tokens.", kTokenGapBounds)};
  mean_token_time = add.histogram("vllm:request_time_per_output_token_seconds",
                                  "Mean time per output token of a request, the first excluded.", kTokenGapBounds);
  e2e = add.histogram("vllm:e2e_request_latency_seconds", "Arrival to last token.", kRequestTimeBounds);
  queue = {add.histogram("vllm:request_queue_time_seconds", "Time in the queue.", kRequestTimeBounds),
           add.histogram("vllm:time_in_queue_requests", "Time in the queue.", kRequestTimeBounds)};
  prefill = add.histogram("vllm:request_prefill_time_seconds", "Scheduled to first token.", kRequestTimeBounds);
  decode = add.histogram("vllm:request_decode_time_seconds", "First to last token.", kRequestTimeBounds);
  inference = add.histogram("vllm:request_inference_time_seconds", "Scheduled to last token.", kRequestTimeBounds);
  forward_ms = add.histogram("vllm:model_forward_time_milliseconds", "Forward pass of a step.", kStepTimeMsBounds);
  execute_ms = add.histogram("vllm:model_execute_time_milliseconds", "A step, sampling included.", kStepTimeMsBounds);
  request_prompt_tokens = add.histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", token_bounds);
  request_generation_tokens =
      add.histogram("vllm:request_generation_tokens", "Generated tokens of a request.", token_bounds);
  request_max_generation_tokens = add.histogram("vllm:request_max_num_generation_tokens",
                                                "Most generated tokens among a request's samples.", token_bounds);
  request_computed_tokens = add.histogram("vllm:request_prefill_kv_computed_tokens",
                                          "Prompt tokens of a request that were not cached.", token_bounds);
  params_max_tokens = add.histogram("vllm:request_params_max_tokens", "max_tokens of a request.", token_bounds);
  params_n = add.histogram("vllm:request_params_n", "n of a request.", kSampleCountBounds);
}

void EngineMetrics::add_step_counters(MetricsRegistry* registry) {
  const auto counter = [&](const char* name, const char* help, const MetricLabels& labels = {}) {
    return &registry->counter(name, help, labels);
  };
  for (size_t i = 0; i < kNumStepPhases; ++i) {
    const MetricLabels phase = {{"phase", step_phase_name(static_cast<StepPhase>(i))}};
    phases[i] = {
        .seconds = counter("hadal_step_phase_seconds_total", "Time of forward passes by phase.", phase),
        .busy = counter("hadal_step_phase_busy_seconds_total", "Time inside kernels, summed over threads.", phase),
        .weight_bytes = counter("hadal_step_weight_bytes_total", "Bytes of distinct weights touched per step.", phase),
        .kv_bytes = counter("hadal_step_kv_bytes_total", "Bytes of cache rows read.", phase),
        .flops = counter("hadal_step_flops_total", "Floating-point operations that the model asks for.", phase)};
  }
  steps = counter("hadal_steps_total", "Engine steps.");
  step_seconds = counter("hadal_step_seconds_total", "Time of engine steps, from plan to commit.");
  forward_seconds = counter("hadal_step_forward_seconds_total", "Time of forward passes.");
  planning_seconds = counter("hadal_step_planning_seconds_total", "Time of planning steps.");
  sampling_seconds = counter("hadal_step_sampling_seconds_total", "Time of sampling tokens.");
  barriers = counter("hadal_step_barriers_total", "Parallel loops run.");
  collectives = counter("hadal_step_collectives_total", "Sums over ranks and messages between them.");
  comm_bytes = counter("hadal_step_comm_bytes_total", "Bytes given to collectives, or sent, or received.");
  threads = &registry->gauge("hadal_step_threads", "Threads of a forward pass.");
}

void EngineMetrics::copy(const EngineStats& stats) {
  const auto waiting_now = static_cast<double>(stats.num_requests_waiting);
  const auto queries = static_cast<double>(stats.prefix_cache_queries);
  const auto hits = static_cast<double>(stats.prefix_cache_hits);
  running->set(static_cast<double>(stats.num_requests_running));
  waiting->set(waiting_now);
  waiting_for_capacity->set(waiting_now);
  cache_usage.each(&Gauge::set, stats.kv_cache_usage);
  preemptions->set_total(static_cast<double>(stats.num_preemptions));
  cache_queries.each(&Counter::set_total, queries);
  cache_hits.each(&Counter::set_total, hits);
  if (has_prefix_cache_) cache_hit_rate->set(queries > 0 ? hits / queries : 0);
}

void EngineMetrics::count_step(const StepRecord& step) {
  // A token counts in the step that makes it: a decode step's input is the token of the step before.
  iteration_tokens->observe(static_cast<double>(step.num_prefill_tokens + step.num_generated_tokens));
  forward_ms->observe(1e3 * step.forward.wall_s);
  execute_ms->observe(1e3 * step.duration_s);
  for (size_t i = 0; i < kNumStepPhases; ++i) {
    const PhaseCost& cost = step.forward.phases[i];
    phases[i].seconds->add(cost.wall_s);
    phases[i].busy->add(cost.busy_s);
    phases[i].weight_bytes->add(cost.weight_bytes);
    phases[i].kv_bytes->add(cost.kv_bytes);
    phases[i].flops->add(cost.flops);
    barriers->add(static_cast<double>(cost.num_barriers));
    collectives->add(static_cast<double>(cost.num_collectives));
    comm_bytes->add(cost.comm_bytes);
  }
  steps->add();
  step_seconds->add(step.duration_s);
  forward_seconds->add(step.forward.wall_s);
  planning_seconds->add(step.planning_s);
  sampling_seconds->add(step.sampling_s);
  threads->set(step.forward.num_threads);
}

}  // namespace hadal
