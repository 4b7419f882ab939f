// hadal bench live: where a running server's time goes, from two scrapes of its metrics.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <optional>
#include <string>
#include <thread>

#include "bench/live.h"
#include "cli/bench_common.h"
#include "cli/command.h"
#include "net/http_client.h"

namespace hadal {
namespace {

struct BenchLiveOptions {
  std::string url = "http://127.0.0.1:8000";
  double seconds = 10;
  std::string ceilings, multiply_format = "bf16";
  std::string json;
  std::string api_key;
  std::string ca_file;
  bool insecure = false;
};
BenchLiveOptions g_options;

Expected<MetricsSample> scrape(const BenchLiveOptions& options) {
  const std::string url = url_below(options.url, "/metrics");
  HttpClient client({.ca_file = options.ca_file, .verify_tls = !options.insecure});
  HADAL_ASSIGN_OR_RETURN(const HttpReply reply, client.call({.url = url, .api_key = options.api_key}));
  if (reply.status != 200) return make_error(ErrorCode::kUnavailable, "{}: {} {}", url, reply.status, reply.reason);
  return MetricsSample::parse(reply.body);
}

Expected<std::optional<StepCeiling>> read_ceiling(const BenchLiveOptions& options) {
  if (options.ceilings.empty()) return std::optional<StepCeiling>();
  HADAL_ASSIGN_OR_RETURN(const Json json, read_json_file(options.ceilings));
  auto ceilings = ceilings_from_json(json);
  if (!ceilings) return forward_error(std::move(ceilings), options.ceilings);
  return std::optional<StepCeiling>(
      StepCeiling{.read_bytes_per_s = ceilings->read_bytes_per_s,
                  .multiply_flops = options.multiply_format == "bf16" ? ceilings->bf16_flops : ceilings->fp32_flops,
                  .barrier_s = ceilings->barrier_s});
}

Status watch(const BenchLiveOptions& options) {
  using Clock = std::chrono::steady_clock;
  if (!(options.seconds > 0 && options.seconds <= 86'400)) {
    return make_error(ErrorCode::kInvalidArgument, "--seconds {}: must be above 0 and at most 86400", options.seconds);
  }
  HADAL_ASSIGN_OR_RETURN(const std::optional<StepCeiling> ceiling, read_ceiling(options));
  HADAL_ASSIGN_OR_RETURN(const MetricsSample first, scrape(options));
  const auto begin = Clock::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
  HADAL_ASSIGN_OR_RETURN(const MetricsSample second, scrape(options));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  HADAL_ASSIGN_OR_RETURN(const LiveReport report,
                         make_live_report(first, second, seconds, ceiling ? ceiling->barrier_s : 0));
  fmt::print("{}", live_text(report, ceiling));
  return write_json_file(options.json, live_json(report, ceiling));
}

int run_bench_live() {
  const Status watched = watch(g_options);
  return watched ? kExitOk : report_bench_error(watched.error());
}

void add_bench_live(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand("live", "Where the time of a running server goes");
  command->add_option("--url", g_options.url, "Of the server; also https:// or unix:/SOCKET")->capture_default_str();
  command->add_option("--api-key", g_options.api_key, "Bearer key")->envname("OPENAI_API_KEY");
  command->add_option("--ca-file", g_options.ca_file, "Certificates (PEM) to trust instead of the system's");
  command->add_flag("--insecure", g_options.insecure, "Take any certificate");
  command->add_option("--seconds", g_options.seconds, "How long to watch")->capture_default_str();
  command->add_option("--ceilings", g_options.ceilings, "Result of hadal bench ceilings --json: adds shares of it");
  command->add_option("--multiply-format", g_options.multiply_format, "What the server's kernels multiply in")
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
  command->add_option("--json", g_options.json, "Write the results to this file");
  command->footer("Example:\n  hadal bench live --url http://127.0.0.1:8000 --seconds 10");
}

}  // namespace

const Command kBenchLiveCommand = {add_bench_live, "live", run_bench_live};

}  // namespace hadal
