#include "synth_checkpoint/synth_checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "formats/checkpoint.h"
#include "model/config.h"
#include "model/weight_plan.h"
#include "support/test_files.h"
#include "tensor/bf16.h"
#include "tensor/block_scale.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

// Small, with every feature of V3 and widths that leave ragged blocks.
constexpr const char* kSmallConfig = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16",
  "vocab_size": 96, "hidden_size": 192, "num_hidden_layers": 2, "num_nextn_predict_layers": 1,
  "intermediate_size": 320, "moe_intermediate_size": 64, "max_position_embeddings": 64, "hidden_act": "silu",
  "rms_norm_eps": 1e-06, "tie_word_embeddings": false, "attention_bias": false, "num_attention_heads": 2,
  "num_key_value_heads": 2, "q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
  "v_head_dim": 16, "rope_theta": 10000, "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_routed_experts": 4,
  "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "topk_method": "noaux_tc",
  "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 2.5, "bos_token_id": 0,
  "eos_token_id": 1})";

// A written folder, opened and compared with the weight plan of its own config.json.
class SynthFolder {
 public:
  explicit SynthFolder(SynthOptions options) {
    options.out_dir = parent_.path() / "model";
    if (options.config_path.empty()) {
      options.config_path = parent_.path() / "small.json";
      EXPECT_TRUE(write_file_atomically(options.config_path, kSmallConfig).has_value());
    }
    const Status written = write_synth_checkpoint(options);
    EXPECT_TRUE(written.has_value()) << written.error().message;
    dir_ = options.out_dir;
    auto hf = load_hf_config(dir_);
    auto opened = Checkpoint::open(dir_);
    EXPECT_TRUE(hf.has_value()) << hf.error().message;
    EXPECT_TRUE(opened.has_value()) << opened.error().message;
    if (!hf || !opened) return;
    checkpoint_ = std::move(*opened);
    const auto config = make_model_config(*hf);
    EXPECT_TRUE(config.has_value()) << config.error().message;
    std::vector<Error> problems;
    check_checkpoint(*config, weight_plan(*config), checkpoint_, CheckpointState::kComplete, problems);
    for (const Error& problem : problems) ADD_FAILURE() << problem.message;
  }

  const fs::path& dir() const { return dir_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }

  template <typename T>
  std::vector<T> read(const std::string& name) const {
    const Checkpoint::Entry* entry = checkpoint_.find(name);
    EXPECT_NE(entry, nullptr) << name;
    if (entry == nullptr) return {};
    std::vector<T> elements(entry->info.size_bytes() / sizeof(T));
    EXPECT_TRUE(checkpoint_.read(*entry, std::as_writable_bytes(std::span(elements))).has_value());
    return elements;
  }

 private:
  TempDir parent_;
  fs::path dir_;
  Checkpoint checkpoint_;
};

float bf16_at(const SynthFolder& folder, const std::string& name, size_t i) {
  return bf16_to_f32(folder.read<bf16_t>(name).at(i));
}

size_t count_tensors(const Checkpoint& checkpoint, const std::string& prefix) {
  return static_cast<size_t>(std::count_if(checkpoint.entries().begin(), checkpoint.entries().end(),
                                           [&](const auto& entry) { return entry.info.name.starts_with(prefix); }));
}

TEST(TinyFormula, ProbesOfTheSpecification) {
  HADAL_SPEC_DATA_OR_SKIP(config, "config_tiny_v3.json");
  const SynthFolder folder({.config_path = config, .values = SynthValues::kTinyFormula});
  EXPECT_EQ(bf16_at(folder, "model.embed_tokens.weight", 0), -0.4453125F);
  EXPECT_EQ(bf16_at(folder, "model.embed_tokens.weight", 1), -0.625F);
  EXPECT_EQ(bf16_at(folder, "lm_head.weight", 0), 0.106933594F);
  EXPECT_EQ(bf16_at(folder, "model.layers.0.self_attn.q_a_proj.weight", 0), 0.0756835938F);
  EXPECT_EQ(bf16_at(folder, "model.layers.0.input_layernorm.weight", 0), 0.97265625F);
  EXPECT_FLOAT_EQ(folder.read<float>("model.layers.1.mlp.gate.e_score_correction_bias").at(0), -0.140001103F);
  EXPECT_EQ(bf16_at(folder, "model.layers.1.mlp.experts.0.down_proj.weight", 5), -0.104003906F);
  // 201 main tensors, 66 of the MTP layer and the two copies that it carries.
  EXPECT_EQ(count_tensors(folder.checkpoint(), "model.layers.4."), 66u + 2);
  EXPECT_EQ(folder.checkpoint().entries().size(), 201u + 66 + 2);
  EXPECT_EQ(folder.read<uint16_t>("model.layers.4.embed_tokens.weight"),
            folder.read<uint16_t>("model.embed_tokens.weight"));
  EXPECT_EQ(folder.read<uint16_t>("model.layers.4.shared_head.head.weight"), folder.read<uint16_t>("lm_head.weight"));
}

