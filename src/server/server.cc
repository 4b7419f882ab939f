#include "server/server.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "server/api_error.h"
#include "server/generation.h"
#include "server/router.h"
#include "server/state.h"
#include "text/reasoning_parser.h"

namespace hadal {
namespace {

constexpr auto kAbortFlushTime = std::chrono::seconds(2);  // for error events of streams that are cut short

// Left out of the HTTP metrics.
bool is_service_route(const Route* route) { return route != nullptr && route->while_loading; }

void report_access(Server::State& state, const HttpAccess& access) {
  const HttpRequest& request = access.request;
  const Route* route = find_route(request);
  if (route != nullptr && route->on_worker) state.num_active.fetch_sub(1);
  if (state.options.log_access) {
    // Probes and scrapers would drown the requests that users make.
    log_at(is_service_route(route) ? LogLevel::kDebug : LogLevel::kInfo, "{} - \"{} {} HTTP/1.1\" {} {}",
           request.client, method_label(request.method), request.path.substr(0, 200), access.status,
           http_reason(access.status));
  }
  if (is_service_route(route)) return;
  state.metrics().count_http(access, method_label(request.method), route == nullptr ? "none" : route->path);
}

HttpServerOptions http_options(const std::shared_ptr<Server::State>& state) {
  const ServerOptions& options = state->options;
  Server::State* raw = state.get();  // outlives the HTTP server, which it owns
  return {
      .host = options.host,
      .port = options.port,
      .num_io_threads = options.num_io_threads,
      .limits = options.http,
      .handler =
          [raw](std::shared_ptr<HttpExchange> exchange) {
            dispatch_request(raw->shared_from_this(), std::move(exchange));
          },
      .prepare = [raw](HttpRequest& request) { return prepare_request(raw->options, request); },
      .error_response =
          [](int status, const std::string& message) {
            return api_error_response({.status = status, .message = message, .retry_after_s = status == 503 ? 1 : 0});
          },
      .on_access = [raw](const HttpAccess& access) { report_access(*raw, access); }};
}

}  // namespace

int64_t steady_now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Server::State::State(ServerOptions server_options)
    : options(std::move(server_options)), workers(std::max(1, options.num_worker_threads)) {}

std::shared_ptr<const ServingContext> Server::State::context() const {
  const std::lock_guard lock(mutex);
  return context_locked;
}

ProtocolOptions Server::State::protocol_options(const ServingContext& context) const {
  ProtocolOptions protocol;
  protocol.defaults = context.facts.defaults;
  protocol.max_logprobs = options.max_logprobs;
  protocol.trust_request_chat_template = options.trust_request_chat_template;
  return protocol;
}

bool Server::State::serves_model(const std::string& name) const {
  const auto& names = options.served_model_names;
  return name.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

void Server::State::begin_engine_request() {
  if (num_engine_requests.fetch_add(1) == 0) busy_since_ms = steady_now_ms();
}

bool Server::State::stalled() const {
  if (num_engine_requests.load() <= 0) return false;
  const int64_t last_sign = std::max(busy_since_ms.load(), steps->last_progress_ms.load());
  return steady_now_ms() - last_sign > options.stall_limit.count();
}

void Server::State::add_generation(const std::shared_ptr<Generation>& generation) {
  const std::lock_guard lock(mutex);
  generations.emplace(generation.get(), generation);
}

void Server::State::remove_generation(const Generation* generation) {
  const std::lock_guard lock(mutex);
  generations.erase(generation);
}

void Server::State::fail_generations(const std::string& message) {
  std::vector<std::shared_ptr<Generation>> running;
  {
    const std::lock_guard lock(mutex);
    for (const auto& [raw, weak] : generations) {
      if (auto generation = weak.lock()) running.push_back(std::move(generation));
    }
  }
  for (const auto& generation : running) {
    generation->fail_later({.status = 503, .message = message, .retry_after_s = 1});
  }
}

Server::Server(std::shared_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() { shutdown(std::chrono::milliseconds(0)); }

Expected<std::unique_ptr<Server>> Server::start(ServerOptions options) {
  if (options.served_model_names.empty()) return make_error(ErrorCode::kInvalidArgument, "no served model name");
  HADAL_ASSIGN_OR_RETURN([[maybe_unused]] const auto mode, reasoning_mode(options.reasoning_parser, false));
  auto state = std::make_shared<State>(std::move(options));
  HADAL_ASSIGN_OR_RETURN(state->http, HttpServer::start(http_options(state)));
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

uint16_t Server::port() const { return state_->http->port(); }

void Server::set_loading_progress(double fraction, std::string what) {
  const std::lock_guard lock(state_->mutex);
  state_->loading_fraction = std::clamp(fraction, 0.0, 1.0);
  state_->loading_what = std::move(what);
}

void Server::attach(ServingContext context) {
  HADAL_CHECK(context.engine != nullptr && context.tokenizer != nullptr && state_->context() == nullptr);
  state_->metrics().attach(state_->options.served_model_names.front(), context.facts);
  state_->metrics().read_engine_stats([weak = std::weak_ptr<State>(state_)]() -> EngineStats {
    const auto state = weak.lock();
    const auto serving = state == nullptr ? nullptr : state->context();
    return serving == nullptr ? EngineStats{} : serving->engine->stats();
  });
  const std::lock_guard lock(state_->mutex);
  state_->context_locked = std::make_shared<const ServingContext>(std::move(context));
}

StepObserver Server::step_observer() {
  return [steps = state_->steps](const StepRecord& record) {
    steps->last_progress_ms.store(steady_now_ms(), std::memory_order_relaxed);
    steps->metrics.count_step(record);
  };
}

MetricsRegistry& Server::metrics() { return state_->metrics().registry(); }

int64_t Server::num_active_requests() const { return state_->num_active.load(); }

bool Server::shutdown(std::chrono::milliseconds limit) {
  const std::lock_guard lock(state_->shutdown_mutex);
  if (state_->shut_down) return state_->shut_down_clean;
  state_->shut_down = true;
  state_->draining = true;
  state_->http->drain();
  state_->shut_down_clean = state_->http->wait_drained(limit);
  if (!state_->shut_down_clean) {
    state_->fail_generations("The server is shutting down");
    state_->http->wait_drained(kAbortFlushTime);
  }
  state_->workers.stop();
  state_->http->stop();
  // Stopped before the last reference goes: a sink must not be what destroys the engine, on the engine's own thread.
  if (const auto serving = state_->context()) serving->engine->stop();
  const std::lock_guard context_lock(state_->mutex);
  state_->context_locked = nullptr;
  return state_->shut_down_clean;
}

}  // namespace hadal
