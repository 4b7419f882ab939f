#include "model/config.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/json.h"
#include "model/weight_plan.h"
#include "support/test_files.h"

namespace hadal {
namespace {

// Small, complete, without any default.
Json small_config() {
  return Json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 64, "hidden_size": 32,
    "num_hidden_layers": 2, "num_nextn_predict_layers": 1, "intermediate_size": 48, "max_position_embeddings": 128,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "num_attention_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 8, "attention_bias": false, "rope_theta": 10000, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "moe_intermediate_size": 32, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 4,
    "topk_group": 2, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true,
    "routed_scaling_factor": 2.5,
    "rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 32, "beta_fast": 32,
                     "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                            "weight_block_size": [128, 128]}})");
}

Expected<ModelConfig> parse(const Json& json) {
  auto hf = parse_hf_config(json.dump());
  if (!hf) return forward_error(std::move(hf));
  return make_model_config(*hf);
}

TEST(ModelConfig, AcceptsEveryPublishedConfig) {
  for (const char* name : {"config_deepseek-r1.json", "config_deepseek-r1-0528.json", "config_deepseek-v3.1.json",
                           "config_kimi-k2-instruct.json", "config_moonlight-16b-a3b-instruct.json",
                           "config_tiny_v3.json", "config_tiny_moonlight.json"}) {
    HADAL_SPEC_DATA_OR_SKIP(path, name);
    const auto config = parse(load_json(path));
    ASSERT_TRUE(config.has_value()) << name << ": " << config.error().message;
    EXPECT_FLOAT_EQ(config->latent_norm_eps, 1e-6F);
  }
}

TEST(ModelConfig, ReadsDeepSeekR1) {
  HADAL_SPEC_DATA_OR_SKIP(path, "config_deepseek-r1.json");
  const auto config = parse(load_json(path));
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->qk_head_dim(), 192);
  EXPECT_FALSE(config->is_moe_layer(2));
  EXPECT_TRUE(config->is_moe_layer(3));
  EXPECT_TRUE(config->fp8_weights);
  EXPECT_FALSE(config->ue8m0_scales);
  EXPECT_EQ(config->router.n_group, 8);
  ASSERT_TRUE(config->yarn.has_value());
  EXPECT_EQ(config->yarn->factor, 40);
  EXPECT_TRUE(config->defaulted.empty());
  // Counted from the shapes of the published checkpoint: 90,427 main tensors and 1,564 of the MTP layer, scales
  // included.
  int64_t main = 0, mtp = 0, parameters = 0;
  for (const PlannedTensor& tensor : weight_plan(*config)) {
    (tensor.layer >= 61 ? mtp : main) += tensor.dtype == WeightDType::kQuantisable ? 2 : 1;
    if (tensor.layer < 61) parameters += tensor.shape.num_elements();
  }
  EXPECT_EQ(main, 90427);
  EXPECT_EQ(mtp, 1564);
  EXPECT_EQ(parameters, 671026419200);
}

TEST(ModelConfig, NullLoraRankIsAPlainQueryProjection) {
  Json json = small_config();
  for (const Json& value : {Json(nullptr), Json(0)}) {
    json["q_lora_rank"] = value;
    const auto config = parse(json);
    ASSERT_TRUE(config.has_value()) << config.error().message;
    EXPECT_EQ(config->q_lora_rank, 0);
    EXPECT_TRUE(config->defaulted.empty());
  }
}

TEST(ModelConfig, ListsDefaultsTaken) {
  Json json = small_config();
  for (const char* key : {"rope_theta", "moe_layer_freq", "norm_topk_prob", "q_lora_rank", "scoring_func"})
    json.erase(key);
  json["rope_scaling"].erase("mscale");
  const auto config = parse(json);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->q_lora_rank, 1536);
  EXPECT_EQ(config->rope_theta, 10000);
  EXPECT_EQ(config->defaulted.size(), 6u);
  EXPECT_NE(std::find(config->defaulted.begin(), config->defaulted.end(), "moe_layer_freq = 1"),
            config->defaulted.end());
}

