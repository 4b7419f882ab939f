#include "server/serving_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <ctime>

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
const std::vector<double> kSampleCountBounds = {1, 2, 5, 10, 20};
const std::vector<double> kHttpFineBounds = {.01, .025, .05, .075, .1,  .25, .5,  .75, 1,  1.5, 2,
                                             2.5, 3,    3.5, 4,    4.5, 5,   7.5, 10,  30, 60};
const std::vector<double> kHttpBounds = {.1, .5, 1};

void observe_if(Histogram* histogram, double seconds) {
  if (seconds >= 0) histogram->observe(seconds);
}

double resident_bytes() {
  long num_pages = 0;
  if (std::FILE* statm = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(statm, "%*s %ld", &num_pages) != 1) num_pages = 0;
    std::fclose(statm);
  }
  return static_cast<double>(num_pages) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double num_open_files() {
  int count = 0;
  if (DIR* dir = opendir("/proc/self/fd")) {
    while (readdir(dir) != nullptr) ++count;
    closedir(dir);
  }
  return count - 3;  // ".", ".." and the directory itself
}

}  // namespace

struct ServingMetrics::EngineMetrics {
  Gauge* running;
  Gauge* waiting;
  Gauge* cache_usage_old;
  Gauge* cache_usage;
  Counter* preemptions;
  Counter* cache_queries;
  Counter* cache_hits;
  Counter* cache_queries_old;
  Counter* cache_hits_old;
  Counter* prompt_tokens;
  Counter* prompt_tokens_cached;
  Counter* generation_tokens;
  Counter* success_stop;
  Counter* success_length;
  Counter* success_abort;
  Counter* success_error;
  Histogram* iteration_tokens;
  Histogram* first_token;
  Histogram* token_gap_old;
  Histogram* token_gap;
  Histogram* mean_token_time;
  Histogram* e2e;
  Histogram* queue;
  Histogram* prefill;
  Histogram* decode;
  Histogram* inference;
  Histogram* request_prompt_tokens;
  Histogram* request_generation_tokens;
  Histogram* request_max_generation_tokens;
  Histogram* params_max_tokens;
  Histogram* params_n;

  // Where steps spend their time: what `hadal bench live` reads.
  struct Phase {
    Counter* seconds;
    Counter* busy;
    Counter* weight_bytes;
    Counter* kv_bytes;
    Counter* flops;
  };
  std::array<Phase, kNumStepPhases> phases;
  Counter* steps;
  Counter* step_seconds;
  Counter* forward_seconds;
  Counter* planning_seconds;
  Counter* sampling_seconds;
  Counter* barriers;
  Gauge* threads;
};

ServingMetrics::ServingMetrics() : engine_(std::make_shared<EngineMetrics>()) { register_process_metrics(); }

