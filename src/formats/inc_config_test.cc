#include "formats/inc_config.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "support/test_files.h"

namespace hadal {
namespace {

// The files that vLLM's Gaudi fork ships, as spec/gaudi-pipeline.md 4.1 describes them.
TEST(IncConfig, ReadsTheShippedFiles) {
  struct Case {
    const char* file;
    IncMode mode;
    IncScaleMethod method;
    IncScaleFormat format;
    size_t num_blocked;
    const char* path;
  };
  constexpr auto kPerChannel = IncScaleMethod::kActMaxabsHwWeightsPcsMaxabsPow2;
  const char* const path = "./scripts/nc_workspace_measure_kvcache/inc_measure_output";
  for (const Case& expected :
       {Case{"inc_measure_with_fp8kv_config", IncMode::kMeasure, IncScaleMethod::kMaxabsHw, IncScaleFormat::kScalar, 2,
             path},
        Case{"inc_quant_per_channel_with_fp8kv_config", IncMode::kQuantize, kPerChannel, IncScaleFormat::kConst, 2,
             path},
        Case{"inc_quant_per_channel_bf16kv", IncMode::kQuantize, kPerChannel, IncScaleFormat::kConst, 11, path},
        Case{"inc_quant_with_fp8kv_config", IncMode::kQuantize, IncScaleMethod::kMaxabsHw, IncScaleFormat::kScalar, 8,
             path},
        Case{"inc_quant_fp8kv_pts_scalar_fp8_mla", IncMode::kQuantize, IncScaleMethod::kMaxabsHw,
             IncScaleFormat::kScalar, 2, "./scripts/quantization/DeepSeek-R1-G2/g2/inc_output"}}) {
    HADAL_SPEC_DATA_OR_SKIP(file, std::string("quant_configs/") + expected.file + ".json");
    const auto config = load_inc_config(file);
    ASSERT_TRUE(config.has_value()) << config.error().message;
    EXPECT_EQ(config->mode, expected.mode);
    EXPECT_EQ(config->scale_method, expected.method);
    EXPECT_EQ(config->scale_format, expected.format);
    EXPECT_EQ(config->blocklist.names.size(), expected.num_blocked);
    EXPECT_EQ(config->blocklist.names[1], "mlp\\.gate\\b");
    EXPECT_TRUE(config->allowlist.names.empty());
    EXPECT_EQ(config->dump_stats_path, expected.path);
    EXPECT_EQ(config->ignored_keys.size(), expected.mode == IncMode::kMeasure ? 2u : 0u);
  }
}

TEST(IncConfig, DefaultsOfAnEmptyObject) {
  const auto config = parse_inc_config("{}");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->mode, IncMode::kQuantize);
  EXPECT_EQ(config->dump_stats_path, "stats");
  EXPECT_EQ(config->scale_method, IncScaleMethod::kMaxabsHw);
  EXPECT_EQ(config->measure_exclude, IncMeasureExclude::kOutput);
  EXPECT_TRUE(config->seperate_measure_files && config->measure_on_hpu);
  EXPECT_FALSE(config->ignore_modules_wo_measures || config->recalc_scales || config->fake_quant || config->use_qdq);
  EXPECT_FALSE(config->device_for_scales || config->input_backoff || config->weight_backoff);
}

TEST(IncConfig, ReadsEveryKeyInAnyCase) {
  const auto config = parse_inc_config(R"({
      "mode": "Quantize", "scale_method": "act_maxabs_pow2_weights_pcs_maxabs_pow2", "scale_format": "Const",
      "observer": "MaxAbs", "fp8_config": "e4m3", "hp_dtype": "bf16", "measure_exclude": "none",
      "device_for_scales": "gaudi2", "scale_params": {"input_backoff": 0.5, "weight_backoff": 1},
      "blacklist": {"names": ["a"], "types": ["Linear"]}, "whitelist": {"names": ["b"]}, "recalc_scales": true,
      "ignore_modules_wo_measures": true, "seperate_measure_files": false, "fake_quant": false, "use_qdq": true,
      "measure_on_hpu": false, "dump_stats_path": "/x/y"})");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->scale_method, IncScaleMethod::kActMaxabsPow2WeightsPcsMaxabsPow2);
  EXPECT_EQ(config->scale_format, IncScaleFormat::kConst);
  EXPECT_EQ(config->measure_exclude, IncMeasureExclude::kNone);
  EXPECT_EQ(config->device_for_scales, IncDevice::kGaudi2);
  EXPECT_EQ(config->input_backoff, 0.5);
  EXPECT_EQ(config->weight_backoff, 1.0);
  EXPECT_EQ(config->blocklist.names, std::vector<std::string>{"a"});
  EXPECT_EQ(config->blocklist.types, std::vector<std::string>{"Linear"});
  EXPECT_EQ(config->allowlist.names, std::vector<std::string>{"b"});
  EXPECT_TRUE(config->recalc_scales && config->use_qdq && config->ignore_modules_wo_measures);
  EXPECT_FALSE(config->seperate_measure_files || config->measure_on_hpu);
}

