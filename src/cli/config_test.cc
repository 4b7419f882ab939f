// Options from flags, environment and file: which one wins, what is refused and how it is shown.
#include <gmock/gmock.h>

#include <CLI/CLI.hpp>
#include <fstream>

#include "cli/config_registry.h"
#include "cli/config_sources.h"
#include "cli/config_yaml.h"
#include "cli/peer_environment.h"
#include "cli/peer_flags.h"
#include "cli/serve_options.h"
#include "cli/server_flags.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The options of `hadal serve` without the rest of it.
class Options {
 public:
  Options() {
    add_serve_options(registry, model);
    add_server_flags(registry, server);
    add_peer_flags(registry);
    add_peer_environment(registry);
    registry.add("--config", config_file, "");
  }
  void write_file(const std::string& text) {
    config_file_path_ = (dir_.path() / "serve.yaml").string();
    std::ofstream(config_file_path_) << text;
  }
  // Arguments as after the program's name; the file is given by --config when there is one.
  Status apply(std::vector<std::string> arguments, const Environment& environment = {}) {
    if (!config_file_path_.empty()) arguments.push_back("--config=" + config_file_path_);
    std::reverse(arguments.begin(), arguments.end());
    command_.parse(std::move(arguments));
    return apply_sources(registry, environment, warnings);
  }
  std::string origin(const std::string& name) { return registry.find(name)->origin; }
  const std::string& file() const { return config_file_path_; }

 private:
  CLI::App command_;
  TempDir dir_;
  std::string config_file_path_;

 public:
  OptionRegistry registry{command_};
  ServeOptions model;
  ServerFlags server;
  std::string config_file;
  std::vector<std::string> warnings;
};

TEST(ConfigSources, FlagWinsOverEnvironmentOverFileOverDefault) {
  Options options;
  options.write_file("port: 1\nmax-num-seqs: 2\nblock_size: 128\n");
  ASSERT_TRUE(options.apply({"--port=3"}, {{"HADAL_PORT", "4"}, {"HADAL_MAX_NUM_SEQS", "5"}}));
  EXPECT_EQ(options.server.port, 3);
  EXPECT_EQ(options.model.max_num_seqs, 5);
  EXPECT_EQ(options.model.block_size, 128);
  EXPECT_EQ(options.model.max_num_batched_tokens, 2048);
  EXPECT_EQ(options.origin("port"), "flag");
  EXPECT_EQ(options.origin("max-num-seqs"), "HADAL_MAX_NUM_SEQS");
  EXPECT_EQ(options.origin("block-size"), options.file() + ":3");
  EXPECT_EQ(options.origin("max-num-batched-tokens"), "default");
}

TEST(ConfigSources, EveryOptionHasAVariableAndAFileName) {
  Options options;
  for (const RegisteredOption& option : options.registry.options()) {
    EXPECT_EQ(environment_name(option.name()).find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"),
              std::string::npos)
        << option.name();
    EXPECT_EQ(options.registry.find(option.name()), &option);  // no two options share a name
  }
}

