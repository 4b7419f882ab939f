// Variables of vLLM's Gaudi branch: what they set, what is said about the rest, which slips are named.
#include "cli/peer_environment.h"

#include <gmock/gmock.h>

#include <CLI/CLI.hpp>

#include "cli/config_sources.h"
#include "cli/serve_options.h"
#include "cli/server_flags.h"

namespace hadal {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class PeerEnvironment : public testing::Test {
 protected:
  Status apply(std::vector<std::string> arguments, const Environment& environment) {
    add_serve_options(registry, model);
    add_server_flags(registry, server);
    add_peer_environment(registry);
    std::reverse(arguments.begin(), arguments.end());
    command_.parse(std::move(arguments));
    return apply_sources(registry, environment, warnings);
  }
  std::string origin(const std::string& name) { return registry.find(name)->origin; }

  CLI::App command_;
  OptionRegistry registry{command_};
  ServeOptions model;
  ServerFlags server;
  std::vector<std::string> warnings;
};

// What the multi-node script of the guide exports.
const Environment kHeadNode = {{"QUANT_CONFIG", "/repo/q.json"},
                               {"VLLM_REQUANT_FP8_INC", "1"},
                               {"VLLM_ENABLE_RUNTIME_DEQUANT", "1"},
                               {"INC_MEASUREMENT_DUMP_PATH_PREFIX", "/repo"},
                               {"VLLM_MOE_N_SLICE", "1"},
                               {"PT_HPU_RECIPE_CACHE_CONFIG", "/data/cache,false,32768"},
                               {"PT_HPU_LAZY_MODE", "1"},
                               {"HABANA_VISIBLE_DEVICES", "ALL"},
                               {"VLLM_PROMPT_BS_BUCKET_MIN", "1"},
                               {"VLLM_DECODE_BLOCK_BUCKET_LIMIT", "0.25"}};

TEST_F(PeerEnvironment, TheGuidesScriptTurnsIncOn) {
  ASSERT_TRUE(apply({}, kHeadNode));
  EXPECT_EQ(model.quantization, "inc");
  EXPECT_EQ(origin("quantization"), "VLLM_REQUANT_FP8_INC");
  EXPECT_EQ(model.quant_config, "/repo/q.json");
  EXPECT_EQ(origin("quant-config"), "QUANT_CONFIG");
}

TEST_F(PeerEnvironment, OneWarningPerReason) {
  ASSERT_TRUE(apply({}, kHeadNode));
  EXPECT_THAT(warnings,
              testing::UnorderedElementsAre(
                  AllOf(HasSubstr("VLLM_MOE_N_SLICE: accepted, no meaning here")),
                  AllOf(HasSubstr("PT_HPU_RECIPE_CACHE_CONFIG, PT_HPU_LAZY_MODE: "), HasSubstr("no graphs, recipes")),
                  HasSubstr("HABANA_VISIBLE_DEVICES"),
                  AllOf(HasSubstr("VLLM_PROMPT_BS_BUCKET_MIN, VLLM_DECODE_BLOCK_BUCKET_LIMIT: "),
                        HasSubstr("hadal plan buckets"))));
}

TEST_F(PeerEnvironment, ExplainedWithMeaning) {
  ASSERT_TRUE(apply({}, kHeadNode));
  const Json explained = explain_config(registry);
  EXPECT_EQ(explained["quantization"], Json({{"value", "inc"}, {"origin", "VLLM_REQUANT_FP8_INC"}}));
  EXPECT_EQ(explained["environment"]["PT_HPU_LAZY_MODE"]["value"], "1");
  EXPECT_THAT(explained["environment"]["INC_MEASUREMENT_DUMP_PATH_PREFIX"]["meaning"].get<std::string>(),
              HasSubstr("dump_stats_path"));
  EXPECT_THAT(explain_config_table(registry), HasSubstr("PT_HPU_LAZY_MODE"));
}

TEST_F(PeerEnvironment, FlagsWinOverIncByEnvironment) {
  ASSERT_TRUE(apply({"--numerics=bf16"}, kHeadNode));
  EXPECT_EQ(model.quantization, "");
  EXPECT_EQ(model.quant_config, "");
  EXPECT_THAT(warnings, Contains(HasSubstr("QUANT_CONFIG is not read without --quantization inc")));
}

TEST_F(PeerEnvironment, RequantNeedsAConfiguration) {
  ASSERT_TRUE(apply({}, {{"VLLM_REQUANT_FP8_INC", "1"}, {"QUANT_CONFIG", ""}}));
  EXPECT_EQ(model.quantization, "");
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("VLLM_REQUANT_FP8_INC has no effect without QUANT_CONFIG")));
}

