// hadal serve: listens at once, loads, prints what it found, serves until SIGTERM or SIGINT.
#include <pthread.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <thread>

#include "base/log.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/config_registry.h"
#include "cli/config_sources.h"
#include "cli/launch_environment.h"
#include "cli/open_model.h"
#include "cli/peer_environment.h"
#include "cli/peer_flags.h"
#include "cli/rank_serving.h"
#include "cli/sampling_defaults.h"
#include "cli/serve_lines.h"
#include "cli/serve_options.h"
#include "cli/server_flags.h"
#include "cli/service_notify.h"
#include "cli/serving_certificate.h"
#include "cli/serving_folder.h"
#include "cli/version.h"
#include "engine/engine.h"
#include "server/server.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLoadingExtension{300};  // what systemd allows after each sign of progress

// Filled by CLI11 before run(), and by the other sources in it.
struct ServeCommandLine {
  ServeOptions model;
  ServerFlags server;
  std::string config_file;
  bool explain_config = false;
  bool json = false;
  std::unique_ptr<OptionRegistry> registry;
};
ServeCommandLine g_options;

void configure_logs(const ServeOptions& options) {
  const std::pair<const char*, LogLevel> levels[] = {{"debug", LogLevel::kDebug},
                                                     {"info", LogLevel::kInfo},
                                                     {"warning", LogLevel::kWarning},
                                                     {"error", LogLevel::kError},
                                                     {"critical", LogLevel::kError}};
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
  // From any thread: as a first signal, once the program serves.
  void ask() {
    if (!was_asked_.exchange(true)) asked_.set_value();
  }

 private:
  void watch() {
    int signal_number = 0;
    sigwait(&signals_, &signal_number);
    if (!ready_) std::_Exit(128 + signal_number);
    ask();
    sigwait(&signals_, &signal_number);
    std::_Exit(128 + signal_number);
  }

  sigset_t signals_;
  std::atomic<bool> ready_{false};
  std::atomic<bool> was_asked_{false};
  std::promise<void> asked_;
};

Expected<std::unique_ptr<ForwardModel>> load_model(const ServeOptions& options, const OpenedModel& opened,
                                                   Server& server, ServiceNotifier& notifier) {
  ProgressBar bar("loading", "B");
  const auto progress = [&](uint64_t done_bytes, uint64_t total_bytes) {
    bar.update(done_bytes, total_bytes);
    const double fraction = static_cast<double>(done_bytes) / static_cast<double>(std::max<uint64_t>(1, total_bytes));
    server.set_loading_progress(fraction, "reading weights");
    notifier.report_loading(fraction, kLoadingExtension);
  };
  return load_opened_model(options, opened, progress);
}

// Loads everything and attaches it to the listening server. Returns whether chat requests will be served.
Expected<bool> start_serving(const ServeOptions& given, Server& server, ServiceNotifier& notifier,
                             const std::function<void(const std::string&)>& fatal) {
  const ServeLines lines(given.log_format == "json");
  HADAL_ASSIGN_OR_RETURN(const ServeOptions options, place_rank_zero(given));
  HADAL_ASSIGN_OR_RETURN(OpenedModel opened, open_model(options));
  HADAL_ASSIGN_OR_RETURN(const SamplingDefaults defaults,
                         choose_sampling_defaults(options.generation_config, options.override_generation_config,
                                                  opened.folder.generation));
  lines.found(options, opened);
  lines.sampling(options, defaults);
  std::optional<Certificate> certificate = look_up_certificate(options.model, opened.numerics);
  if (certificate) lines.certified(certificate->summary());
  HADAL_ASSIGN_OR_RETURN(RankServing ranks, start_ranks(options, opened));
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<ForwardModel> model, load_model(options, opened, server, notifier));
  HADAL_ASSIGN_OR_RETURN(model, ranks.join(std::move(model), fatal));
  for (const std::string& line : ranks.table(opened.num_threads)) lines.rank(line);
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine,
                         make_engine(std::move(model), engine_options(options, opened), server.step_observer()));
  const bool has_chat_template = opened.folder.chat_template.has_value();
  ServingContext context;
  context.engine = std::move(engine);
  context.facts = model_facts(options, opened, defaults);
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

// Every source of options, then whether they go together.
Expected<ServerOptions> read_options(ServeCommandLine& command_line) {
  std::vector<std::string> warnings;
  HADAL_RETURN_IF_ERROR(apply_sources(*command_line.registry, current_environment(), warnings));
  configure_logs(command_line.model);
  for (const std::string& warning : warnings) log_warning("{}", warning);
  HADAL_RETURN_IF_ERROR(adopt_launcher(*command_line.registry, current_environment(), command_line.model.ranks));
  HADAL_ASSIGN_OR_RETURN(warnings, check_peer_flags(*command_line.registry, command_line.model.model));
  for (const std::string& warning : warnings) log_warning("{}", warning);
  if (!command_line.explain_config) HADAL_RETURN_IF_ERROR(check_serve_options(command_line.model));
  HADAL_ASSIGN_OR_RETURN(ServerOptions server, make_server_options(command_line.model, command_line.server));
  server.version = kVersion;
  server.explained_config = explain_config(*command_line.registry);
  return server;
}

