// hadal serve: listens at once, loads, prints what it found, serves until SIGTERM or SIGINT.
#include <fmt/ranges.h>
#include <pthread.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <thread>

#include "base/log.h"
#include "base/progress.h"
#include "base/topology.h"
#include "cli/command.h"
#include "cli/open_model.h"
#include "cli/peer_flags.h"
#include "cli/serve_options.h"
#include "cli/serving_certificate.h"
#include "cli/version.h"
#include "engine/engine.h"
#include "server/server.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

ServeOptions g_options;  // filled by CLI11 before run()
const CLI::App* g_command = nullptr;

// Lines a person reads at start-up: plain on stdout, or log lines when logs are JSON.
template <typename... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  const std::string line = fmt::format(format, std::forward<Args>(args)...);
  if (g_options.log_format == "json") {
    log_info("{}", line);
  } else {
    std::fprintf(stdout, "%s\n", line.c_str());
    std::fflush(stdout);
  }
}

void configure_logs(const ServeOptions& options) {
  const std::pair<const char*, LogLevel> levels[] = {{"debug", LogLevel::kDebug},
                                                     {"info", LogLevel::kInfo},
                                                     {"warning", LogLevel::kWarning},
                                                     {"error", LogLevel::kError}};
  for (const auto& [name, level] : levels) {
    if (options.log_level == name) set_log_level(level);
  }
  set_log_format(options.log_format == "json" ? LogFormat::kJson : LogFormat::kHuman);
}

// Takes SIGTERM and SIGINT for the whole process: the first one asks for a graceful end (while loading: ends at once),
// a second one ends at once.
class StopSignals {
 public:
  // Before any other thread starts, so that all of them inherit the blocked mask.
  StopSignals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    std::thread([this] { watch(); }).detach();
  }
  void set_ready() { ready_ = true; }
  void wait() { asked_.get_future().wait(); }

 private:
  void watch() {
    int signal_number = 0;
    sigwait(&signals_, &signal_number);
    if (!ready_) std::_Exit(128 + signal_number);
    asked_.set_value();
    sigwait(&signals_, &signal_number);
    std::_Exit(128 + signal_number);
  }

  sigset_t signals_;
  std::atomic<bool> ready_{false};
  std::promise<void> asked_;
};

SamplingDefaults sampling_defaults(const ServeOptions& options, const GenerationConfig& generation) {
  SamplingDefaults defaults;
  if (options.generation_config != "auto") return defaults;
  if (generation.do_sample == false) defaults.temperature = 0.0F;
  if (generation.temperature) defaults.temperature = static_cast<float>(*generation.temperature);
  if (generation.top_p) defaults.top_p = static_cast<float>(*generation.top_p);
  if (generation.top_k) defaults.top_k = static_cast<int32_t>(*generation.top_k);
  if (generation.repetition_penalty) {
    defaults.repetition_penalty = static_cast<float>(*generation.repetition_penalty);
  }
  defaults.max_new_tokens = generation.max_new_tokens;
  return defaults;
}

ServerOptions server_options(const ServeOptions& options) {
  ServerOptions server;
  server.host = options.host;
  server.port = static_cast<uint16_t>(options.port);
  server.served_model_names =
      options.served_model_names.empty() ? std::vector<std::string>{options.model} : options.served_model_names;
  server.version = kVersion;
  server.api_keys = options.api_keys;
  server.reasoning_parser = options.reasoning_parser;
  return server;
}

void say_what_was_found(const ServeOptions& options, const OpenedModel& opened) {
  const ModelConfig& config = opened.config;
  say("model      {} ({} layers, hidden {}, {} heads, {} experts top-{}, vocabulary {})", options.model,
      config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.router.n_routed_experts,
      config.router.num_experts_per_tok, config.vocab_size);
  const auto name_of = [](DType dtype) {
    return dtype == DType::kF8E4M3 ? "FP8 E4M3" : dtype == DType::kF32 ? "FP32" : "BF16";
  };
  say("numerics   {}: {}, KV cache {}, sums FP32", opened.numerics.key, opened.numerics.summary,
      name_of(opened.numerics.kv_dtype));
  for (const std::string& warning : opened.numerics.warnings) log_warning("{}", warning);
  if (!config.defaulted.empty()) say("defaulted  {}", fmt::join(config.defaulted, ", "));
  say("memory     {}", describe_memory(opened.memory_request, opened.memory));
  say("capacity   {:.2f}x requests of {} tokens; {} sequences and {} tokens a step", opened.memory.max_concurrency,
      opened.max_model_len, options.max_num_seqs, options.max_num_batched_tokens);
  say("compute    {} threads, {} NUMA node(s), {}", opened.num_threads, detect_topology().nodes.size(),
      opened.numerics.kernels->name);
  say("template   {}; reasoning parser {}", opened.folder.chat_template ? "found" : "none: chat requests are refused",
      options.reasoning_parser);
}