TEST(ModelConfig, RopeParametersSpelling) {
  Json json = small_config();
  Json rope = json["rope_scaling"];
  json.erase("rope_scaling");
  json.erase("rope_theta");
  rope["rope_type"] = rope["type"];
  rope.erase("type");
  rope["rope_theta"] = 50000;
  json["rope_parameters"] = rope;
  const auto config = parse(json);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->rope_theta, 50000);
  EXPECT_TRUE(config->yarn.has_value());
}

struct Refusal {
  const char* pointer;  // JSON pointer of the value to change
  Json value;           // discarded: erase
  const char* named;    // must occur in the message
};

class ModelConfigRefuses : public testing::TestWithParam<Refusal> {};

TEST_P(ModelConfigRefuses, NamingTheKey) {
  const Refusal& refusal = GetParam();
  Json json = small_config();
  ASSERT_TRUE(parse(json).has_value()) << parse(json).error().message;
  const Json::json_pointer pointer(refusal.pointer);
  if (refusal.value.is_discarded()) {
    json.at(pointer.parent_pointer()).erase(pointer.back());
  } else {
    json[pointer] = refusal.value;
  }
  const auto config = parse(json);
  ASSERT_FALSE(config.has_value());
  EXPECT_NE(config.error().message.find(refusal.named), std::string::npos) << config.error().message;
}

const Json kErase(Json::value_t::discarded);

INSTANTIATE_TEST_SUITE_P(
    Values, ModelConfigRefuses,
    testing::Values(
        Refusal{"/architectures/0", "LlamaForCausalLM", "LlamaForCausalLM"},
        Refusal{"/vocab_size", kErase, "vocab_size"}, Refusal{"/hidden_size", 0, "hidden_size"},
        Refusal{"/hidden_size", int64_t{1} << 40, "hidden_size"},
        Refusal{"/num_hidden_layers", -1, "num_hidden_layers"},
        Refusal{"/num_attention_heads", 1 << 20, "num_attention_heads"},
        Refusal{"/qk_rope_head_dim", 5, "qk_rope_head_dim"}, Refusal{"/kv_lora_rank", kErase, "kv_lora_rank"},
        Refusal{"/n_group", 3, "n_group"}, Refusal{"/topk_group", 5, "topk_group"},
        Refusal{"/num_experts_per_tok", 5, "num_experts_per_tok"},
        Refusal{"/n_routed_experts", kErase, "n_routed_experts"}, Refusal{"/topk_method", "greedy", "noaux_tc"},
        Refusal{"/scoring_func", "softmax", "sigmoid"}, Refusal{"/hidden_act", "gelu", "hidden_act"},
        Refusal{"/attention_bias", true, "attention_bias"}, Refusal{"/torch_dtype", "float16", "bfloat16"},
        Refusal{"/routed_scaling_factor", kErase, "routed_scaling_factor"}, Refusal{"/rms_norm_eps", 0, "rms_norm_eps"},
        Refusal{"/rope_theta", -1, "rope_theta"}, Refusal{"/rope_scaling/type", "linear", "linear"},
        Refusal{"/rope_scaling/type", kErase, "type"}, Refusal{"/rope_scaling/factor", kErase, "factor"},
        Refusal{"/rope_scaling/factor", 0, "factor"},
        Refusal{"/rope_scaling/original_max_position_embeddings", kErase, "original_max_position_embeddings"},
        Refusal{"/first_k_dense_replace", 3, "first_k_dense_replace"}, Refusal{"/moe_layer_freq", 0, "moe_layer_freq"},
        Refusal{"/quantization_config/quant_method", "awq", "quant_method"},
        Refusal{"/quantization_config/fmt", "e5m2", "e4m3"},
        Refusal{"/quantization_config/activation_scheme", "static", "dynamic"},
        Refusal{"/quantization_config/weight_block_size", Json::array({64, 128}), "weight_block_size"},
        Refusal{"/quantization_config/scale_fmt", "e8m3", "ue8m0"}));

TEST(ModelConfig, BoundsTheLengthOfTheWeightPlan) {
  Json json = small_config();
  json["n_routed_experts"] = 4096;
  json["num_hidden_layers"] = 1024;
  const auto config = parse(json);
  ASSERT_FALSE(config.has_value());
  EXPECT_NE(config.error().message.find("n_routed_experts"), std::string::npos);
}

}  // namespace
}  // namespace hadal
