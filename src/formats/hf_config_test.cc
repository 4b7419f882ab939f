#include "formats/hf_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/file.h"
#include "support/test_files.h"

namespace hadal {
namespace {

HfConfig parse_or_fail(const std::string& text) {
  auto config = parse_hf_config(text);
  EXPECT_TRUE(config.has_value()) << config.error().message;
  return config.value_or(HfConfig{});
}

HfConfig load_golden(const std::filesystem::path& path) {
  const auto text = read_file(path, 1 << 20);
  EXPECT_TRUE(text.has_value()) << path;
  return parse_or_fail(*text);
}

const ConfigKey* find_key(const HfConfig& config, const std::string& name) {
  const auto at =
      std::find_if(config.keys.begin(), config.keys.end(), [&](const auto& key) { return key.name == name; });
  return at == config.keys.end() ? nullptr : &*at;
}

TEST(HfConfig, EveryPublishedConfigIsFullyKnown) {
  for (const char* name : {"config_deepseek-r1.json", "config_deepseek-r1-0528.json", "config_deepseek-v3.1.json",
                           "config_kimi-k2-instruct.json", "config_moonlight-16b-a3b-instruct.json",
                           "config_tiny_v3.json", "config_tiny_moonlight.json"}) {
    HADAL_SPEC_DATA_OR_SKIP(path, name);
    const HfConfig config = load_golden(path);
    EXPECT_EQ(config.architectures, std::vector<std::string>{"DeepseekV3ForCausalLM"}) << name;
    for (const ConfigKey& key : config.keys)
      EXPECT_NE(key.status, ConfigKey::Status::kUnknown) << name << " " << key.name;
    // Each top-level key of the file is accounted for, under its own name or as the parent of dotted ones.
    const Json json = load_json(path);
    for (const auto& [key, value] : json.items()) {
      const bool met = std::any_of(config.keys.begin(), config.keys.end(), [&, k = key](const ConfigKey& met_key) {
        return met_key.name == k || met_key.name.starts_with(k + ".");
      });
      EXPECT_TRUE(met) << name << " " << key;
    }
  }
}

TEST(HfConfig, FieldsOfV31) {
  HADAL_SPEC_DATA_OR_SKIP(path, "config_deepseek-v3.1.json");
  const HfConfig config = load_golden(path);
  EXPECT_EQ(config.model_type, "deepseek_v3");
  EXPECT_EQ(config.vocab_size, 129280);
  EXPECT_EQ(config.hidden_size, 7168);
  EXPECT_EQ(config.num_hidden_layers, 61);
  EXPECT_EQ(config.num_nextn_predict_layers, 1);
  EXPECT_EQ(config.intermediate_size, 18432);
  EXPECT_EQ(config.max_position_embeddings, 163840);
  EXPECT_EQ(config.hidden_act, "silu");
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.tie_word_embeddings, false);
  EXPECT_EQ(config.torch_dtype, "bfloat16");
  EXPECT_EQ(config.num_attention_heads, 128);
  EXPECT_EQ(config.q_lora_rank, 1536);
  EXPECT_EQ(config.kv_lora_rank, 512);
  EXPECT_EQ(config.qk_nope_head_dim, 128);
  EXPECT_EQ(config.qk_rope_head_dim, 64);
  EXPECT_EQ(config.v_head_dim, 128);
  EXPECT_EQ(config.attention_bias, false);
  EXPECT_EQ(config.rope_theta, 10000.0);
  ASSERT_TRUE(config.rope_scaling.has_value());
  EXPECT_EQ(config.rope_scaling->type, "yarn");
  EXPECT_EQ(config.rope_scaling->factor, 40.0);
  EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 4096);
  EXPECT_EQ(config.rope_scaling->beta_fast, 32.0);
  EXPECT_EQ(config.rope_scaling->beta_slow, 1.0);
  EXPECT_EQ(config.rope_scaling->mscale, 1.0);
  EXPECT_EQ(config.rope_scaling->mscale_all_dim, 1.0);
  EXPECT_EQ(config.first_k_dense_replace, 3);
  EXPECT_EQ(config.moe_layer_freq, 1);
  EXPECT_EQ(config.moe_intermediate_size, 2048);
  EXPECT_EQ(config.n_routed_experts, 256);
  EXPECT_EQ(config.n_shared_experts, 1);
  EXPECT_EQ(config.num_experts_per_tok, 8);
  EXPECT_EQ(config.n_group, 8);
  EXPECT_EQ(config.topk_group, 4);
  EXPECT_EQ(config.topk_method, "noaux_tc");
  EXPECT_EQ(config.scoring_func, "sigmoid");
  EXPECT_EQ(config.norm_topk_prob, true);
  EXPECT_EQ(config.routed_scaling_factor, 2.5);
  ASSERT_TRUE(config.quantization_config.has_value());
  EXPECT_EQ(config.quantization_config->quant_method, "fp8");
  EXPECT_EQ(config.quantization_config->fmt, "e4m3");
  EXPECT_EQ(config.quantization_config->activation_scheme, "dynamic");
  EXPECT_EQ(config.quantization_config->scale_fmt, "ue8m0");
  EXPECT_EQ(config.quantization_config->weight_block_size, (std::vector<int64_t>{128, 128}));
  EXPECT_EQ(config.bos_token_id, 0);
  EXPECT_EQ(config.eos_token_id, std::vector<int64_t>{1});