void say_ready(const ServeOptions& options, uint16_t port, bool has_chat_template, Clock::time_point started) {
  const bool any_address = options.host == "0.0.0.0" || options.host == "::" || options.host.empty();
  const std::string url = fmt::format("http://{}:{}", any_address ? "127.0.0.1" : options.host, port);
  say("ready      {} after {:.2f} s{}. Try:", url, std::chrono::duration<double>(Clock::now() - started).count(),
      any_address ? ", on every address of this machine" : "");
  const std::string key = options.api_keys.empty() ? "" : "-H 'Authorization: Bearer KEY' ";
  if (has_chat_template) {
    say("curl {}/v1/chat/completions {}-H 'Content-Type: application/json' -d '{{\"messages\": [{{\"role\": \"user\", "
        "\"content\": \"List 3 countries and their capitals.\"}}], \"max_tokens\": 128, \"temperature\": 0}}'",
        url, key);
  } else {
    say("curl {}/v1/completions {}-H 'Content-Type: application/json' -d '{{\"prompt\": \"The capital of France is\", "
        "\"max_tokens\": 16}}'",
        url, key);
  }
}

Expected<std::unique_ptr<ForwardModel>> load_model(const ServeOptions& options, const OpenedModel& opened,
                                                   Server& server) {
  ProgressBar bar("loading", "B");
  const auto progress = [&](uint64_t done_bytes, uint64_t total_bytes) {
    bar.update(done_bytes, total_bytes);
    server.set_loading_progress(
        static_cast<double>(done_bytes) / static_cast<double>(std::max<uint64_t>(1, total_bytes)), "reading weights");
  };
  return load_opened_model(options, opened, progress);
}

// Loads everything and attaches it to the listening server. Returns whether chat requests will be served.
Expected<bool> start_serving(const ServeOptions& options, Server& server) {
  HADAL_ASSIGN_OR_RETURN(OpenedModel opened, open_model(options));
  say_what_was_found(options, opened);
  std::optional<Certificate> certificate = look_up_certificate(options.model, opened.numerics);
  if (certificate) say("certified  {}", certificate->summary());
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<ForwardModel> model, load_model(options, opened, server));
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine,
                         make_engine(std::move(model), engine_options(options, opened), server.step_observer()));
  const bool has_chat_template = opened.folder.chat_template.has_value();
  ServingContext context;
  context.engine = std::move(engine);
  context.facts.root = options.model;
  context.facts.max_model_len = opened.max_model_len;
  context.facts.eos_token_ids = opened.folder.eos_token_ids;
  context.facts.defaults = sampling_defaults(options, opened.folder.generation);
  context.facts.cache_dtype = options.kv_cache_dtype;
  context.facts.block_size = options.block_size;
  context.facts.num_blocks = opened.memory.num_blocks;
  context.facts.enable_prefix_caching = options.enable_prefix_caching;
  if (certificate) context.facts.certificate = std::move(certificate->document);
  context.tokenizer = std::move(opened.folder.tokenizer);
  context.chat_template = std::move(opened.folder.chat_template);
  server.attach(std::move(context));
  return has_chat_template;
}

int fail(const Error& error) {
  log_error("{}", error.message);
  return error.code == ErrorCode::kInvalidArgument ? kExitBadUsage : kExitFailed;
}

int run_serve() {
  const auto started = Clock::now();
  const ServeOptions& options = g_options;
  configure_logs(options);
  warn_about_peer_flags(*g_command);
  if (const Status checked = check_serve_options(options); !checked) return fail(checked.error());
  StopSignals& signals = *new StopSignals;  // its thread lives as long as the process

  auto server = Server::start(server_options(options));
  if (!server) return fail(server.error());
  const auto has_chat_template = start_serving(options, **server);
  if (!has_chat_template) return fail(has_chat_template.error());
  signals.set_ready();
  say_ready(options, (*server)->port(), *has_chat_template, started);
  signals.wait();

  log_info("stopping: running requests get {} s", options.shutdown_timeout_s);
  const auto limit =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::duration<double>(options.shutdown_timeout_s));
  const bool all_answered = (*server)->shutdown(limit);
  log_info("stopped{}", all_answered ? "" : ": some requests were cut short");
  return kExitOk;
}

void add_serve_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("serve", "Serve a model folder over the OpenAI API");
  add_serve_options(*command, g_options);
  command->footer(
      "Examples:\n  hadal serve --model models/nano --host 127.0.0.1\n"
      "  hadal serve --model /data/DeepSeek-R1 --max-model-len 32768 --max-num-seqs 16 --api-key KEY\n"
      "Flags of vLLM that have no meaning on CPUs are accepted with a warning.");
  g_command = command;
}

}  // namespace

const Command kServeCommand = {add_serve_command, "serve", run_serve};

}  // namespace hadal
