#include "cli/server_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>

#include "base/file.h"
#include "cli/config_registry.h"
#include "cli/serve_options.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxKeyFileBytes = 1 << 20;

void add_listen_flags(OptionRegistry& registry, ServerFlags& flags) {
  ServerOptions& server = flags.server;
  registry.begin_group("Listening");
  registry.add("--host", server.host, "Address to listen on")->capture_default_str();
  registry.add("--port", flags.port, "Port to listen on; 0 takes a free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  registry.add("--uds", server.unix_socket, "Path of a unix socket to listen on, in place of host and port");
  registry.add("--root-path", server.root_path, "Prefix that a proxy leaves in front of every path, as /llm");
  registry.add("--ssl-certfile", server.tls.certificate_file, "PEM file with the certificate chain: serves HTTPS");
  registry.add("--ssl-keyfile", server.tls.key_file, "PEM file with its key [the certificate's file]");
  registry.add("--ssl-ca-certs", server.tls.client_ca_file, "PEM file that clients' certificates are checked by");
  registry.add("--ssl-cert-reqs", flags.ssl_cert_reqs, "Clients' certificates: 0 none, 1 if shown, 2 required")
      ->check(CLI::Range(0, 2))
      ->capture_default_str();
  registry.add("--ssl-ciphers", server.tls.ciphers, "Ciphers for TLS up to 1.2, as OpenSSL lists them");
}

void add_access_flags(OptionRegistry& registry, ServerFlags& flags) {
  ServerOptions& server = flags.server;
  registry.begin_group("Access");
  registry.add("--api-key", server.api_keys, "Keys clients must send; several are allowed");
  registry.hide_value();
  registry.add("--api-key-file", flags.api_key_file, "File with more keys, one a line; # begins a comment");
  registry.add("--metrics-need-key", server.metrics_need_key, "/metrics needs a key too");
  registry.add("--allowed-origins", server.cors.allowed_origins, "CORS: origins, as words or a JSON list [*]");
  registry.add("--allowed-methods", server.cors.allowed_methods, "CORS: methods [*]");
  registry.add("--allowed-headers", server.cors.allowed_headers, "CORS: headers [*]");
  registry.add("--allow-credentials", server.cors.allow_credentials, "CORS: cookies and keys of browsers");
}

void add_answer_flags(OptionRegistry& registry, ServerFlags& flags) {
  ServerOptions& server = flags.server;
  registry.begin_group("Answers");
  registry.add("--served-model-name", flags.served_model_names,
               "Names clients may use; the first is reported [the --model string]");
  registry.add("--response-role", server.response_role, "Role of chat answers")->capture_default_str();
  registry.add("--enable-auto-tool-choice,!--no-enable-auto-tool-choice", server.enable_auto_tool_choice,
               "The model may call tools when the request leaves it the choice [on]");
  registry.add("--tool-call-parser", server.tool_call_parser, "How tool calls are read")
      ->check(CLI::IsMember({"auto", "none", "deepseek_v3", "deepseek_v31", "kimi_k2"}))
      ->capture_default_str();
  registry.add("--exclude-tools-when-tool-choice-none", server.exclude_tools_when_tool_choice_none,
               "The prompt does not show tools that the request forbids to call");
  registry.add("--reasoning-field", server.reasoning_field, "Field of the model's thoughts")
      ->check(CLI::IsMember({"both", "reasoning", "reasoning_content"}))
      ->capture_default_str();
  registry.add("--default-chat-template-kwargs", flags.default_chat_template_kwargs,
               "JSON object for the chat template; a request's own keys win: '{\"thinking\": true}'");
  registry.add("--trust-request-chat-template", server.trust_request_chat_template,
               "Requests may bring a chat template of their own");
  registry.add("--max-logprobs", server.max_logprobs, "Most log-probabilities per token; -1: the whole vocabulary")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 40).description(""))
      ->capture_default_str();
  registry.add("--logprobs-mode", flags.logprobs_mode, "Log-probabilities before or after penalties and temperature")
      ->check(CLI::IsMember({"raw_logprobs", "processed_logprobs"}))
      ->capture_default_str();
  registry.add("--return-tokens-as-token-ids", server.return_tokens_as_token_ids, "Tokens appear as token_id:N");
  registry.add("--enable-force-include-usage", server.force_include_usage, "Every stream reports its usage");
  registry.add("--clamp-max-tokens", server.clamp_max_tokens,
               "max_tokens beyond the context is cut to it instead of refused");
}

void add_page_flags(OptionRegistry& registry, ServerFlags& flags) {
  registry.begin_group("Pages");
  registry.add("--disable-fastapi-docs", flags.disable_api_docs, "No /openapi.json and /docs");
  registry.add("--disable-web-chat", flags.disable_web_chat, "No chat page at /");
  registry.add("--dev-mode", flags.server.dev_mode, "Routes that show the inside, as /server_info");
}