void ServingMetrics::attach(const std::string& model_name, const ModelFacts& facts) {
  const MetricLabels labels = {{"model_name", model_name}, {"engine", "0"}};
  attach_counters(labels);
  attach_histograms(labels, facts.max_model_len);
  attach_step_counters();
  registry_
      .gauge("vllm:cache_config_info", "Information of the LLMEngine CacheConfig",
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
  attached_.store(true, std::memory_order_release);
}

void ServingMetrics::attach_counters(const MetricLabels& labels) {
  EngineMetrics& m = *engine_;
  const auto counter = [&](const char* name, const char* help) { return &registry_.counter(name, help, labels); };
  const auto gauge = [&](const char* name, const char* help) { return &registry_.gauge(name, help, labels); };
  m.running = gauge("vllm:num_requests_running", "Number of requests in the current batch.");
  m.waiting = gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.");
  m.cache_usage_old = gauge("vllm:gpu_cache_usage_perc", "KV-cache usage; 1 means 100 percent.");
  m.cache_usage = gauge("vllm:kv_cache_usage_perc", "KV-cache usage; 1 means 100 percent.");
  m.preemptions = counter("vllm:num_preemptions_total", "Preemptions since start.");
  m.cache_queries = counter("vllm:prefix_cache_queries_total", "Prefix cache lookups, in tokens.");
  m.cache_hits = counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in tokens.");
  m.cache_queries_old = counter("vllm:gpu_prefix_cache_queries_total", "Prefix cache lookups, in tokens.");
  m.cache_hits_old = counter("vllm:gpu_prefix_cache_hits_total", "Prefix cache hits, in tokens.");
  m.prompt_tokens = counter("vllm:prompt_tokens_total", "Prompt tokens processed.");
  m.prompt_tokens_cached = counter("vllm:prompt_tokens_cached_total", "Prompt tokens found in the prefix cache.");
  m.generation_tokens = counter("vllm:generation_tokens_total", "Tokens generated.");
  const auto success = [&](const char* reason) {
    MetricLabels with_reason = labels;
    with_reason.emplace_back("finished_reason", reason);
    return &registry_.counter("vllm:request_success_total", "Requests ended, by reason.", with_reason);
  };
  m.success_stop = success("stop");
  m.success_length = success("length");
  m.success_abort = success("abort");
  m.success_error = success("error");
}

void ServingMetrics::attach_step_counters() {
  EngineMetrics& m = *engine_;
  const auto counter = [&](const char* name, const char* help, const MetricLabels& labels = {}) {
    return &registry_.counter(name, help, labels);
  };
  for (size_t i = 0; i < kNumStepPhases; ++i) {
    const MetricLabels phase = {{"phase", step_phase_name(static_cast<StepPhase>(i))}};
    m.phases[i] = {
        .seconds = counter("hadal_step_phase_seconds_total", "Time of forward passes by phase.", phase),
        .busy = counter("hadal_step_phase_busy_seconds_total", "Time inside kernels, summed over threads.", phase),
        .weight_bytes = counter("hadal_step_weight_bytes_total", "Bytes of distinct weights touched per step.", phase),
        .kv_bytes = counter("hadal_step_kv_bytes_total", "Bytes of cache rows read.", phase),
        .flops = counter("hadal_step_flops_total", "Floating-point operations that the model asks for.", phase)};
  }
  m.steps = counter("hadal_steps_total", "Engine steps.");
  m.step_seconds = counter("hadal_step_seconds_total", "Time of engine steps, from plan to commit.");
  m.forward_seconds = counter("hadal_step_forward_seconds_total", "Time of forward passes.");
  m.planning_seconds = counter("hadal_step_planning_seconds_total", "Time of planning steps.");
  m.sampling_seconds = counter("hadal_step_sampling_seconds_total", "Time of sampling tokens.");
  m.barriers = counter("hadal_step_barriers_total", "Parallel loops run.");
  m.threads = &registry_.gauge("hadal_step_threads", "Threads of a forward pass.");
}

void ServingMetrics::attach_histograms(const MetricLabels& labels, int64_t max_model_len) {
  EngineMetrics& m = *engine_;
  const auto histogram = [&](const char* name, const char* help, const std::vector<double>& bounds) {
    return &registry_.histogram(name, help, bounds, labels);
  };
  const std::vector<double> token_bounds = one_two_five_bounds(max_model_len);
  m.iteration_tokens = histogram("vllm:iteration_tokens_total", "Tokens per engine step.", kIterationTokenBounds);
  m.first_token = histogram("vllm:time_to_first_token_seconds", "Time to first token.", kFirstTokenBounds);
  m.token_gap_old = histogram("vllm:time_per_output_token_seconds", "Time between tokens.", kTokenGapBounds);
  m.token_gap = histogram("vllm:inter_token_latency_seconds", "Time between tokens.", kTokenGapBounds);
  m.mean_token_time = histogram("vllm:request_time_per_output_token_seconds",
                                "Mean time per output token of a request, the first excluded.", kTokenGapBounds);
  m.e2e = histogram("vllm:e2e_request_latency_seconds", "Arrival to last token.", kRequestTimeBounds);
  m.queue = histogram("vllm:request_queue_time_seconds", "Time in the queue.", kRequestTimeBounds);
  m.prefill = histogram("vllm:request_prefill_time_seconds", "Scheduled to first token.", kRequestTimeBounds);
  m.decode = histogram("vllm:request_decode_time_seconds", "First to last token.", kRequestTimeBounds);
  m.inference = histogram("vllm:request_inference_time_seconds", "Scheduled to last token.", kRequestTimeBounds);
  m.request_prompt_tokens = histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", token_bounds);
  m.request_generation_tokens =
      histogram("vllm:request_generation_tokens", "Generated tokens of a request.", token_bounds);
  m.request_max_generation_tokens = histogram("vllm:request_max_num_generation_tokens",
                                              "Most generated tokens among a request's samples.", token_bounds);
  m.params_max_tokens = histogram("vllm:request_params_max_tokens", "max_tokens of a request.", token_bounds);
  m.params_n = histogram("vllm:request_params_n", "n of a request.", kSampleCountBounds);
}

void ServingMetrics::read_engine_stats(std::function<EngineStats()> read) {
  read_stats_ = std::move(read);
  registry_.on_scrape([this] { copy_engine_stats(); });
}

void ServingMetrics::copy_engine_stats() {
  const EngineStats stats = read_stats_();
  EngineMetrics& m = *engine_;
  m.running->set(static_cast<double>(stats.num_requests_running));
  m.waiting->set(static_cast<double>(stats.num_requests_waiting));
  m.cache_usage->set(stats.kv_cache_usage);
  m.cache_usage_old->set(stats.kv_cache_usage);
  m.preemptions->set_total(static_cast<double>(stats.num_preemptions));
  m.cache_queries->set_total(static_cast<double>(stats.prefix_cache_queries));
  m.cache_queries_old->set_total(static_cast<double>(stats.prefix_cache_queries));
  m.cache_hits->set_total(static_cast<double>(stats.prefix_cache_hits));
  m.cache_hits_old->set_total(static_cast<double>(stats.prefix_cache_hits));
}

void ServingMetrics::count_step(const StepRecord& step) {
  if (!attached_.load(std::memory_order_acquire)) return;
  // A token counts in the step that makes it: a decode step's input is the token of the step before.
  engine_->iteration_tokens->observe(static_cast<double>(step.num_prefill_tokens + step.num_generated_tokens));
  EngineMetrics& m = *engine_;
  for (size_t i = 0; i < kNumStepPhases; ++i) {
    const PhaseCost& cost = step.forward.phases[i];
    m.phases[i].seconds->add(cost.wall_s);
    m.phases[i].busy->add(cost.busy_s);
    m.phases[i].weight_bytes->add(cost.weight_bytes);
    m.phases[i].kv_bytes->add(cost.kv_bytes);
    m.phases[i].flops->add(cost.flops);
    m.barriers->add(static_cast<double>(cost.num_barriers));
  }
  m.steps->add();
  m.step_seconds->add(step.duration_s);
  m.forward_seconds->add(step.forward.wall_s);
  m.planning_seconds->add(step.planning_s);
  m.sampling_seconds->add(step.sampling_s);
  m.threads->set(step.forward.num_threads);
}

void ServingMetrics::count_first_token(double seconds_since_arrival, int64_t num_prompt_tokens,
                                       int64_t num_cached_tokens) {
  engine_->first_token->observe(seconds_since_arrival);
  engine_->prompt_tokens->add(static_cast<double>(num_prompt_tokens));
  engine_->prompt_tokens_cached->add(static_cast<double>(num_cached_tokens));
}

void ServingMetrics::count_tokens(int64_t num_tokens) {
  engine_->generation_tokens->add(static_cast<double>(num_tokens));
}

void ServingMetrics::count_token_gap(double seconds) {
  engine_->token_gap->observe(seconds);
  engine_->token_gap_old->observe(seconds);
}

void ServingMetrics::count_finished(const FinishedRequest& request) {
  EngineMetrics& m = *engine_;
  switch (request.reason) {
    case FinishReason::kStop:
      m.success_stop->add();
      break;
    case FinishReason::kLength:
      m.success_length->add();
      break;
    case FinishReason::kError:
      m.success_error->add();
      break;
    default:
      m.success_abort->add();
  }
  m.e2e->observe(request.times.e2e);
  observe_if(m.queue, request.times.queue);
  observe_if(m.prefill, request.times.prefill);
  observe_if(m.decode, request.times.decode);
  observe_if(m.inference, request.times.inference);
  if (request.times.decode >= 0 && request.num_generated_tokens > 1) {
    m.mean_token_time->observe(request.times.decode / static_cast<double>(request.num_generated_tokens - 1));
  }
  m.request_prompt_tokens->observe(static_cast<double>(request.num_prompt_tokens));
  m.request_generation_tokens->observe(static_cast<double>(request.num_generated_tokens));
  m.params_max_tokens->observe(static_cast<double>(request.max_tokens));
}

void ServingMetrics::count_prompt_finished(int64_t n, int64_t max_generated_tokens) {
  engine_->params_n->observe(static_cast<double>(n));
  engine_->request_max_generation_tokens->observe(static_cast<double>(max_generated_tokens));
}

void ServingMetrics::count_http(const HttpAccess& access, const std::string& method, const std::string& handler) {
  registry_
      .counter("http_requests_total", "Total number of requests by method, status and handler.",
               {{"handler", handler}, {"method", method}, {"status", fmt::format("{}xx", access.status / 100)}})
      .add();
  registry_
      .summary("http_request_size_bytes", "Content length of incoming requests by handler.", {{"handler", handler}})
      .observe(static_cast<double>(access.request.body.size()));
  registry_
      .summary("http_response_size_bytes", "Content length of outgoing responses by handler.", {{"handler", handler}})
      .observe(static_cast<double>(access.num_response_bytes));
  registry_.histogram("http_request_duration_highr_seconds", "Latency with many buckets.", kHttpFineBounds)
      .observe(access.duration_s);
  registry_
      .histogram("http_request_duration_seconds", "Latency with few buckets, by handler.", kHttpBounds,
                 {{"handler", handler}, {"method", method}})
      .observe(access.duration_s);
}

void ServingMetrics::register_process_metrics() {
  Gauge& resident = registry_.gauge("process_resident_memory_bytes", "Resident memory size in bytes.");
  Counter& cpu = registry_.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.");
  Gauge& open_files = registry_.gauge("process_open_fds", "Number of open file descriptors.");
  registry_.gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")
      .set(static_cast<double>(std::time(nullptr)));
  registry_.on_scrape([&resident, &cpu, &open_files] {
    resident.set(resident_bytes());
    cpu.set_total(cpu_seconds());
    open_files.set(num_open_files());
  });
}

}  // namespace hadal