TEST(TinyFormula, MoonlightHasTheStatedNumberOfParameters) {
  HADAL_SPEC_DATA_OR_SKIP(config, "config_tiny_moonlight.json");
  const SynthFolder folder({.config_path = config, .values = SynthValues::kTinyFormula});
  int64_t num_parameters = 0;
  for (const auto& entry : folder.checkpoint().entries()) num_parameters += entry.info.shape.num_elements();
  EXPECT_EQ(num_parameters, 1'761'808);
}

// |w - w^| <= max(|w| / 16, scale / 1024): half a step of a normal code, half a step of a subnormal one.
TEST(TinyFormula, Fp8BlocksStayWithinHalfAStep) {
  const SynthFolder bf16({.values = SynthValues::kTinyFormula, .weights = SynthWeights::kBf16});
  const SynthFolder fp8({.values = SynthValues::kTinyFormula, .weights = SynthWeights::kFp8});
  size_t num_quantised = 0;
  for (const auto& entry : fp8.checkpoint().entries()) {
    const TensorInfo& info = entry.info;
    if (info.dtype != DType::kF8E4M3) continue;
    ++num_quantised;
    const auto codes = fp8.read<uint8_t>(info.name);
    const auto scales = fp8.read<float>(info.name + "_scale_inv");
    const auto weights = bf16.read<bf16_t>(info.name);
    ASSERT_EQ(codes.size(), weights.size()) << info.name;
    std::vector<float> largest(scales.size());
    for (size_t i = 0; i < codes.size(); ++i) {
      const auto cols = info.shape[1], at = static_cast<int64_t>(i);
      const auto block = static_cast<size_t>(BlockScaleLayout{}.scale_idx(at / cols, at % cols, cols));
      const float w = bf16_to_f32(weights[i]);
      const float decoded = e4m3_to_f32(codes[i]) * scales[block];
      ASSERT_LE(std::fabs(w - decoded), std::max(std::fabs(w) * 0x1p-4F, scales[block] * 0x1p-10F) * 1.0001F)
          << info.name << " " << i;
      largest[block] = std::max(largest[block], std::fabs(w));
    }
    for (size_t block = 0; block < scales.size(); ++block) EXPECT_EQ(scales[block], largest[block] / kE4m3Max);
  }
  EXPECT_EQ(num_quantised, 3u * 5 + 3 + 2 * (4 + 1) * 3);  // attention of 3 layers, a dense MLP, 2 MoE blocks
}

TEST(TinyFormula, PowerOfTwoScalesWhereTheConfigAsksForThem) {
  const TempDir dir;
  Json config = Json::parse(kSmallConfig);
  config["quantization_config"] = {{"quant_method", "fp8"},
                                   {"fmt", "e4m3"},
                                   {"activation_scheme", "dynamic"},
                                   {"scale_fmt", "ue8m0"},
                                   {"weight_block_size", {128, 128}}};
  ASSERT_TRUE(write_file_atomically(dir.path() / "config.json", config.dump()).has_value());
  for (const SynthValues values : {SynthValues::kTinyFormula, SynthValues::kRandom}) {
    const SynthFolder folder({.config_path = dir.path() / "config.json", .values = values});
    for (const float scale : folder.read<float>("model.layers.0.mlp.up_proj.weight_scale_inv")) {
      int exponent = 0;
      EXPECT_EQ(std::frexp(scale, &exponent), 0.5F);
    }
  }
}

// Root mean square of a tensor's values; fails on NaN.
double root_mean_square(const SynthFolder& folder, const std::string& name) {
  const TensorInfo& info = folder.checkpoint().find(name)->info;
  const bool is_fp8 = info.dtype == DType::kF8E4M3;
  const auto codes = is_fp8 ? folder.read<uint8_t>(name) : std::vector<uint8_t>();
  const auto scales = is_fp8 ? folder.read<float>(name + "_scale_inv") : std::vector<float>();
  const auto plain = is_fp8 ? std::vector<bf16_t>() : folder.read<bf16_t>(name);
  double sum = 0;
  const int64_t cols = info.shape[1];
  for (int64_t i = 0; i < info.shape.num_elements(); ++i) {
    const auto block = static_cast<size_t>(BlockScaleLayout{}.scale_idx(i / cols, i % cols, cols));
    const double value = is_fp8 ? double{e4m3_to_f32(codes[static_cast<size_t>(i)])} * scales[block]
                                : double{bf16_to_f32(plain[static_cast<size_t>(i)])};
    EXPECT_TRUE(std::isfinite(value)) << name << " " << i;
    sum += value * value;
  }
  return std::sqrt(sum / static_cast<double>(info.shape.num_elements()));
}

TEST(Random, MagnitudesKeepActivationsNearOne) {
  for (const SynthWeights weights : {SynthWeights::kFp8, SynthWeights::kBf16}) {
    const SynthFolder folder({.weights = weights, .seed = 7});
    // 1 / sqrt(in_features); random bfloat16 is placed to the nearest power of two, FP8 scales vary by a quarter.
    for (const auto& [name, expected] : std::vector<std::pair<std::string, double>>{
             {"model.layers.0.mlp.up_proj.weight", 1 / std::sqrt(192.0)},
             {"model.layers.1.mlp.experts.3.down_proj.weight", 1 / std::sqrt(64.0)},
             {"model.layers.0.self_attn.q_b_proj.weight", 1 / std::sqrt(48.0)},
             {"model.embed_tokens.weight", 1.0}}) {
      const double found = root_mean_square(folder, name);
      EXPECT_GT(found, expected / 1.5) << name;
      EXPECT_LT(found, expected * 1.5) << name;
    }
  }
}