  EXPECT_EQ(find_key(config, "rope_scaling.factor")->raw_json, "40");
  EXPECT_EQ(find_key(config, "hidden_size")->status, ConfigKey::Status::kUsed);
  EXPECT_EQ(find_key(config, "ep_size")->status, ConfigKey::Status::kIgnored);
}

TEST(HfConfig, MoonlightHasNoQLoraNoYarnNoQuantization) {
  HADAL_SPEC_DATA_OR_SKIP(path, "config_moonlight-16b-a3b-instruct.json");
  const HfConfig config = load_golden(path);
  EXPECT_EQ(config.q_lora_rank, 0);  // null in the file
  EXPECT_FALSE(config.rope_scaling.has_value());
  EXPECT_FALSE(config.quantization_config.has_value());
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.n_shared_experts, 2);
}

TEST(HfConfig, NothingIsDefaulted) {
  const HfConfig config = parse_or_fail("{}");
  EXPECT_FALSE(config.q_lora_rank || config.rope_theta || config.n_group || config.rms_norm_eps || config.torch_dtype ||
               config.rope_scaling || config.quantization_config || config.bos_token_id);
  EXPECT_TRUE(config.architectures.empty() && config.eos_token_id.empty() && config.keys.empty());
}

TEST(HfConfig, NullMeansNotGivenExceptWhereItSaysNone) {
  const HfConfig config = parse_or_fail(
      R"({"hidden_size":null,"rope_scaling":null,"quantization_config":null,"n_routed_experts":null,"q_lora_rank":null,
          "sliding_window":null,"architectures":null,"eos_token_id":null})");
  EXPECT_FALSE(config.hidden_size || config.rope_scaling || config.quantization_config);
  EXPECT_EQ(config.n_routed_experts, 0);
  EXPECT_EQ(config.q_lora_rank, 0);
  EXPECT_EQ(find_key(config, "sliding_window")->status, ConfigKey::Status::kUnknown);
}

TEST(HfConfig, NewSpellingsOfTransformers) {
  const HfConfig config = parse_or_fail(
      R"({"dtype":"bfloat16","eos_token_id":[163585,163586],
          "rope_parameters":{"rope_type":"yarn","rope_theta":50000,"factor":32,"type":"yarn"}})");
  EXPECT_EQ(config.torch_dtype, "bfloat16");
  EXPECT_EQ(config.eos_token_id, (std::vector<int64_t>{163585, 163586}));
  EXPECT_EQ(config.rope_theta, 50000.0);
  ASSERT_TRUE(config.rope_scaling.has_value());
  EXPECT_EQ(config.rope_scaling->type, "yarn");
  EXPECT_EQ(config.rope_scaling->factor, 32.0);
  EXPECT_EQ(config.rope_scaling->json_name, "rope_parameters");
}

TEST(HfConfig, UnknownKeysOutsideTheStrictFamiliesAreOnlyListed) {
  const HfConfig config = parse_or_fail(R"({"chunk_size_feed_forward":0,"my_note":{"deep":[1,2]}})");
  ASSERT_EQ(config.keys.size(), 2u);
  EXPECT_EQ(config.keys[0].status, ConfigKey::Status::kUnknown);
  EXPECT_EQ(config.keys[1].raw_json, R"({"deep":[1,2]})");
}

struct Refusal {
  const char* text;
  std::vector<std::string> mentions;
};