TEST(ConfigSources, ReadsThePeersVariablesAfterItsOwn) {
  Options peers;
  ASSERT_TRUE(peers.apply({}, {{"VLLM_API_KEY", "a,b"},
                               {"VLLM_SERVER_DEV_MODE", "1"},
                               {"VLLM_LOGGING_LEVEL", "DEBUG"},
                               {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5"}}));
  EXPECT_THAT(peers.server.server.api_keys, ElementsAre("a,b"));  // one key, as there
  EXPECT_TRUE(peers.server.server.dev_mode);
  EXPECT_EQ(peers.model.log_level, "debug");
  EXPECT_EQ(peers.server.server.http.idle_timeout, std::chrono::seconds(5));

  Options both;
  ASSERT_TRUE(both.apply({}, {{"VLLM_API_KEY", "theirs"}, {"HADAL_API_KEY", "one, two"}}));
  EXPECT_THAT(both.server.server.api_keys, ElementsAre("one", "two"));
}

TEST(ConfigSources, ListsAndSwitches) {
  Options options;
  options.write_file("served-model-name: [a, b]\nenable-prefix-caching: false\nallowed_methods:\n- GET\n- POST\n");
  ASSERT_TRUE(
      options.apply({}, {{"HADAL_ALLOWED_ORIGINS", R"(["https://x", "https://y"])"}, {"HADAL_DEV_MODE", "on"}}));
  EXPECT_THAT(options.server.served_model_names, ElementsAre("a", "b"));
  EXPECT_FALSE(options.model.enable_prefix_caching);
  EXPECT_TRUE(options.server.server.dev_mode);
  const auto server = make_server_options(options.model, options.server);
  ASSERT_TRUE(server);
  EXPECT_THAT(server->cors.allowed_origins, ElementsAre("https://x", "https://y"));
  EXPECT_THAT(server->cors.allowed_methods, ElementsAre("GET", "POST"));
}

TEST(ConfigSources, NegatedNamesTurnTheSwitchAround) {
  Options options;
  options.write_file("no-enable-prefix-caching: true\nno_enable_auto_tool_choice: false\n");
  ASSERT_TRUE(options.apply({}));
  EXPECT_FALSE(options.model.enable_prefix_caching);
  EXPECT_TRUE(options.server.server.enable_auto_tool_choice);
}

TEST(ConfigSources, AnEmptyVariableIsAbsent) {
  Options options;
  ASSERT_TRUE(options.apply({}, {{"HADAL_PORT", ""}, {"VLLM_API_KEY", ""}}));
  EXPECT_EQ(options.origin("port"), "default");
  EXPECT_TRUE(options.server.server.api_keys.empty());
}

TEST(ConfigSources, KubernetesServiceLinksAreNoOptions) {
  Options options;
  ASSERT_TRUE(options.apply({}, {{"HADAL_PORT", "tcp://10.0.0.1:8000"},
                                 {"HADAL_SERVICE_HOST", "10.0.0.1"},
                                 {"HADAL_SERVICE_PORT", "8000"},
                                 {"HADAL_SERVICE_PORT_HTTP", "8000"},
                                 {"HADAL_PORT_8000_TCP", "tcp://10.0.0.1:8000"},
                                 {"HADAL_PORT_8000_TCP_ADDR", "10.0.0.1"},
                                 {"HADAL_METRICS_SERVICE_HOST", "10.0.0.2"}}));
  EXPECT_EQ(options.server.port, 8000);
  EXPECT_EQ(options.origin("port"), "default");
}

struct Refusal {
  const char* what;
  std::string file;
  Environment environment;
  const char* message;
};

TEST(ConfigSources, RefusesWithOriginAndNearestName) {
  const Refusal refusals[] = {
      {"unknown variable",
       "",
       {{"HADAL_MAX_MODLE_LEN", "1"}},
       "HADAL_MAX_MODLE_LEN is not an option (did you mean "
       "HADAL_MAX_MODEL_LEN?)"},
      {"unknown name",
       "host: x\nmax-num-seq: 1\n",
       {},
       "serve.yaml:2: max-num-seq is not an option (did you mean max-num-seqs?)"},
      {"range in a variable", "", {{"HADAL_PORT", "70000"}}, "HADAL_PORT: "},
      {"range in the file", "port: -1\n", {}, "serve.yaml:1: "},
      {"not a number", "max-num-seqs: many\n", {}, "serve.yaml:1: "},
      {"not a choice", "", {{"HADAL_LOG_FORMAT", "xml"}}, "HADAL_LOG_FORMAT: "},
      {"not a switch", "dev-mode: perhaps\n", {}, "dev-mode is on or off, not 'perhaps'"},
      {"list for one value", "port: [1, 2]\n", {}, "port takes one value, not a list of 2"},
      {"nested",
       "override-generation-config:\n  temperature: 1\n",
       {},
       "the value of override-generation-config is "
       "nested"},
      {"twice under two names", "num-blocks: 1\nnum-gpu-blocks-override: 2\n", {}, "is the option of line 1 already"},
      {"config in the file", "config: other.yaml\n", {}, "config is not an option of the file"},
  };
  for (const Refusal& refusal : refusals) {
    Options options;
    if (!refusal.file.empty()) options.write_file(refusal.file);
    const Status applied = options.apply({}, refusal.environment);
    ASSERT_FALSE(applied) << refusal.what;
    EXPECT_EQ(applied.error().code, ErrorCode::kInvalidArgument) << refusal.what;
    EXPECT_THAT(applied.error().message, HasSubstr(refusal.message)) << refusal.what;
  }
}

TEST(ConfigSources, AMissingFileIsAWrongCommandLine) {
  Options options;
  const Status applied = options.apply({"--config=/nowhere/serve.yaml"});
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(applied.error().message, HasSubstr("/nowhere/serve.yaml"));
}

TEST(ConfigSources, ExplainsEveryOptionAndShowsNoSecret) {
  Options options;
  ASSERT_TRUE(options.apply({"--api-key", "sesame", "opensesame", "--port=1"}, {{"HADAL_SEED", "7"}}));
  const Json explained = explain_config(options.registry);
  EXPECT_EQ(explained["port"], Json({{"value", 1}, {"origin", "flag"}}));
  EXPECT_EQ(explained["seed"], Json({{"value", 7}, {"origin", "HADAL_SEED"}}));
  EXPECT_EQ(explained["host"], Json({{"value", "0.0.0.0"}, {"origin", "default"}}));
  EXPECT_EQ(explained["api-key"], Json({{"value", {"***", "***"}}, {"origin", "flag"}}));
  EXPECT_FALSE(explained.contains("device"));  // a peer's flag that nobody gave
  for (const std::string& text :
       {explained.dump(), explain_config_table(options.registry), non_default_values(options.registry).dump()}) {
    EXPECT_EQ(text.find("sesame"), std::string::npos);
  }
  size_t num_effective = 0;
  for (const RegisteredOption& option : options.registry.options()) num_effective += option.has_effect ? 1 : 0;
  EXPECT_EQ(explained.size(), num_effective);
}

TEST(PeerFlags, WarnOnceOrRefuseWithTheReason) {
  Options accepted;
  ASSERT_TRUE(accepted.apply({"--swap-space=4", "--data-parallel-size=1", "--tokenizer=DIR"},
                             {{"HADAL_TRUST_REMOTE_CODE", "true"}, {"HADAL_ENFORCE_EAGER", "false"}}));
  const auto warnings = check_peer_flags(accepted.registry, "DIR");
  ASSERT_TRUE(warnings);
  EXPECT_THAT(*warnings, testing::UnorderedElementsAre(HasSubstr("--swap-space"), HasSubstr("--data-parallel-size"),
                                                       HasSubstr("--tokenizer"), HasSubstr("--trust-remote-code")));
  for (const char* flag : {"--middleware=m", "--data-parallel-size=2", "--tokenizer=OTHER", "--load-format=dummy"}) {
    Options refused;
    ASSERT_TRUE(refused.apply({flag}));
    const auto checked = check_peer_flags(refused.registry, "DIR");
    ASSERT_FALSE(checked) << flag;
    EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(checked.error().message, HasSubstr("cannot be obeyed"));
  }
}

TEST(ConfigSources, TheLastOfTheSameFlagsCounts) {
  Options options;
  ASSERT_TRUE(options.apply({"--port=1", "--max-num-seqs=4", "--load-format=dummy", "--max-num-seqs", "8", "--port=2",
                             "--load-format=auto"}));
  EXPECT_EQ(explain_config(options.registry)["port"]["value"], 2);
  EXPECT_EQ(options.model.max_num_seqs, 8);
  EXPECT_TRUE(check_peer_flags(options.registry, "DIR"));
  Options models;
  EXPECT_ANY_THROW(models.apply({"--model=one", "--model=other"}));
}

TEST(PeerFlags, VllmsOtherSpellings) {
  const auto put = [](std::vector<std::string> arguments) {
    CLI::App serve;
    OptionRegistry registry(serve);
    ServeOptions options;
    add_serve_options(registry, options);
    add_peer_flags(registry);
    put_peer_spellings(serve, arguments);
    return arguments;
  };
  EXPECT_THAT(
      put({"serve", "-tp", "2", "-pp=1", "--enable-expert-parallel", "True", "--enable-chunked-prefill", "false"}),
      ElementsAre("serve", "--tensor-parallel-size", "2", "--pipeline-parallel-size=1", "--enable-expert-parallel=True",
                  "--enable-chunked-prefill=false"));
  EXPECT_THAT(put({"--model", "true", "--unknown", "true", "true", "--enable-lora"}),
              ElementsAre("--model", "true", "--unknown", "true", "true", "--enable-lora"));
}

TEST(PeerFlags, ARefusedSwitchThatIsOffIsNotAsked) {
  Options off;
  ASSERT_TRUE(off.apply({"--enable-lora=False", "--skip-tokenizer-init=false"}));
  const auto warnings = check_peer_flags(off.registry, "DIR");
  ASSERT_TRUE(warnings) << warnings.error().message;
  EXPECT_THAT(*warnings, testing::IsEmpty());
  Options on;
  ASSERT_TRUE(on.apply({"--enable-lora=True"}));
  EXPECT_FALSE(check_peer_flags(on.registry, "DIR"));
}

TEST(ConfigYaml, ReadsNamesWordsAndLines) {
  const auto entries = parse_config_yaml("# comment\n--max_model_len: 0x10\n\nname: \"a b\"\nlist:\n- yes\n- '1'\n");
  ASSERT_TRUE(entries);
  ASSERT_EQ(entries->size(), 3U);
  EXPECT_EQ((*entries)[0].name, "max-model-len");
  EXPECT_THAT((*entries)[0].words, ElementsAre("0x10"));  // text, as on the command line
  EXPECT_EQ((*entries)[0].line, 2);
  EXPECT_THAT((*entries)[1].words, ElementsAre("a b"));
  EXPECT_THAT((*entries)[2].words, ElementsAre("yes", "1"));
  EXPECT_EQ((*entries)[2].line, 5);
  for (const char* empty : {"", "\n", "# only a comment\n", "---\n", "{}"}) {
    const auto none = parse_config_yaml(empty);
    ASSERT_TRUE(none) << empty;
    EXPECT_TRUE(none->empty()) << empty;
  }
}

TEST(ConfigYaml, RefusesDamagedFiles) {
  const std::pair<std::string, const char*> damaged[] = {
      {"port: 1\nport: 2\n", "line 2: port stands in line 1 already"},
      {"a_b: 1\n--a-b: 2\n", "already"},
      {"port:\n", "port has no value"},
      {"port: ~\n", "port has no value"},
      {"names: [a, [b]]\n", "nested"},
      {"names: [a, ~]\n", "has no value"},
      {"- a\n- b\n", "expected lines of the form"},
      {"just text\n", "expected lines of the form"},
      {"? [a]\n: b\n", "expected the name of an option"},
      {"a: 1\n---\nb: 2\n", "2 YAML documents"},
      {"a: [1, 2\n", "line "},
      {"a: 1\n\tb: 2\n", "line "},
      {"a: *unknown\n", "line "},
      {"a: &x [*x]\n", "line "},
      {"a: \xff\xfe\n", "not UTF-8"},
      {std::string("a: \0b\n", 6), "not UTF-8"},
      {std::string(2 << 20, ' '), "at most"},
      {"a: " + std::string(20'000, '['), "line "},
      {std::string(20'000, '{'), "line "},
      {std::string(20'000, '-').append(" "), "expected lines of the form"},
  };
  for (const auto& [text, message] : damaged) {
    const auto entries = parse_config_yaml(text);
    ASSERT_FALSE(entries) << text.substr(0, 60);
    EXPECT_EQ(entries.error().code, ErrorCode::kInvalidArgument) << text.substr(0, 60);
    EXPECT_THAT(entries.error().message, HasSubstr(message)) << text.substr(0, 60);
  }
}

}  // namespace
}  // namespace hadal