std::vector<std::string> file_contents(const fs::path& dir) {
  std::vector<std::string> contents;
  for (const auto& entry : fs::directory_iterator(dir)) {
    contents.push_back(entry.path().filename().string() + ":" + *read_file(entry.path(), 64 << 20));
  }
  std::sort(contents.begin(), contents.end());
  return contents;
}

TEST(Random, BytesDependOnTheSeedButNotOnThreads) {
  const SynthFolder one({.weights = SynthWeights::kFp8, .seed = 1, .num_threads = 1});
  const SynthFolder three({.weights = SynthWeights::kFp8, .seed = 1, .num_threads = 3});
  const SynthFolder other({.weights = SynthWeights::kFp8, .seed = 2, .num_threads = 3});
  EXPECT_EQ(file_contents(one.dir()), file_contents(three.dir()));
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  EXPECT_NE(one.read<uint8_t>(name), other.read<uint8_t>(name));
  EXPECT_NE(one.read<uint8_t>(name), one.read<uint8_t>("model.layers.0.mlp.gate_proj.weight"));
}

// The bytes of a tensor do not depend on how it is cut into bands.
TEST(Random, BandsJoinWithoutSeams) {
  const TensorValues values{.key = 42, .offset = 0, .amplitude = 1};
  for (const SynthValues kind : {SynthValues::kRandom, SynthValues::kTinyFormula}) {
    for (const DType dtype : {DType::kF8E4M3, DType::kBF16}) {
      BandData whole, low, high;
      fill_band(values, kind, dtype, {0, 300, 37}, false, whole);
      fill_band(values, kind, dtype, {0, 256, 37}, false, low);
      fill_band(values, kind, dtype, {256, 300, 37}, false, high);
      low.elements.insert(low.elements.end(), high.elements.begin(), high.elements.end());
      low.scales.insert(low.scales.end(), high.scales.begin(), high.scales.end());
      EXPECT_EQ(whole.elements, low.elements);
      EXPECT_EQ(whole.scales, low.scales);
    }
  }
}

TEST(Layout, SmallShardsSeparateWeightsFromScalesAndAreNamedLikeTheOfficialOnes) {
  const SynthFolder folder({.weights = SynthWeights::kFp8, .shard_bytes = 12'288});
  const Checkpoint& checkpoint = folder.checkpoint();
  ASSERT_GT(checkpoint.shards().size(), 10u);
  EXPECT_EQ(checkpoint.shards()[0].path().filename(),
            fmt::format("model-00001-of-{:06}.safetensors", checkpoint.shards().size()));
  size_t num_apart = 0;
  for (const auto& entry : checkpoint.entries()) {
    const auto* scale = checkpoint.find(entry.info.name + "_scale_inv");
    num_apart += scale != nullptr && scale->shard_idx != entry.shard_idx;
  }
  EXPECT_GT(num_apart, 0u);
  const Json index = load_json(folder.dir() / kCheckpointIndexName);
  EXPECT_EQ(index["metadata"]["total_size"].get<uint64_t>(), checkpoint.total_tensor_bytes());
}

TEST(Layout, TokenizerFilesAreCopied) {
  const TempDir tokenizer;
  ASSERT_TRUE(write_file_atomically(tokenizer.path() / "tokenizer.json", "{}").has_value());
  const SynthFolder folder({.tokenizer_dir = tokenizer.path()});
  EXPECT_EQ(*read_file(folder.dir() / "tokenizer.json", 10), "{}");
}

TEST(Refusals, FoldersInUseAndBadConfigs) {
  const TempDir dir;
  const fs::path config = dir.path() / "config.json";
  ASSERT_TRUE(write_file_atomically(config, kSmallConfig).has_value());
  const Status in_use = write_synth_checkpoint({.config_path = config, .out_dir = dir.path()});
  ASSERT_FALSE(in_use.has_value());
  EXPECT_NE(in_use.error().message.find("not empty"), std::string::npos) << in_use.error().message;

  EXPECT_FALSE(write_synth_checkpoint({.config_path = dir.path() / "gone.json", .out_dir = dir.path() / "o"}));
  ASSERT_TRUE(write_file_atomically(config, R"({"architectures":["LlamaForCausalLM"]})").has_value());
  const Status llama = write_synth_checkpoint({.config_path = config, .out_dir = dir.path() / "o"});
  ASSERT_FALSE(llama.has_value());
  EXPECT_NE(llama.error().message.find("LlamaForCausalLM"), std::string::npos) << llama.error().message;
  EXPECT_FALSE(fs::exists(dir.path() / "o"));
}

}  // namespace
}  // namespace hadal