TEST_F(PeerEnvironment, SwitchesAreOnInAnyCase) {
  ASSERT_TRUE(apply({}, {{"VLLM_REQUANT_FP8_INC", "True"}, {"QUANT_CONFIG", "/repo/q.json"}}));
  EXPECT_EQ(model.quantization, "inc");
}

TEST_F(PeerEnvironment, NeitherOnNorOffIsRefusedByName) {
  for (const char* name :
       {"VLLM_REQUANT_FP8_INC", "VLLM_ENABLE_RUNTIME_DEQUANT", "INC_FORCE_NAIVE_SCALING", "INC_FORCE_SCALE_FP32"}) {
    CLI::App command;
    OptionRegistry fresh(command);
    ServeOptions fresh_options;
    add_serve_options(fresh, fresh_options);
    const Status read = apply_peer_environment(fresh, {{name, "maybe"}}, warnings);
    ASSERT_FALSE(read) << name;
    EXPECT_THAT(read.error().message, AllOf(HasSubstr(name), HasSubstr("maybe"), HasSubstr("expected 1, true, 0 or")));
  }
}

TEST_F(PeerEnvironment, TheFlagsConfigurationWins) {
  ASSERT_TRUE(apply({"--quantization=inc", "--quant-config=/mine.json"}, {{"QUANT_CONFIG", "/theirs.json"}}));
  EXPECT_EQ(model.quant_config, "/mine.json");
  EXPECT_EQ(origin("quant-config"), "flag");
}

TEST_F(PeerEnvironment, InterfacesReachTheRanks) {
  ASSERT_TRUE(apply({}, {{"HCCL_SOCKET_IFNAME", "eth1"}, {"GLOO_SOCKET_IFNAME", "eth0"}}));
  EXPECT_EQ(model.ranks.interface_name, "eth0");
  EXPECT_EQ(origin("rank-interface"), "GLOO_SOCKET_IFNAME");
  EXPECT_EQ(explain_config(registry)["environment"]["HCCL_SOCKET_IFNAME"]["meaning"],
            "overruled by GLOO_SOCKET_IFNAME");
  EXPECT_THAT(warnings, IsEmpty());
}

TEST_F(PeerEnvironment, SlipsAreNamedAndOtherNamesLeftAlone) {
  ASSERT_TRUE(apply({}, {{"HABana_VISIBLE_DEVICES", "all"},
                         {"GLOO_SOCKER_IFNAME", "eth0"},
                         {"VLLM_API_KEYS", "sesame"},
                         {"INC_FORCE_NAIVE_SCALE", "1"},
                         {"VLLM_SKIP_WRAMUP", "true"},
                         {"VLLM_LOGGING_PREFIX", "x"},
                         {"VLLM_PORT", "1"},
                         {"TP_SOCKET_IFNAME", "eth0"},
                         {"PATH", "/bin"},
                         {"LD_LIBRARY_PATH", "/lib"},
                         {std::string(5000, 'V'), "long"}}));
  EXPECT_THAT(warnings,
              ElementsAre(HasSubstr("HABana_VISIBLE_DEVICES is not read (did you mean HABANA_VISIBLE_DEVICES?)"),
                          HasSubstr("GLOO_SOCKER_IFNAME is not read (did you mean GLOO_SOCKET_IFNAME?)"),
                          HasSubstr("VLLM_API_KEYS is not read (did you mean VLLM_API_KEY?)"),
                          HasSubstr("VLLM_SKIP_WRAMUP is not read (did you mean VLLM_SKIP_WARMUP?)")));
  for (const std::string& warning : warnings) EXPECT_EQ(warning.find("sesame"), std::string::npos);
}

TEST_F(PeerEnvironment, KeysAreNeverShown) {
  ASSERT_TRUE(apply({"--api-key=mine"}, {{"VLLM_API_KEY", "sesame"}}));
  EXPECT_EQ(explain_config(registry).dump().find("sesame"), std::string::npos);
  EXPECT_EQ(explain_config_table(registry).find("sesame"), std::string::npos);
}

}  // namespace
}  // namespace hadal
