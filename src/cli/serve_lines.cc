#include "cli/serve_lines.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <cstdio>

#include "base/log.h"
#include "base/topology.h"
#include "cli/sampling_defaults.h"
#include "cli/server_flags.h"

namespace hadal {
namespace {

const char* name_of(DType dtype) {
  return dtype == DType::kF8E4M3 ? "FP8 E4M3" : dtype == DType::kF32 ? "FP32" : "BF16";
}

bool listens_everywhere(const ServerOptions& server) {
  return server.unix_socket.empty() && (server.host == "0.0.0.0" || server.host == "::" || server.host.empty());
}

// What curl needs besides the path: "http://127.0.0.1:8000", "--unix-socket /run/x http://localhost".
std::string curl_target(const ServerOptions& server, uint16_t port) {
  if (!server.unix_socket.empty()) {
    return fmt::format("--unix-socket {} {}://localhost", server.unix_socket,
                       server.tls.certificate_file.empty() ? "http" : "https");
  }
  return local_url(server, port);
}

}  // namespace

void ServeLines::say(const std::string& line) const {
  if (as_log_) return log_info("{}", line);
  std::fprintf(stdout, "%s\n", line.c_str());
  std::fflush(stdout);
}

void ServeLines::found(const ServeOptions& options, const OpenedModel& opened) const {
  const ModelConfig& config = opened.config;
  say(fmt::format("model      {} ({} layers, hidden {}, {} heads, {} experts top-{}, vocabulary {})", options.model,
                  config.num_hidden_layers, config.hidden_size, config.num_attention_heads,
                  config.router.n_routed_experts, config.router.num_experts_per_tok, config.vocab_size));
  say(fmt::format("numerics   {}: {}, KV cache {}, sums FP32", opened.numerics.key, opened.numerics.summary,
                  name_of(opened.numerics.kv_dtype)));
  for (const std::string& warning : opened.numerics.warnings) log_warning("{}", warning);
  if (!config.defaulted.empty()) say(fmt::format("defaulted  {}", fmt::join(config.defaulted, ", ")));
  say(fmt::format("memory     {}", describe_memory(opened.memory_request, opened.memory)));
  say(fmt::format("capacity   {:.2f}x requests of {} tokens; {} sequences and {} tokens a step",
                  opened.memory.max_concurrency, opened.max_model_len, options.max_num_seqs,
                  options.max_num_batched_tokens));
  say(fmt::format("compute    {} threads, {} NUMA node(s), {}", opened.num_threads, detect_topology().nodes.size(),
                  opened.numerics.kernels->name));
  say(fmt::format("template   {}; reasoning parser {}",
                  opened.folder.chat_template ? "found" : "none: chat requests are refused", options.reasoning_parser));
}

void ServeLines::sampling(const ServeOptions& options, const SamplingDefaults& defaults) const {
  const std::string source = options.generation_config == "auto"   ? "generation_config.json of the model"
                             : options.generation_config == "vllm" ? "neutral values"
                                                                   : options.generation_config;
  say(fmt::format("sampling   {} unless a request says otherwise ({}{})",
                  describe(defaults) == "none" ? "neutral" : describe(defaults), source,
                  options.override_generation_config.empty() ? "" : " and --override-generation-config"));
}

void ServeLines::certified(const std::string& summary) const { say(fmt::format("certified  {}", summary)); }

void ServeLines::ready(const ServerOptions& server, uint16_t port, bool has_chat_template, double seconds) const {
  say(fmt::format("ready      {} after {:.2f} s{}. Try:", local_url(server, port), seconds,
                  listens_everywhere(server) ? ", on every address of this machine" : ""));
  const std::string key = server.api_keys.empty() ? "" : "-H 'Authorization: Bearer KEY' ";
  if (has_chat_template) {
    say(fmt::format(
        "curl {}/v1/chat/completions {}-H 'Content-Type: application/json' -d '{{\"messages\": [{{\"role\": "
        "\"user\", \"content\": \"List 3 countries and their capitals.\"}}], \"max_tokens\": 128, "
        "\"temperature\": 0}}'",
        curl_target(server, port), key));
  } else {
    say(
        fmt::format("curl {}/v1/completions {}-H 'Content-Type: application/json' -d '{{\"prompt\": \"The capital of "
                    "France is\", \"max_tokens\": 16}}'",
                    curl_target(server, port), key));
  }
}

void log_peer_ready_lines(const ServerOptions& server, uint16_t port) {
  const std::string place =
      server.unix_socket.empty()
          ? fmt::format("{}://{}:{}", server.tls.certificate_file.empty() ? "http" : "https", server.host, port)
          : "unix socket " + server.unix_socket;
  log_info("Starting vLLM API server on {}", place);
  log_info("Started server process [{}]", ::getpid());
  log_info("Waiting for application startup.");
  log_info("Application startup complete.");
  log_info("Uvicorn running on {} (Press CTRL+C to quit)", place);
}

}  // namespace hadal
