#include "server/serving_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>

#include "server/engine_metrics.h"
#include "server/server.h"

namespace hadal {
namespace {

const std::vector<double> kHttpFineBounds = {.01, .025, .05, .075, .1,  .25, .5,  .75, 1,  1.5, 2,
                                             2.5, 3,    3.5, 4,    4.5, 5,   7.5, 10,  30, 60};
const std::vector<double> kHttpBounds = {.1, .5, 1};

void observe_if(Histogram* histogram, double seconds) {
  if (seconds >= 0) histogram->observe(seconds);
}

struct MemoryUse {
  double virtual_bytes = 0;
  double resident_bytes = 0;
};

MemoryUse memory_use() {
  long num_pages = 0;
  long num_resident = 0;
  if (std::FILE* statm = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(statm, "%ld %ld", &num_pages, &num_resident) != 2) num_pages = num_resident = 0;
    std::fclose(statm);
  }
  const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  return {static_cast<double>(num_pages) * page_bytes, static_cast<double>(num_resident) * page_bytes};
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double max_open_files() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<double>(limit.rlim_cur) : 0;
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

ServingMetrics::ServingMetrics() { register_process_metrics(); }
ServingMetrics::~ServingMetrics() = default;

void ServingMetrics::attach(const std::string& model_name, const ModelFacts& facts) {
  owned_engine_ = std::make_unique<EngineMetrics>(&registry_, model_name, facts);
  engine_.store(owned_engine_.get(), std::memory_order_release);
}

void ServingMetrics::read_engine_stats(std::function<EngineStats()> read) {
  read_stats_ = std::move(read);
  registry_.on_scrape([this] {
    if (EngineMetrics* engine = engine_.load(std::memory_order_acquire)) engine->copy(read_stats_());
  });
}

void ServingMetrics::count_step(const StepRecord& step) {
  if (EngineMetrics* engine = engine_.load(std::memory_order_acquire)) engine->count_step(step);
}

void ServingMetrics::count_first_token(double seconds_since_arrival, int64_t num_prompt_tokens,
                                       int64_t num_cached_tokens) {
  EngineMetrics* engine = engine_.load(std::memory_order_acquire);
  if (engine == nullptr) return;
  engine->first_token->observe(seconds_since_arrival);
  engine->prompt_tokens->add(static_cast<double>(num_prompt_tokens));
  engine->prompt_tokens_cached->add(static_cast<double>(num_cached_tokens));
  engine->prompt_tokens_from_cache->add(static_cast<double>(num_cached_tokens));
  engine->prompt_tokens_computed->add(static_cast<double>(num_prompt_tokens - num_cached_tokens));
}

void ServingMetrics::count_tokens(int64_t num_tokens) {
  EngineMetrics* engine = engine_.load(std::memory_order_acquire);
  if (engine != nullptr) engine->generation_tokens->add(static_cast<double>(num_tokens));
}

void ServingMetrics::count_token_gap(double seconds) {
  EngineMetrics* engine = engine_.load(std::memory_order_acquire);
  if (engine != nullptr) engine->token_gap.each(&Histogram::observe, seconds);
}

void ServingMetrics::count_finished(const FinishedRequest& request) {
  EngineMetrics* engine = engine_.load(std::memory_order_acquire);
  if (engine == nullptr) return;
  EngineMetrics& m = *engine;
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
  if (request.times.queue >= 0) m.queue.each(&Histogram::observe, request.times.queue);
  observe_if(m.prefill, request.times.prefill);
  observe_if(m.decode, request.times.decode);
  observe_if(m.inference, request.times.inference);
  if (request.times.decode >= 0 && request.num_generated_tokens > 1) {
    m.mean_token_time->observe(request.times.decode / static_cast<double>(request.num_generated_tokens - 1));
  }
  m.request_prompt_tokens->observe(static_cast<double>(request.num_prompt_tokens));
  m.request_computed_tokens->observe(static_cast<double>(request.num_prompt_tokens - request.num_cached_tokens));
  m.request_generation_tokens->observe(static_cast<double>(request.num_generated_tokens));
  m.params_max_tokens->observe(static_cast<double>(request.max_tokens));
}

void ServingMetrics::count_prompt_finished(int64_t n, int64_t max_generated_tokens) {
  EngineMetrics* engine = engine_.load(std::memory_order_acquire);
  if (engine == nullptr) return;
  engine->params_n->observe(static_cast<double>(n));
  engine->request_max_generation_tokens->observe(static_cast<double>(max_generated_tokens));
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
  Gauge& reserved = registry_.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.");
  Counter& cpu = registry_.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.");
  Gauge& open_files = registry_.gauge("process_open_fds", "Number of open file descriptors.");
  Gauge& most_files = registry_.gauge("process_max_fds", "Maximum number of open file descriptors.");
  registry_.gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")
      .set(static_cast<double>(std::time(nullptr)));
  registry_.on_scrape([&resident, &reserved, &cpu, &open_files, &most_files] {
    const MemoryUse memory = memory_use();
    resident.set(memory.resident_bytes);
    reserved.set(memory.virtual_bytes);
    cpu.set_total(cpu_seconds());
    open_files.set(num_open_files());
    most_files.set(max_open_files());
  });
}

}  // namespace hadal
