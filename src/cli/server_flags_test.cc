// Flags of the HTTP side to ServerOptions, and the sampling defaults.
#include "cli/server_flags.h"

#include <gmock/gmock.h>

#include <CLI/CLI.hpp>
#include <fstream>

#include "cli/config_registry.h"
#include "cli/sampling_defaults.h"
#include "cli/serve_options.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Expected<ServerOptions> parse(std::vector<std::string> arguments) {
  CLI::App command;
  OptionRegistry registry(command);
  ServeOptions options;
  options.model = "DIR";
  ServerFlags flags;
  add_serve_options(registry, options);
  add_server_flags(registry, flags);
  std::reverse(arguments.begin(), arguments.end());
  command.parse(std::move(arguments));
  return make_server_options(options, flags);
}

TEST(ServerFlags, DefaultsAreThoseOfTheServer) {
  const auto parsed = parse({});
  ASSERT_TRUE(parsed);
  const ServerOptions defaults;
  EXPECT_EQ(parsed->port, defaults.port);
  EXPECT_EQ(parsed->host, defaults.host);
  EXPECT_THAT(parsed->served_model_names, ElementsAre("DIR"));
  EXPECT_THAT(parsed->cors.allowed_origins, ElementsAre("*"));
  EXPECT_TRUE(parsed->log_access && parsed->log_stats && parsed->enable_api_docs && parsed->enable_web_chat);
  EXPECT_FALSE(parsed->log_requests || parsed->dev_mode || parsed->priority_scheduling || parsed->processed_logprobs);
  EXPECT_TRUE(parsed->default_chat_template_kwargs.is_null());
  EXPECT_EQ(parsed->http.max_body_bytes, defaults.http.max_body_bytes);
}

TEST(ServerFlags, EveryFlagReachesItsField) {
  const auto parsed = parse({"--uds=/run/h.sock",
                             "--root-path=/llm/",
                             "--ssl-certfile=c.pem",
                             "--ssl-ca-certs=ca.pem",
                             "--ssl-cert-reqs=2",
                             "--ssl-ciphers=X",
                             "--metrics-need-key",
                             "--allow-credentials",
                             R"(--allowed-methods=["GET", "POST"])",
                             "--no-enable-auto-tool-choice",
                             "--tool-call-parser=kimi_k2",
                             "--exclude-tools-when-tool-choice-none",
                             "--reasoning-field=reasoning",
                             R"(--default-chat-template-kwargs={"thinking": true})",
                             "--trust-request-chat-template",
                             "--max-logprobs=-1",
                             "--logprobs-mode=processed_logprobs",
                             "--return-tokens-as-token-ids",
                             "--enable-force-include-usage",
                             "--clamp-max-tokens",
                             "--scheduling-policy=priority",
                             "--disable-fastapi-docs",
                             "--disable-web-chat",
                             "--dev-mode",
                             "--uvicorn-log-level=WARNING",
                             "--disable-access-log-for-endpoints=/health,/metrics",
                             "--enable-log-requests",
                             "--max-log-len=80",
                             "--disable-log-stats",
                             "--max-body-bytes=1MiB",
                             "--h11-max-incomplete-event-size=4mb",
                             "--h11-max-header-count=7",
                             "--max-connections=9",
                             "--sse-heartbeat=1.5",
                             "--request-timeout=60",
                             "--response-role=bot"});
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->unix_socket, "/run/h.sock");
  EXPECT_EQ(parsed->root_path, "/llm");
  EXPECT_EQ(parsed->tls.certificate_file, "c.pem");
  EXPECT_EQ(parsed->tls.client_ca_file, "ca.pem");
  EXPECT_TRUE(parsed->tls.require_client_certificate);
  EXPECT_EQ(parsed->tls.ciphers, "X");
  EXPECT_TRUE(parsed->metrics_need_key && parsed->cors.allow_credentials);
  EXPECT_THAT(parsed->cors.allowed_methods, ElementsAre("GET", "POST"));
  EXPECT_FALSE(parsed->enable_auto_tool_choice);
  EXPECT_EQ(parsed->tool_call_parser, "kimi_k2");
  EXPECT_TRUE(parsed->exclude_tools_when_tool_choice_none);
  EXPECT_EQ(parsed->reasoning_field, "reasoning");
  EXPECT_EQ(parsed->default_chat_template_kwargs, Json({{"thinking", true}}));
  EXPECT_TRUE(parsed->trust_request_chat_template && parsed->processed_logprobs);
  EXPECT_GE(parsed->max_logprobs, 1'000'000);
  EXPECT_TRUE(parsed->return_tokens_as_token_ids && parsed->force_include_usage && parsed->clamp_max_tokens);
  EXPECT_TRUE(parsed->priority_scheduling);
  EXPECT_FALSE(parsed->enable_api_docs || parsed->enable_web_chat || parsed->log_stats || parsed->log_access);
  EXPECT_TRUE(parsed->dev_mode && parsed->log_requests);
  EXPECT_THAT(parsed->access_log_excluded_paths, ElementsAre("/health", "/metrics"));
  EXPECT_EQ(parsed->max_log_len, 80);
  EXPECT_EQ(parsed->http.max_body_bytes, 1U << 20);
  EXPECT_EQ(parsed->http.max_header_bytes, 4U << 20);
  EXPECT_EQ(parsed->http.max_headers, 7U);
  EXPECT_EQ(parsed->http.max_connections, 9U);
  EXPECT_EQ(parsed->sse_heartbeat.count(), 1500);
  EXPECT_EQ(parsed->request_timeout.count(), 60'000);
  EXPECT_EQ(parsed->response_role, "bot");
}