void print_explained(const ServeCommandLine& command_line) {
  const std::string text = command_line.json ? explain_config(*command_line.registry).dump(2) + "\n"
                                             : explain_config_table(*command_line.registry);
  std::fputs(text.c_str(), stdout);
}

// Serves until a signal.
int serve_until_asked(const ServerFlags& flags, Server& server, ServiceNotifier& notifier, StopSignals& signals) {
  std::atomic<bool> stopping{false};
  notifier.send("READY=1\nSTATUS=serving");
  if (const auto period = watchdog_period(std::getenv("WATCHDOG_USEC"), std::getenv("WATCHDOG_PID"))) {
    notifier.start_watchdog(*period, [&] { return stopping.load() || server.healthy(); });
  }
  signals.wait();

  stopping = true;
  const double seconds = std::chrono::duration<double>(flags.shutdown_timeout).count();
  notifier.send(fmt::format("STOPPING=1\nSTATUS=running requests get {} s", seconds));
  log_info("stopping: running requests get {} s", seconds);
  const bool all_answered = server.shutdown(flags.shutdown_timeout);
  notifier.stop_watchdog();
  log_info("stopped{}", all_answered ? "" : ": some requests were cut short");
  return kExitOk;
}

// Nothing: this process has rank 0 and serves.
std::optional<int> run_other_ranks(const ServeOptions& options) {
  const auto contract = other_ranks_contract(options.ranks);
  if (!contract) return fail(contract.error());
  if (!*contract) return std::nullopt;
  const auto code = run_other_ranks(options, **contract);
  return code ? *code : fail(code.error());
}

int run_serve() {
  const auto started = Clock::now();
  const auto server_options = read_options(g_options);
  if (!server_options) return fail(server_options.error());
  if (g_options.explain_config) {
    print_explained(g_options);
    return kExitOk;
  }
  const ServeOptions& options = g_options.model;
  if (const auto code = run_other_ranks(options)) return *code;
  if (const Status folder = check_is_model_folder(options.model); !folder) return fail(folder.error());
  log_info("non-default args: {}", dump_json(non_default_values(*g_options.registry)));
  StopSignals& signals = *new StopSignals;  // its thread lives as long as the process
  const char* notify_socket = std::getenv("NOTIFY_SOCKET");
  ServiceNotifier notifier(notify_socket == nullptr ? "" : notify_socket);

  auto server = Server::start(*server_options);
  if (!server) return fail(server.error());
  std::atomic<bool> failed{false};
  const auto has_chat_template = start_serving(options, **server, notifier, [&](const std::string& why) {
    log_error("{}", why);
    failed = true;
    signals.ask();
  });
  if (!has_chat_template) return fail(has_chat_template.error());
  signals.set_ready();
  ServeLines(options.log_format == "json")
      .ready(*server_options, (*server)->port(), *has_chat_template,
             std::chrono::duration<double>(Clock::now() - started).count());
  log_peer_ready_lines(*server_options, (*server)->port());
  const int code = serve_until_asked(g_options.server, **server, notifier, signals);
  return failed ? kExitFailed : code;
}

void add_serve_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("serve", "Serve a model folder over the OpenAI API");
  g_options.registry = std::make_unique<OptionRegistry>(*command);
  OptionRegistry& registry = *g_options.registry;
  add_serve_options(registry, g_options.model);
  add_server_flags(registry, g_options.server);
  add_peer_flags(registry);
  add_peer_environment(registry);
  registry.begin_group("Configuration");
  registry.add("--config", g_options.config_file,
               "YAML file with these options by name; the environment (HADAL_PORT=8000) and flags win over it");
  CLI::Option* explain = command->add_flag("--explain-config", g_options.explain_config,
                                           "Print every option with its value and origin, and end");
  explain->group("Configuration");
  command->add_flag("--json", g_options.json, "--explain-config as JSON")->needs(explain)->group("Configuration");
  command->footer(
      "Examples:\n  hadal serve --model models/nano --host 127.0.0.1\n"
      "  hadal serve --model /data/DeepSeek-R1 --max-model-len 32768 --max-num-seqs 16 --api-key KEY\n"
      "Flags of vLLM that have no meaning on CPUs are accepted with a warning. docs/serving.md explains all options.");
}

}  // namespace

const Command kServeCommand = {add_serve_command, "serve", run_serve};

}  // namespace hadal
