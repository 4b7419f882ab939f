// The OpenAI-compatible server over one model. It listens before the model is loaded: until attach(), /health answers
// 503 with the progress and every generating route 503.
//
//   auto server = Server::start(options);
//   auto engine = make_engine(model, engine_options, (*server)->step_observer());
//   (*server)->attach({engine, tokenizer, chat_template, facts});
//   ... (*server)->shutdown(std::chrono::seconds(30));
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/status.h"
#include "engine/engine.h"
#include "server/http_message.h"
#include "server/protocol.h"
#include "server/tls.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace hadal {

struct CorsOptions {
  std::vector<std::string> allowed_origins = {"*"};
  std::vector<std::string> allowed_methods = {"*"};
  std::vector<std::string> allowed_headers = {"*"};
  bool allow_credentials = false;
};

struct ServerOptions {
  std::string host = "0.0.0.0";
  uint16_t port = 8000;     // 0: the system chooses
  std::string unix_socket;  // path: listens there instead of host and port
  std::string root_path;    // "/x": routes answer below it as well
  TlsOptions tls;
  int num_io_threads = 2;
  int num_worker_threads = 2;  // parse, render and tokenise requests
  HttpLimits http;

  std::vector<std::string> served_model_names;  // at least one; the first is reported
  std::string version;
  // None: open. Guard all but /health, /ping, /version and /metrics; sent as Authorization: Bearer or X-Api-Key.
  std::vector<std::string> api_keys;
  bool metrics_need_key = false;
  CorsOptions cors;

  // none, auto, deepseek_r1, deepseek_v3: see text/reasoning_parser.h.
  std::string reasoning_parser = "auto";
  // none, auto, deepseek_v3, deepseek_v31, kimi_k2: see text/tool_format.h.
  std::string tool_call_parser = "auto";
  bool enable_auto_tool_choice = true;
  bool exclude_tools_when_tool_choice_none = false;
  std::string response_role = "assistant";
  // "both": reasoning text under `reasoning_content` and `reasoning`; else only under the one named.
  std::string reasoning_field = "both";
  Json default_chat_template_kwargs;  // object or null; a request's own keys win
  int64_t max_logprobs = 20;
  bool processed_logprobs = false;  // --logprobs-mode processed_logprobs
  bool trust_request_chat_template = false;
  bool priority_scheduling = false;  // else a non-zero `priority` is refused
  bool clamp_max_tokens = false;     // max_tokens over the context is cut to it instead of refused
  bool force_include_usage = false;
  bool return_tokens_as_token_ids = false;

  bool enable_api_docs = true;  // /openapi.json, /docs
  bool enable_web_chat = true;  // the page at /
  bool dev_mode = false;        // /server_info and other views of the inside
  Json explained_config;        // for /server_info: flag -> value and origin

  bool log_access = true;
  std::vector<std::string> access_log_excluded_paths;
  bool log_requests = false;  // one line per request with its parameters; prompt text only with max_log_len
  int64_t max_log_len = 0;    // characters of the prompt in that line
  bool log_stats = true;      // engine metrics, and a line with rates every 10 s while busy
  std::chrono::milliseconds sse_heartbeat{0};    // a comment line in silent streams that often; 0: none
  std::chrono::milliseconds request_timeout{0};  // of a generating request; 0: none
  // The engine has work but ran no step for so long: not healthy.
  std::chrono::milliseconds stall_limit{300'000};
};

// What the model folder says.
struct ModelFacts {
  std::string root;                    // the folder, as /v1/models reports it
  int64_t max_model_len = 0;           // tokens of prompt and answer
  std::vector<int32_t> eos_token_ids;  // end an answer unless ignore_eos
  SamplingDefaults defaults;
  // For vllm:cache_config_info.
  int64_t block_size = 0;
  int64_t num_blocks = 0;
  std::string cache_dtype = "auto";
  bool enable_prefix_caching = true;
  Json certificate;  // what `hadal certify` measured, as /hadal/certificate gives it; null: nothing
};

struct ServingContext {
  // Stopped by shutdown().
  std::shared_ptr<Engine> engine;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;  // none: chat requests are refused
  ModelFacts facts;
};

// Thread-safe.
class Server {
 public:
  // Binds and serves. Errors: kIo (address), kInvalidArgument (options, TLS files).
  static Expected<std::unique_ptr<Server>> start(ServerOptions options);
  ~Server();  // as shutdown(0)

  uint16_t port() const;  // 0 on a unix socket

  // What /health says while loading. `fraction` of 1; `what` is a word or two ("reading weights").
  void set_loading_progress(double fraction, std::string what);
  // From now on requests are served. Once.
  void attach(ServingContext context);

  // For make_engine: feeds the metrics and the stall check. Valid as long as the engine, also beyond the server.
  StepObserver step_observer();
  MetricsRegistry& metrics();

  // Requests received and not yet answered.
  int64_t num_active_requests() const;
  // Whether /health answers 200: attached, not draining, and the engine steps while it has work.
  bool healthy() const;

  // New requests and /health get 503 at once, running ones may end within `limit`; then they are aborted (streams get
  // an error event and [DONE]). Joins all threads of the server, stops the engine and lets go of it. Idempotent. True
  // when nothing was cut short.
  bool shutdown(std::chrono::milliseconds limit);

  struct State;  // server/state.h, for the routes

 private:
  explicit Server(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace hadal