TEST(ServerFlags, KeysComeFromFlagsAndFile) {
  const TempDir dir;
  const std::string path = (dir.path() / "keys").string();
  std::ofstream(path) << "# team a\n  alpha \r\n\nbeta\n";
  const auto parsed = parse({"--api-key=gamma", "--api-key-file=" + path});
  ASSERT_TRUE(parsed);
  EXPECT_THAT(parsed->api_keys, ElementsAre("gamma", "alpha", "beta"));
}

TEST(ServerFlags, RefusesWhatDoesNotGoTogether) {
  const TempDir dir;
  const std::string empty = (dir.path() / "empty").string();
  std::ofstream(empty) << "# nobody\n";
  const std::pair<std::vector<std::string>, const char*> refused[] = {
      {{"--api-key", ""}, "a key is empty"},
      {{"--api-key-file=" + empty}, "no key in it"},
      {{"--api-key-file=/nowhere"}, "/nowhere"},
      {{"--ssl-keyfile=k.pem"}, "--ssl-keyfile goes with --ssl-certfile"},
      {{"--ssl-cert-reqs=1"}, "goes with --ssl-certfile"},
      {{"--ssl-certfile=c.pem", "--ssl-cert-reqs=1"}, "without --ssl-ca-certs"},
      {{"--ssl-certfile=c.pem", "--ssl-ca-certs=ca.pem"}, "only with --ssl-cert-reqs"},
      {{"--root-path=llm"}, "begins with '/'"},
      {{"--default-chat-template-kwargs=[1]"}, "expected a JSON object"},
      {{"--default-chat-template-kwargs={"}, "--default-chat-template-kwargs: "},
  };
  for (const auto& [arguments, message] : refused) {
    const auto parsed = parse(arguments);
    ASSERT_FALSE(parsed) << message;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(parsed.error().message, HasSubstr(message));
  }
}

TEST(ServerFlags, LocalUrl) {
  ServerOptions options;
  EXPECT_EQ(local_url(options, 80), "http://127.0.0.1:80");
  options.host = "::1";
  options.tls.certificate_file = "c";
  EXPECT_EQ(local_url(options, 443), "https://[::1]:443");
  options.unix_socket = "/x";
  EXPECT_EQ(local_url(options, 0), "unix:/x");
}

TEST(SamplingDefaults, SourceThenOverrides) {
  GenerationConfig of_model;
  of_model.temperature = 0.5;
  of_model.top_p = 0.9;
  const auto automatic = choose_sampling_defaults("auto", "", of_model);
  ASSERT_TRUE(automatic);
  EXPECT_EQ(describe(*automatic), "temperature 0.5, top_p 0.9");
  const auto neutral = choose_sampling_defaults("vllm", "", of_model);
  ASSERT_TRUE(neutral);
  EXPECT_EQ(describe(*neutral), "none");
  const auto overridden =
      choose_sampling_defaults("auto", R"({"temperature": 1, "min_p": 0.25, "top_k": 40})", of_model);
  ASSERT_TRUE(overridden);
  EXPECT_EQ(describe(*overridden), "temperature 1, top_p 0.9, top_k 40, min_p 0.25");

  const TempDir dir;
  std::ofstream(dir.path() / "generation_config.json") << R"({"max_new_tokens": 100, "do_sample": false})";
  const auto folder = choose_sampling_defaults(dir.path().string(), "", of_model);
  ASSERT_TRUE(folder);
  EXPECT_EQ(describe(*folder), "temperature 0, max_new_tokens 100");
}

TEST(SamplingDefaults, RefusesWrongOverrides) {
  const std::pair<const char*, const char*> refused[] = {
      {R"({"temprature": 1})", "'temprature' is no sampling parameter (did you mean temperature?)"},
      {R"({"top_p": 2})", "top_p"},
      {R"({"min_p": "x"})", "min_p is \"x\""},
      {R"([])", "expected a JSON object"},
      {R"({"top_p": 1, "top_p": 0.5})", "--override-generation-config: "},
      {R"({)", "--override-generation-config: "},
  };
  for (const auto& [overrides, message] : refused) {
    const auto defaults = choose_sampling_defaults("auto", overrides, {});
    ASSERT_FALSE(defaults) << overrides;
    EXPECT_EQ(defaults.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(defaults.error().message, HasSubstr(message));
  }
  EXPECT_FALSE(choose_sampling_defaults("/nowhere", "", {}));
}

}  // namespace
}  // namespace hadal