void add_log_flags(OptionRegistry& registry, ServerFlags& flags) {
  ServerOptions& server = flags.server;
  registry.begin_group("Logs");
  registry.add("--uvicorn-log-level", flags.http_log_level, "Above info: no access lines")
      ->transform(CLI::IsMember({"trace", "debug", "info", "warning", "error", "critical"}, CLI::ignore_case))
      ->capture_default_str();
  registry.add("--disable-uvicorn-access-log", flags.disable_access_log, "No line per HTTP request");
  registry.add("--disable-access-log-for-endpoints", flags.quiet_endpoints,
               "Paths without access lines, separated by commas: /health,/metrics");
  registry.add("--enable-log-requests", server.log_requests, "A line with the parameters of each request");
  registry.add("--disable-log-requests", flags.disable_log_requests, "No such line, whatever the file says");
  registry.add("--max-log-len", server.max_log_len, "Characters of the prompt in that line")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30).description(""))
      ->capture_default_str();
  registry.add("--disable-log-stats", flags.disable_log_stats, "No engine metrics and no line with rates");
}

void add_size(OptionRegistry& registry, const char* names, size_t& bytes, const char* help) {
  registry.add(names, bytes, help)->transform(CLI::AsSizeValue(false).description(""))->capture_default_str();
}

void add_count(OptionRegistry& registry, const char* names, size_t& count, const char* help) {
  registry.add(names, count, help)
      ->check(CLI::Range(size_t{1}, size_t{1} << 40).description(""))
      ->capture_default_str();
}

void add_limit_flags(OptionRegistry& registry, ServerFlags& flags) {
  HttpLimits& http = flags.server.http;
  registry.begin_group("Limits");
  add_size(registry, "--max-body-bytes", http.max_body_bytes, "Of a request; 64MiB is understood");
  add_size(registry, "--max-total-body-bytes", http.max_total_body_bytes, "Of all requests at once");
  add_size(registry, "--max-header-bytes,--h11-max-incomplete-event-size", http.max_header_bytes, "Of a request");
  add_count(registry, "--max-headers,--h11-max-header-count", http.max_headers, "Header lines of a request");
  add_size(registry, "--max-unsent-bytes", http.max_unsent_bytes, "Of an answer; a slower reader is cut off");
  add_count(registry, "--max-connections", http.max_connections, "Open connections");
  registry.add_seconds("--keep-alive-timeout", http.idle_timeout, "Seconds a connection may idle between requests");
  registry.add_seconds("--header-timeout", http.header_timeout, "Seconds for the head of a request");
  registry.add_seconds("--body-timeout", http.body_timeout, "Seconds for its body");
  registry.add_seconds("--write-timeout", http.write_timeout, "Seconds a client may take nothing of its answer");
  registry.add_seconds("--request-timeout", flags.server.request_timeout, "Seconds for a whole answer; 0: no limit");
  registry.add_seconds("--stall-limit", flags.server.stall_limit, "Seconds without a step until /health says no");
  registry.add_seconds("--sse-heartbeat", flags.server.sse_heartbeat,
                       "Seconds between comment lines in silent streams; 0: none");
  registry.add_seconds("--shutdown-timeout", flags.shutdown_timeout, "Seconds that running requests get after SIGTERM");
  registry.add("--io-threads", flags.server.num_io_threads, "Threads for sockets")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  registry.add("--worker-threads", flags.server.num_worker_threads, "Threads that parse and tokenise requests")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
}

// A word of a JSON list is quoted: ["GET", "POST"] arrives as "GET" and "POST" with their quotes.
std::vector<std::string> without_quotes(const std::vector<std::string>& words) {
  std::vector<std::string> plain;
  for (std::string word : words) {
    word.erase(0, word.find_first_not_of(' '));
    word.erase(word.find_last_not_of(' ') + 1);
    if (word.size() >= 2 && word.front() == '"' && word.back() == '"') word = word.substr(1, word.size() - 2);
    if (!word.empty()) plain.push_back(word);
  }
  return plain;
}

