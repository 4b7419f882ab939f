// What the routes share. Private to the server folder.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "server/http.h"
#include "server/rate_log.h"
#include "server/responses_store.h"
#include "server/server.h"
#include "server/serving_metrics.h"
#include "server/structured_output.h"
#include "server/worker_pool.h"

namespace hadal {

class Generation;

// Fed by the engine thread; outlives the server as long as the engine does.
struct StepSink {
  ServingMetrics metrics;
  std::atomic<int64_t> last_progress_ms{0};  // steady clock
};

int64_t steady_now_ms();

struct Server::State : public std::enable_shared_from_this<Server::State> {
  explicit State(ServerOptions server_options);

  const ServerOptions options;
  const std::shared_ptr<StepSink> steps = std::make_shared<StepSink>();
  ServingMetrics& metrics() { return steps->metrics; }

  // Null before attach() and after shutdown().
  std::shared_ptr<const ServingContext> context() const;
  ProtocolOptions protocol_options(const ServingContext& context) const;

  // `name` is one of its names; "" names the first one.
  bool serves_model(const std::string& name) const;

  // Engine requests that have not ended; for the stall check.
  void begin_engine_request();
  void end_engine_request() { num_engine_requests.fetch_sub(1); }
  bool stalled() const;

  void add_generation(const std::shared_ptr<Generation>& generation);
  void remove_generation(const Generation* generation);
  // Ends all running generations with this error.
  void fail_generations(const std::string& message);

  mutable std::mutex mutex;
  std::shared_ptr<const ServingContext> context_locked;                          // under mutex
  double loading_fraction = 0;                                                   // under mutex
  std::string loading_what;                                                      // under mutex
  std::unordered_map<const Generation*, std::weak_ptr<Generation>> generations;  // under mutex

  ResponsesStore responses;
  GrammarVocabularyCache grammar_vocabulary;
  GrammarCache grammars;

  std::atomic<bool> draining{false};
  std::atomic<int64_t> num_active{0};  // requests of counted routes
  std::atomic<int64_t> num_engine_requests{0};
  std::atomic<int64_t> busy_since_ms{0};
  std::atomic<uint64_t> next_serial{0};

  RateLog rates;  // on the IO thread of HttpServerOptions::on_tick

  WorkerPool workers;
  std::unique_ptr<HttpServer> http;
  std::atomic<const HttpServer*> started_http{nullptr};  // for handlers, which may run before `http` is set
  std::mutex shutdown_mutex;
  bool shut_down = false;       // under shutdown_mutex
  bool shut_down_clean = true;  // under shutdown_mutex
};

}  // namespace hadal