TEST(IncConfig, RefusalsNameKeyAndChoices) {
  for (const auto& [text, expected] : std::vector<std::pair<const char*, const char*>>{
           {"", "not valid JSON"},
           {"[]", "array at the top"},
           {R"({"mode": "QUANT"})", "mode is \"QUANT\", expected one of QUANTIZE, MEASURE, SHAPE, LOAD, NONE"},
           {R"({"mode": 1})", "mode is 1, expected one of"},
           {R"({"scale_method": "MAXABS"})", "expected one of MAX, UNIT_SCALE, HW_ALIGNED_SINGLE_SCALE, MAXABS_HW"},
           {R"({"scale_format": "array"})", "SCALAR, CONST"},
           {R"({"observer": ""})", "MAXABS, MAXABS_PER_CHANNEL, SHAPE, SAVE"},
           {R"({"device_for_scales": "gaudi4"})", "GAUDI2, GAUDI3"},
           {R"({"scale_methode": "x"})", "unknown key \"scale_methode\", did you mean \"scale_method\"?"},
           {R"({"separate_measure_files": true})", "did you mean \"seperate_measure_files\"?"},
           {R"({"blocklist": []})", "blocklist is [], expected {\"names\": [], \"types\": []}"},
           {R"({"blocklist": {"name": []}})", "blocklist has the key \"name\""},
           {R"({"blocklist": {"names": "x"}})", "blocklist.names is \"x\""},
           {R"({"blocklist": {"names": [1]}})", "blocklist.names is [1]"},
           {R"({"blocklist": {}, "blacklist": {}})", "both blocklist and its old spelling blacklist"},
           {R"({"allowlist": {}, "whitelist": {}})", "both allowlist and its old spelling whitelist"},
           {R"({"scale_params": {"input_backoff": 0}})", "scale_params.input_backoff is 0"},
           {R"({"scale_params": {"weight_backoff": 1.5}})", "scale_params.weight_backoff is 1.5"},
           {R"({"scale_params": {"alpha": 1}})", "scale_params has the key \"alpha\""},
           {R"({"scale_params": []})", "scale_params is []"},
           {R"({"use_qdq": "yes"})", "use_qdq is \"yes\", expected true or false"},
           {R"({"dump_stats_path": ""})", "dump_stats_path is empty"},
           {R"({"dump_stats_path": 3})", "dump_stats_path is 3"},
           {R"({"mode": "QUANTIZE", "mode": "MEASURE"})", "key \"mode\" appears twice"}}) {
    const auto config = parse_inc_config(text);
    ASSERT_FALSE(config.has_value()) << text;
    EXPECT_NE(config.error().message.find(expected), std::string::npos)
        << config.error().message << "\nnot " << expected;
  }
}

TEST(IncConfig, PathsAreNamed) {
  EXPECT_NE(load_inc_config("").error().message.find("QUANT_CONFIG"), std::string::npos);
  const TempDir dir;
  EXPECT_EQ(load_inc_config(dir.path() / "absent.json").error().code, ErrorCode::kNotFound);
  const auto path = dir.path() / "c.json";
  ASSERT_TRUE(write_file_atomically(path, "{\"x\": 1}").has_value());
  EXPECT_EQ(load_inc_config(path).error().message.find(path.string()), 0u);
}

}  // namespace
}  // namespace hadal