std::vector<std::string> split_at_commas(const std::vector<std::string>& words) {
  std::vector<std::string> parts;
  for (const std::string& word : words) {
    for (size_t begin = 0; begin <= word.size();) {
      const size_t end = std::min(word.find(',', begin), word.size());
      parts.push_back(word.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return without_quotes(parts);
}

Status read_key_file(const std::string& path, std::vector<std::string>& keys) {
  auto text = read_file(path, kMaxKeyFileBytes);
  if (!text) return make_error(ErrorCode::kInvalidArgument, "--api-key-file: {}", text.error().message);
  const size_t num_before = keys.size();
  for (size_t begin = 0; begin < text->size();) {
    const size_t end = std::min(text->find('\n', begin), text->size());
    std::string line = text->substr(begin, end - begin);
    line.erase(line.find_last_not_of(" \t\r") + 1);
    line.erase(0, line.find_first_not_of(" \t"));
    if (!line.empty() && line.front() != '#') keys.push_back(line);
    begin = end + 1;
  }
  if (keys.size() > num_before) return {};
  return make_error(ErrorCode::kInvalidArgument, "--api-key-file {}: no key in it, so nobody could be let in", path);
}

Status check_keys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    if (key.empty()) {
      return make_error(ErrorCode::kInvalidArgument,
                        "--api-key: a key is empty. Leave the flag out for a server "
                        "that is open to all.");
    }
  }
  return {};
}

Status check_tls(const ServerFlags& flags, TlsOptions& tls) {
  if (tls.certificate_file.empty()) {
    for (const auto& [flag, value] :
         {std::pair("--ssl-keyfile", &tls.key_file), std::pair("--ssl-ca-certs", &tls.client_ca_file),
          std::pair("--ssl-ciphers", &tls.ciphers)}) {
      if (!value->empty()) return make_error(ErrorCode::kInvalidArgument, "{} goes with --ssl-certfile", flag);
    }
    if (flags.ssl_cert_reqs == 0) return {};
    return make_error(ErrorCode::kInvalidArgument, "--ssl-cert-reqs goes with --ssl-certfile");
  }
  if (flags.ssl_cert_reqs > 0 && tls.client_ca_file.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--ssl-cert-reqs {}: clients' certificates cannot be checked without --ssl-ca-certs",
                      flags.ssl_cert_reqs);
  }
  if (flags.ssl_cert_reqs == 0 && !tls.client_ca_file.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--ssl-ca-certs: clients' certificates are checked only with --ssl-cert-reqs 1 or 2");
  }
  tls.require_client_certificate = flags.ssl_cert_reqs == 2;
  return {};
}

Status check_root_path(std::string& path) {
  while (!path.empty() && path.back() == '/') path.pop_back();
  if (path.empty() || path.front() == '/') return {};
  return make_error(ErrorCode::kInvalidArgument, "--root-path {}: it begins with '/', as /{}", path, path);
}

Expected<Json> parse_object(const char* flag, const std::string& text) {
  if (text.empty()) return Json();
  auto parsed = parse_json(text, {.max_bytes = size_t{1} << 20, .max_depth = 32, .refuse_duplicate_keys = true});
  if (!parsed) return make_error(ErrorCode::kInvalidArgument, "{}: {}", flag, parsed.error().message);
  if (!parsed->is_object()) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {}, expected a JSON object", flag, parsed->type_name());
  }
  return parsed;
}

bool is_above_info(const std::string& level) { return level == "warning" || level == "error" || level == "critical"; }

}  // namespace

void add_server_flags(OptionRegistry& registry, ServerFlags& flags) {
  add_listen_flags(registry, flags);
  add_access_flags(registry, flags);
  add_answer_flags(registry, flags);
  add_page_flags(registry, flags);
  add_log_flags(registry, flags);
  add_limit_flags(registry, flags);
}

Expected<ServerOptions> make_server_options(const ServeOptions& options, const ServerFlags& flags) {
  ServerOptions server = flags.server;
  server.port = static_cast<uint16_t>(flags.port);
  server.served_model_names =
      flags.served_model_names.empty() ? std::vector<std::string>{options.model} : flags.served_model_names;
  server.reasoning_parser = options.reasoning_parser;
  HADAL_RETURN_IF_ERROR(check_keys(server.api_keys));
  if (!flags.api_key_file.empty()) HADAL_RETURN_IF_ERROR(read_key_file(flags.api_key_file, server.api_keys));
  HADAL_RETURN_IF_ERROR(check_tls(flags, server.tls));
  HADAL_RETURN_IF_ERROR(check_root_path(server.root_path));
  for (auto* words : {&server.cors.allowed_origins, &server.cors.allowed_methods, &server.cors.allowed_headers}) {
    *words = without_quotes(*words);
  }
  HADAL_ASSIGN_OR_RETURN(server.default_chat_template_kwargs,
                         parse_object("--default-chat-template-kwargs", flags.default_chat_template_kwargs));
  if (server.max_logprobs < 0) server.max_logprobs = std::numeric_limits<int32_t>::max();
  server.processed_logprobs = flags.logprobs_mode == "processed_logprobs";
  server.priority_scheduling = options.has_priorities();
  server.access_log_excluded_paths = split_at_commas(flags.quiet_endpoints);
  server.log_access = !flags.disable_access_log && !is_above_info(flags.http_log_level);
  if (flags.disable_log_requests) server.log_requests = false;
  server.log_stats = !flags.disable_log_stats;
  server.enable_api_docs = !flags.disable_api_docs;
  server.enable_web_chat = !flags.disable_web_chat;
  return server;
}

std::string local_url(const ServerOptions& options, uint16_t port) {
  if (!options.unix_socket.empty()) return "unix:" + options.unix_socket;
  const bool any_address = options.host == "0.0.0.0" || options.host == "::" || options.host.empty();
  const bool is_ipv6 = options.host.find(':') != std::string::npos;
  const std::string host = any_address ? "127.0.0.1" : is_ipv6 ? "[" + options.host + "]" : options.host;
  return fmt::format("{}://{}:{}", options.tls.certificate_file.empty() ? "http" : "https", host, port);
}

}  // namespace hadal
