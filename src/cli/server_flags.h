// Flags of the HTTP side of `hadal serve`: listening, access, answers, logs, limits. vLLM's names where it has the
// thing.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "server/server.h"

namespace hadal {

class OptionRegistry;
struct ServeOptions;

struct ServerFlags {
  // Most flags are fields of it; its other fields are made of the members below by make_server_options().
  ServerOptions server;

  int port = 8000;
  std::vector<std::string> served_model_names;  // empty: the --model string, verbatim
  std::string api_key_file;
  int ssl_cert_reqs = 0;                     // Python's: 0 none, 1 optional, 2 required
  std::string default_chat_template_kwargs;  // JSON object; empty: none
  std::string logprobs_mode = "raw_logprobs";
  std::string http_log_level = "info";
  std::vector<std::string> quiet_endpoints;
  bool disable_access_log = false;
  bool disable_log_requests = false;
  bool disable_log_stats = false;
  bool disable_api_docs = false;
  bool disable_web_chat = false;
  std::chrono::milliseconds shutdown_timeout{30'000};
};

void add_server_flags(OptionRegistry& registry, ServerFlags& flags);

// All but `version` and `explained_config`. Reads the key file and checks what belongs together (certificate and key,
// JSON, paths). Errors: kInvalidArgument naming the flag.
Expected<ServerOptions> make_server_options(const ServeOptions& options, const ServerFlags& flags);

// "http://127.0.0.1:8000", "https://..", or "unix:/run/hadal.sock": what a client on this machine uses.
std::string local_url(const ServerOptions& options, uint16_t port);

}  // namespace hadal
