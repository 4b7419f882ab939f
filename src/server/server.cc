#include "server/server.h"

#include <algorithm>

#include "base/check.h"
#include "base/log_record.h"
#include "server/access_log.h"
#include "server/api_error.h"
#include "server/generation.h"
#include "server/router.h"
#include "server/state.h"
#include "text/reasoning_parser.h"
#include "text/tool_format.h"

namespace hadal {
namespace {

constexpr auto kAbortFlushTime = std::chrono::seconds(2);  // for error events of streams that are cut short

// Left out of the HTTP metrics.
bool is_service_route(const Route* route) { return route != nullptr && route->while_loading; }

void log_access(const ServerOptions& options, const HttpAccess& access, bool is_service) {
  const auto& excluded = options.access_log_excluded_paths;
  if (!options.log_access || std::find(excluded.begin(), excluded.end(), access.request.path) != excluded.end()) return;
  // Probes and scrapers would drown the requests that users make.
  const LogLevel level = is_service ? LogLevel::kDebug : LogLevel::kInfo;
  if (log_enabled(level)) log_record(level, access_line(access), access_fields(access));
}

void report_access(Server::State& state, const HttpAccess& access) {
  const HttpRequest& request = access.request;
  const Route* route = find_route(request);
  if (route != nullptr && route->on_worker) state.num_active.fetch_sub(1);
  if (access.cut_short && state.options.log_requests) log_info("Aborted request {}.", access.request_id);
  log_access(state.options, access, is_service_route(route));
  if (is_service_route(route)) return;
  state.metrics().count_http(access, method_label(request.method), route == nullptr ? "none" : route->path);
}

void log_rates(Server::State& state) {
  const auto now = RateLog::Clock::now();
  if (!state.options.log_stats || !state.rates.is_due(now)) return;
  const auto serving = state.context();
  if (serving == nullptr) return;
  if (const auto line = state.rates.line(now, serving->engine->stats())) log_info("{}", *line);
}

Status check_options(const ServerOptions& options) {
  if (options.served_model_names.empty()) return make_error(ErrorCode::kInvalidArgument, "no served model name");
  if (!options.root_path.empty() && options.root_path[0] != '/') {
    return make_error(ErrorCode::kInvalidArgument, "root path \"{}\" must begin with a slash", options.root_path);
  }
  const bool some_key_empty =
      std::any_of(options.api_keys.begin(), options.api_keys.end(), [](const auto& key) { return key.empty(); });
  if (some_key_empty) return make_error(ErrorCode::kInvalidArgument, "an API key is empty: nobody could send it");
  const TlsOptions& tls = options.tls;
  if (tls.certificate_file.empty() && (!tls.key_file.empty() || !tls.client_ca_file.empty())) {
    return make_error(ErrorCode::kInvalidArgument, "TLS key or client authorities without a certificate");
  }
  return {};
}

HttpServerOptions http_options(const std::shared_ptr<Server::State>& state) {
  const ServerOptions& options = state->options;
  Server::State* raw = state.get();  // outlives the HTTP server, which it owns
  return {
      .host = options.host,
      .port = options.port,
      .unix_socket = options.unix_socket,
      .tls = options.tls,
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
      .on_access = [raw](const HttpAccess& access) { report_access(*raw, access); },
      .on_tick = [raw] { log_rates(*raw); }};
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
  protocol.priority_scheduling = options.priority_scheduling;
  protocol.processed_logprobs = options.processed_logprobs;
  protocol.clamp_max_tokens = options.clamp_max_tokens;
  protocol.force_include_usage = options.force_include_usage;
  protocol.return_tokens_as_token_ids = options.return_tokens_as_token_ids;
  protocol.exclude_tools_when_tool_choice_none = options.exclude_tools_when_tool_choice_none;
  protocol.default_chat_template_kwargs = options.default_chat_template_kwargs;
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
  HADAL_RETURN_IF_ERROR(check_options(options));
  HADAL_ASSIGN_OR_RETURN([[maybe_unused]] const auto mode, reasoning_mode(options.reasoning_parser, false));
  HADAL_ASSIGN_OR_RETURN([[maybe_unused]] const auto* format,
                         choose_tool_format(options.tool_call_parser, nullptr, ""));
  static constexpr std::string_view kReasoningFields[] = {"both", "reasoning_content", "reasoning"};
  if (std::find(std::begin(kReasoningFields), std::end(kReasoningFields), options.reasoning_field) ==
      std::end(kReasoningFields)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the reasoning field must be both, reasoning_content or reasoning, got \"{}\"",
                      options.reasoning_field);
  }
  auto state = std::make_shared<State>(std::move(options));
  HADAL_ASSIGN_OR_RETURN(state->http, HttpServer::start(http_options(state)));
  state->started_http = state->http.get();
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
  if (state_->options.log_stats) {
    state_->metrics().attach(state_->options.served_model_names.front(), context.facts);
    state_->metrics().read_engine_stats([weak = std::weak_ptr<State>(state_)]() -> EngineStats {
      const auto state = weak.lock();
      const auto serving = state == nullptr ? nullptr : state->context();
      return serving == nullptr ? EngineStats{} : serving->engine->stats();
    });
  }
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

bool Server::healthy() const {
  const auto serving = state_->context();
  return serving != nullptr && !state_->draining && serving->engine->healthy() && !state_->stalled();
}

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
  // Before the last reference goes: a sink must not be what destroys the engine, on the engine's own thread. And before
  // the IO threads: what they are handed and never run would keep the engine.
  if (const auto serving = state_->context()) serving->engine->stop();
  state_->http->stop();
  const std::lock_guard context_lock(state_->mutex);
  state_->context_locked = nullptr;
  return state_->shut_down_clean;
}

}  // namespace hadal
