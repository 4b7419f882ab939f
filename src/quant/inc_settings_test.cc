#include "quant/inc_settings.h"

#include <gtest/gtest.h>

#include <map>

#include "quant/module_filter.h"
#include "quant/scale_method.h"
#include "support/test_files.h"

namespace hadal {
namespace {

auto environment(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> const char* {
    const auto found = values.find(name);
    return found == values.end() ? nullptr : found->second.c_str();
  };
}

TEST(IncEnvironment, ReadsSwitchesAndPaths) {
  const auto on = read_inc_environment(environment({{"QUANT_CONFIG", "/q.json"},
                                                    {"INC_MEASUREMENT_DUMP_PATH_PREFIX", "/p"},
                                                    {"INC_FORCE_NAIVE_SCALING", "1"},
                                                    {"INC_FORCE_SCALE_FP32", "True"}}));
  ASSERT_TRUE(on.has_value());
  EXPECT_EQ(on->quant_config, "/q.json");
  EXPECT_EQ(on->dump_path_prefix, "/p");
  EXPECT_TRUE(on->switches.force_naive_scaling && on->switches.force_scale_fp32);
  const auto off =
      read_inc_environment(environment({{"INC_MEASUREMENT_DUMP_PATH_PREFIX", ""}, {"INC_FORCE_NAIVE_SCALING", "0"}}));
  EXPECT_FALSE(off->dump_path_prefix || off->switches.force_naive_scaling || off->switches.force_scale_fp32);
  EXPECT_EQ(off->quant_config, "");
  EXPECT_EQ(read_inc_environment(environment({{"INC_FORCE_NAIVE_SCALING", "yes"}})).error().message,
            "INC_FORCE_NAIVE_SCALING is \"yes\", expected 1, true, 0 or false");
}

TEST(IncStatsPath, PrefixJoinsAndAnAbsolutePathWins) {
  IncConfig config;
  config.dump_stats_path = "./scripts/x/inc_out";
  EXPECT_EQ(resolve_inc_stats_path(config, std::nullopt).base, "./scripts/x/inc_out");
  EXPECT_EQ(resolve_inc_stats_path(config, std::nullopt).log_line, "");
  const IncStatsPath joined = resolve_inc_stats_path(config, "/repo");
  EXPECT_EQ(joined.base, "/repo/./scripts/x/inc_out");
  EXPECT_EQ(joined.log_line,
            "INC_MEASUREMENT_DUMP_PATH_PREFIX is set to /repo, dump_stats_path is set to /repo/./scripts/x/inc_out");
  config.dump_stats_path = "/abs/inc_out";
  EXPECT_EQ(resolve_inc_stats_path(config, "/repo").base, "/abs/inc_out");
}

TEST(IncStatsPath, AMissingDirectoryNamesBothSettings) {
  const TempDir dir;
  IncConfig config;
  config.dump_stats_path = "m/out";
  const std::string prefix = dir.path().string();
  const auto missing = check_inc_stats_dir(resolve_inc_stats_path(config, prefix), config, prefix);
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  for (const std::string& part : {prefix + "/m ", std::string("\"m/out\""), "\"" + prefix + "\""}) {
    EXPECT_NE(missing.error().message.find(part), std::string::npos) << missing.error().message;
  }
  std::filesystem::create_directory(dir.path() / "m");
  EXPECT_TRUE(check_inc_stats_dir(resolve_inc_stats_path(config, prefix), config, prefix).has_value());
}

TEST(ModuleFilter, SearchesNamesAndComparesTypes) {
  const auto selects = [](const IncModuleList& allow, const IncModuleList& block, const char* name,
                          const char* type = "Matmul") {
    const auto filter = ModuleFilter::compile(allow, block);
    EXPECT_TRUE(filter.has_value()) << filter.error().message;
    return *filter->selects(name, type);
  };
  const IncModuleList shipped = {{"lm_head", "mlp\\.gate\\b"}, {}};
  EXPECT_TRUE(selects({}, shipped, "model.layers.0.mlp.gate_up_proj"));
  EXPECT_FALSE(selects({}, shipped, "model.layers.0.mlp.gate"));
  EXPECT_FALSE(selects({}, shipped, "lm_head"));
  EXPECT_TRUE(selects({}, {{"latent_cache_v", "latent_cache_k_nodeq"}, {}}, "a.latent_cache_k"));
  EXPECT_FALSE(selects({}, {{}, {"Matmul"}}, "a.matmul_qk"));
  EXPECT_TRUE(selects({{"^a\\."}, {}}, {}, "a.matmul_qk"));
  EXPECT_FALSE(selects({{"^a\\."}, {}}, {}, "b.a.matmul_qk"));
  EXPECT_TRUE(selects({{"^x$"}, {"Matmul"}}, {}, "a.matmul_qk"));
  EXPECT_FALSE(selects({{"matmul"}, {}}, {{"qk"}, {}}, "a.matmul_qk"));  // blocked wins
}

TEST(ModuleFilter, RefusesBadRulesByName) {
  EXPECT_NE(ModuleFilter::compile({}, {{"ok", "mlp(["}, {}}).error().message.find("blocklist.names: \"mlp([\""),
            std::string::npos);
  EXPECT_NE(ModuleFilter::compile({{}, {"MatMul"}}, {})
                .error()
                .message.find("allowlist.types: \"MatMul\" is no class that INC quantises, did you mean \"Matmul\"?"),
            std::string::npos);
}

TEST(ModuleFilter, ARunawayExpressionIsAnErrorNotAHang) {
  const auto filter = ModuleFilter::compile({}, {{"^(a|aa)+$"}, {}});
  ASSERT_TRUE(filter.has_value());
  const auto selected = filter->selects(std::string(200, 'a') + "b", "Matmul");
  ASSERT_FALSE(selected.has_value());
  EXPECT_EQ(selected.error().code, ErrorCode::kResourceExhausted);
}

IncConfig with_method(const char* method, const char* more = "") {
  const auto config = parse_inc_config(fmt::format(R"({{"scale_method": "{}"{}}})", method, more));
  EXPECT_TRUE(config.has_value()) << config.error().message;
  return *config;
}

// The rows of spec/gaudi-pipeline.md 4.2, and 4.4's quirk: "hw" anywhere in the name decides for weights too.
TEST(ScaleMethod, TableOfMethods) {
  struct Case {
    const char* name;
    ScaleRounding activation, weight;
    bool per_row;
  };
  for (const Case& expected :
       {Case{"maxabs_hw", ScaleRounding::kHwAligned, ScaleRounding::kHwAligned, false},
        Case{"MAXABS_POW2", ScaleRounding::kPow2, ScaleRounding::kPow2, false},
        Case{"MAXABS_ARBITRARY", ScaleRounding::kNone, ScaleRounding::kNone, false},
        Case{"ACT_MAXABS_HW_WEIGHTS_PCS_MAXABS_POW2", ScaleRounding::kHwAligned, ScaleRounding::kHwAligned, true},
        Case{"ACT_MAXABS_POW2_WEIGHTS_PCS_MAXABS_POW2", ScaleRounding::kPow2, ScaleRounding::kPow2, true}}) {
    const auto rules = inc_scale_rules(with_method(expected.name), FpRange::kGaudi2, {});
    ASSERT_TRUE(rules.has_value()) << rules.error().message;
    EXPECT_EQ(rules->activation.rounding, expected.activation) << expected.name;
    EXPECT_EQ(rules->weight.rounding, expected.weight) << expected.name;
    EXPECT_EQ(rules->weight_per_row, expected.per_row) << expected.name;
    EXPECT_EQ(rules->activation.backoff, 0.25f);
    EXPECT_EQ(rules->weight.backoff, 0.5f);
    EXPECT_EQ(rules->activation.range, FpRange::kGaudi2);
    EXPECT_TRUE(rules->activation.bf16);
    EXPECT_TRUE(rules->needs_measurement());
    EXPECT_EQ(rules->notes.size(), expected.per_row ? 1u : 0u);  // SCALAR taken as CONST
  }
}

TEST(ScaleMethod, FixedScales) {
  EXPECT_EQ(inc_scale_rules(with_method("unit_scale"), FpRange::kGaudi3, {})->fixed, StaticScale{});
  EXPECT_EQ(inc_scale_rules(with_method("hw_aligned_single_scale"), FpRange::kGaudi2, {})->fixed,
            (StaticScale{16, 1.0f / 16}));
  EXPECT_EQ(inc_scale_rules(with_method("hw_aligned_single_scale"), FpRange::kGaudi3, {})->fixed,
            (StaticScale{128, 1.0f / 128}));
}

TEST(ScaleMethod, NaiveScalingOverridesEverything) {
  const IncConfig config = with_method("ACT_MAXABS_HW_WEIGHTS_PCS_MAXABS_POW2",
                                       R"(, "scale_format": "const", "scale_params": {"input_backoff": 0.5})");
  const auto rules = inc_scale_rules(config, FpRange::kGaudi2, {.force_naive_scaling = true});
  for (const ScaleRule& rule : {rules->activation, rules->weight}) {
    EXPECT_EQ(rule.rounding, ScaleRounding::kNone);
    EXPECT_EQ(rule.backoff, 1);
  }
  EXPECT_EQ(rules->notes,
            (std::vector<std::string>{"Enabled naive scaling", "Enabled naive scaling, backoff is set to 1.0"}));
  EXPECT_EQ(scale_from_amax(140288, rules->activation).scale, 584);  // 3.4
  const auto without = inc_scale_rules(config, FpRange::kGaudi2, {.force_scale_fp32 = true});
  EXPECT_EQ(without->activation.backoff, 0.5f);
  EXPECT_EQ(without->weight.backoff, 0.5f);
  EXPECT_FALSE(without->activation.bf16 || without->weight.bf16);
}

TEST(ScaleMethod, RefusesFamiliesByName) {
  for (const auto& [method, expected] : std::vector<std::pair<const char*, const char*>>{
           {"MAX", "MAX: not implemented"},
           {"MAXABS_HW_OPT_WEIGHT", "MAXABS_HW_OPT_WEIGHT: methods that optimise"},
           {"MAXABS_POW2_OPT_WEIGHT", "(OPT)"},
           {"ACT_MAXABS_HW_WEIGHTS_PCS_OPT_POW2", "(OPT)"},
           {"ACT_MAXABS_POW2_WEIGHTS_PCS_OPT_POW2", "(OPT)"},
           {"SMOOTHQUANT_OPT", "SMOOTHQUANT_OPT: the SmoothQuant family"},
           {"SMOOTHQUANT_WEIGHTS_OUTPUT_CHANNEL_MAXABS_POW2", "SmoothQuant"},
           {"WEAKSMOOTHQUANT_WEIGHTS_OUTPUT_CHANNEL_MAXABS_POW2", "SmoothQuant"}}) {
    const auto rules = inc_scale_rules(with_method(method), FpRange::kGaudi2, {});
    ASSERT_FALSE(rules.has_value()) << method;
    EXPECT_EQ(rules.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(rules.error().message.find(expected), std::string::npos) << rules.error().message;
  }
}

TEST(ScaleMethod, ScalesForAnotherDevice) {
  const IncConfig hw = with_method("maxabs_hw", R"(, "device_for_scales": "GAUDI2")");
  EXPECT_EQ(inc_scale_rules(hw, FpRange::kGaudi3, {})->activation.range, FpRange::kGaudi2);
  EXPECT_EQ(inc_scale_rules(hw, FpRange::kGaudi2, {})->activation.range, FpRange::kGaudi2);
  EXPECT_FALSE(inc_scale_rules(with_method("maxabs_pow2", R"(, "device_for_scales": "GAUDI2")"), FpRange::kGaudi3, {})
                   .has_value());
  EXPECT_FALSE(inc_scale_rules(with_method("maxabs_hw", R"(, "device_for_scales": "GAUDI3")"), FpRange::kGaudi2, {})
                   .has_value());
}

}  // namespace
}  // namespace hadal