TEST(HfConfig, RefusalsNameTheKey) {
  const std::vector<Refusal> refusals = {
      {"", {"not valid JSON"}},
      {"[]", {"array at the top"}},
      {R"({"hidden_size":1,"hidden_size":2})", {"\"hidden_size\" appears twice"}},
      // wrong types
      {R"({"hidden_size":"7168"})", {"hidden_size is \"7168\"", "integer"}},
      {R"({"hidden_size":7168.5})", {"hidden_size is 7168.5", "integer"}},
      {R"({"attention_bias":0})", {"attention_bias is 0", "true or false"}},
      {R"({"topk_method":3})", {"topk_method is 3", "string"}},
      {R"({"rope_theta":"big"})", {"rope_theta is \"big\"", "number"}},
      {R"({"architectures":"DeepseekV3ForCausalLM"})", {"architectures", "list of strings"}},
      {R"({"eos_token_id":[1,-1]})", {"eos_token_id is [1,-1]"}},
      {R"({"eos_token_id":"</s>"})", {"eos_token_id"}},
      {R"({"rope_scaling":"yarn"})", {"rope_scaling is \"yarn\"", "object"}},
      {R"({"quantization_config":[]})", {"quantization_config is []", "object"}},
      // absurd sizes
      {R"({"hidden_size":-1})", {"hidden_size is -1", "from 1"}},
      {R"({"vocab_size":0})", {"vocab_size is 0"}},
      {R"({"num_hidden_layers":2147483648})", {"num_hidden_layers is 2147483648"}},
      {R"({"num_hidden_layers":100000})", {"num_hidden_layers is 100000", "1024"}},
      {R"({"n_routed_experts":1000000})", {"n_routed_experts is 1000000", "4096"}},
      {R"({"hidden_size":18446744073709551615})", {"hidden_size is 18446744073709551615"}},
      {R"({"hidden_size":1e30})", {"hidden_size is 1e+30"}},
      {R"({"rms_norm_eps":0})", {"rms_norm_eps is 0", "above 0"}},
      {R"({"rope_theta":-10000})", {"rope_theta is -10000"}},
      {R"({"rope_scaling":{"factor":0}})", {"rope_scaling.factor is 0"}},
      {R"({"quantization_config":{"weight_block_size":[128,0]}})",
       {"quantization_config.weight_block_size is [128,0]"}},
      {R"({"quantization_config":{"weight_block_size":[128]}})", {"weight_block_size has 1 numbers"}},
      // unknown keys where they matter
      {R"({"rope_thetta":1})", {"unknown key \"rope_thetta\" = 1", "did you mean \"rope_theta\"?"}},
      {R"({"rope_scaling":{"type":"yarn","beta_fst":1}})", {"\"rope_scaling.beta_fst\"", "\"beta_fast\""}},
      {R"({"rope_scaling":{"long_factor":[1,2]}})", {"\"rope_scaling.long_factor\" = [1,2]"}},
      {R"({"quantization_config":{"kv_cache_scheme":{"num_bits":8}}})", {"\"quantization_config.kv_cache_scheme\""}},
      {R"({"num_expert_per_tok":8})", {"\"num_expert_per_tok\"", "\"num_experts_per_tok\""}},
      {R"({"topk_groups":4})", {"\"topk_groups\"", "\"topk_group\""}},
      {R"({"n_groups":4})", {"\"n_groups\"", "\"n_group\""}},
      {R"({"moe_router_bias":true})", {"\"moe_router_bias\""}},
      {R"({"index_topk":2048})", {"\"index_topk\""}},
      {R"({"sliding_window":4096})", {"\"sliding_window\" = 4096"}},
      // two spellings that contradict each other
      {R"({"torch_dtype":"bfloat16","dtype":"float16"})", {"dtype says float16", "bfloat16"}},
      {R"({"rope_scaling":{"type":"yarn","rope_type":"linear"}})", {"rope_scaling.rope_type says linear", "yarn"}},
      {R"({"rope_parameters":{"rope_theta":10000},"rope_theta":50000})", {"rope_parameters.rope_theta", "50000"}},
      {R"({"rope_parameters":{},"rope_scaling":{}})", {"both rope_scaling and rope_parameters"}},
  };
  for (const Refusal& refusal : refusals) {
    const auto config = parse_hf_config(refusal.text);
    ASSERT_FALSE(config.has_value()) << refusal.text;
    for (const std::string& mention : refusal.mentions) {
      EXPECT_NE(config.error().message.find(mention), std::string::npos)
          << refusal.text << ": \"" << mention << "\" not in: " << config.error().message;
    }
  }
}

TEST(HfConfig, CollectsAllProblemsAndKeepsTheGoodFields) {
  std::vector<Error> problems;
  const HfConfig config = parse_hf_config_collecting(
      R"({"hidden_size":-1,"vocab_size":512,"rope_scaling":{"factor":"x","beta_fast":32},"moe_foo":1})", problems);
  EXPECT_EQ(problems.size(), 3u);
  EXPECT_EQ(config.vocab_size, 512);
  EXPECT_EQ(config.rope_scaling->beta_fast, 32.0);
}

TEST(HfConfig, LoadNamesTheFile) {
  const TempDir dir;
  const auto absent = load_hf_config(dir.path());
  ASSERT_FALSE(absent.has_value());
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(write_file_atomically(dir.path() / "config.json", R"({"vocab_size":"x"})").has_value());
  const auto broken = load_hf_config(dir.path());
  ASSERT_FALSE(broken.has_value());
  EXPECT_EQ(broken.error().message.find((dir.path() / "config.json").string()), 0u) << broken.error().message;
}

}  // namespace
}  // namespace hadal
