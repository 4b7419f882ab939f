// Every number that a kernel will read equals the checkpoint's: codes and scales unchanged, kv_b_proj rounded once.
// Sizes are chosen so that tensors are cut into several jobs and scale blocks are ragged.
#include "model/loader.h"

#include <gtest/gtest.h>

#include <cstring>

#include "formats/hf_config.h"
#include "support/test_files.h"
#include "tensor/bf16.h"
#include "tensor/block_scale.h"
#include "tensor/fp8.h"
#include "tiny_model.h"

namespace hadal {
namespace {

// Each of lm_head, the dense MLP and kv_b_proj is larger than the 4 MiB that one job reads.
Json large_config() {
  Json config = tiny_config();
  const Json changes = Json::parse(R"({"vocab_size": 9000, "num_hidden_layers": 2, "intermediate_size": 16500,
    "num_attention_heads": 80, "kv_lora_rank": 1100, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
    "num_experts_per_tok": 2})");
  for (const auto& [key, value] : changes.items()) config[key] = value;
  return config;
}

// The value of element (row, col) as the checkpoint defines it.
class CheckpointValues {
 public:
  explicit CheckpointValues(const std::filesystem::path& dir) : tensors_(read_all_tensors(dir)) {}

  float at(const std::string& name, int64_t row, int64_t col) const {
    const StoredTensor& tensor = tensors_.at(name);
    const int64_t cols = tensor.shape[tensor.shape.rank() - 1], i = row * cols + col;
    if (tensor.dtype == DType::kF32) return element<float>(tensor, i);
    if (tensor.dtype == DType::kBF16) return bf16_to_f32(element<bf16_t>(tensor, i));
    return e4m3_to_f32(element<uint8_t>(tensor, i)) * scale(name, row, col);
  }
  float scale(const std::string& name, int64_t row, int64_t col) const {
    const int64_t cols = tensors_.at(name).shape[1];
    return element<float>(tensors_.at(name + "_scale_inv"), BlockScaleLayout{}.scale_idx(row, col, cols));
  }

 private:
  template <typename T>
  static T element(const StoredTensor& tensor, int64_t i) {
    T value;
    std::memcpy(&value, tensor.bytes.data() + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    return value;
  }

  StoredTensors tensors_;
};

class Loader : public testing::TestWithParam<std::tuple<SynthWeights, DType>> {
 protected:
  void SetUp() override {
    const auto [synth_weights, act_dtype] = GetParam();
    write_tiny_checkpoint(root_.path() / "model", large_config(), synth_weights);
    const auto hf = load_hf_config(root_.path() / "model");
    ASSERT_TRUE(hf.has_value());
    auto config = make_model_config(*hf);
    ASSERT_TRUE(config.has_value()) << config.error().message;
    config_ = *config;
    const auto checkpoint = Checkpoint::open(root_.path() / "model");
    ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    const std::vector<PlannedTensor> plan = weight_plan(config_);
    const NodeShares shares{.num_nodes = 2, .node_of_worker = {0, 1, 1}};  // panels are cut over nodes, unequally manned
    uint64_t last_done = 0, last_total = 1;
    auto weights = load_weights(config_, plan, *checkpoint, act_dtype, shares, [&](uint64_t done, uint64_t total) {
      EXPECT_LE(done, total);
      last_done = done;
      last_total = total;
    });
    ASSERT_TRUE(weights.has_value()) << weights.error().message;
    EXPECT_EQ(last_done, last_total);
    weights_ = std::move(*weights);
    uint64_t allocated = 0;
    for (const AlignedBuffer& arena : weights_.arenas) allocated += arena.size_bytes();
    EXPECT_EQ(allocated, weight_memory_bytes(config_, plan, *checkpoint, act_dtype));
    values_ = std::make_unique<CheckpointValues>(root_.path() / "model");
  }

  // Row and column steps are coprime to panels, pairs and scale blocks.
  void expect_matrix(const PackedMatrix& matrix, const std::string& name) const {
    SCOPED_TRACE(name);
    const bool f32 = std::get<1>(GetParam()) == DType::kF32;
    EXPECT_EQ(matrix.dtype == DType::kF32, f32);
    for (int64_t row = 0; row < matrix.rows; row += row % 37 == 0 ? 1 : 5) {
      for (int64_t col = 0; col < matrix.cols; col += 3) {
        float got = packed_element(matrix, row, col);
        if (matrix.dtype == DType::kF8E4M3) {
          got *= matrix.scales[row / kPanelRows * matrix.num_scale_cols() + col / kScaleBlock];
        }
        ASSERT_EQ(got, values_->at(name, row, col)) << "row " << row << " col " << col;
      }
    }
  }

  void expect_vector(const float* vector, int64_t size, const std::string& name) const {
    for (int64_t i = 0; i < size; ++i) ASSERT_EQ(vector[i], values_->at(name, 0, i)) << name << " " << i;
  }

  void expect_mlp(const MlpWeights& mlp, const std::string& prefix) const {
    expect_matrix(mlp.gate, prefix + ".gate_proj.weight");
    expect_matrix(mlp.up, prefix + ".up_proj.weight");
    expect_matrix(mlp.down, prefix + ".down_proj.weight");
  }

  TempDir root_;
  ModelConfig config_;
  ModelWeights weights_;
  std::unique_ptr<CheckpointValues> values_;
};

TEST_P(Loader, EveryMatrixAndVector) {
  expect_matrix(weights_.lm_head, "lm_head.weight");
  expect_vector(weights_.final_norm, config_.hidden_size, "model.norm.weight");
  const auto* embedding = reinterpret_cast<const bf16_t*>(weights_.embed_tokens);
  for (int64_t i = 0; i < config_.vocab_size * config_.hidden_size; i += 7) {
    ASSERT_EQ(bf16_to_f32(embedding[i]), values_->at("model.embed_tokens.weight", 0, i));
  }
  for (size_t l = 0; l < weights_.layers.size(); ++l) {
    const LayerWeights& layer = weights_.layers[l];
    const std::string prefix = fmt::format("model.layers.{}.", l);
    expect_vector(layer.input_norm, config_.hidden_size, prefix + "input_layernorm.weight");
    expect_vector(layer.post_attention_norm, config_.hidden_size, prefix + "post_attention_layernorm.weight");
    expect_matrix(layer.q_a, prefix + "self_attn.q_a_proj.weight");
    expect_vector(layer.q_a_norm, config_.q_lora_rank, prefix + "self_attn.q_a_layernorm.weight");
    expect_matrix(layer.q, prefix + "self_attn.q_b_proj.weight");
    expect_matrix(layer.kv_a, prefix + "self_attn.kv_a_proj_with_mqa.weight");
    expect_vector(layer.kv_a_norm, config_.kv_lora_rank, prefix + "self_attn.kv_a_layernorm.weight");
    expect_matrix(layer.o, prefix + "self_attn.o_proj.weight");
    EXPECT_EQ(layer.is_moe, l == 1);
    expect_mlp(layer.mlp, prefix + (layer.is_moe ? "mlp.shared_experts" : "mlp"));
    if (!layer.is_moe) continue;
    expect_matrix(layer.router, prefix + "mlp.gate.weight");
    expect_vector(layer.router_bias, 4, prefix + "mlp.gate.e_score_correction_bias");
    for (size_t e = 0; e < 4; ++e) expect_mlp(layer.experts[e], fmt::format("{}mlp.experts.{}", prefix, e));
  }
}

TEST_P(Loader, KvBPerHeadRoundedOnce) {
  const bool f32 = std::get<1>(GetParam()) == DType::kF32;
  const std::string name = "model.layers.1.self_attn.kv_b_proj.weight";
  const int64_t head_rows = config_.qk_nope_head_dim + config_.v_head_dim;
  for (int64_t h = 0; h < config_.num_attention_heads; ++h) {
    const HeadWeights& head = weights_.layers[1].heads[static_cast<size_t>(h)];
    for (int64_t row = 0; row < head_rows; ++row) {
      for (int64_t col = h % 3; col < config_.kv_lora_rank; col += 7) {
        const float exact = values_->at(name, h * head_rows + row, col);
        const float wanted = f32 ? exact : round_to_bf16(exact);
        const int64_t value_row = row - config_.qk_nope_head_dim;
        const float got =
            value_row < 0 ? packed_element(head.w_uk, row, col) : packed_element(head.w_uv, value_row, col);
        ASSERT_EQ(got, wanted) << "head " << h << " row " << row << " col " << col;
        if (value_row < 0) {
          ASSERT_EQ(packed_element(head.w_uk_t, col, row), wanted) << "head " << h;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Loader,
                         testing::Combine(testing::Values(SynthWeights::kFp8, SynthWeights::kBf16),
                                          testing::Values(DType::kBF16, DType::kF32)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param) == SynthWeights::kFp8 ? "fp8" : "bf16") + "_to_" +
                                  (std::get<1>(test.param) == DType::kF32 ? "f32" : "bf16");
                         });

TEST(LoaderTied, HeadIsTheEmbedding) {
  const TempDir root;
  Json json = tiny_config();
  json["tie_word_embeddings"] = true;
  write_tiny_checkpoint(root.path() / "model", json, SynthWeights::kBf16);
  const auto checkpoint = Checkpoint::open(root.path() / "model");
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->find("lm_head.weight"), nullptr);
  const auto config = make_model_config(*load_hf_config(root.path() / "model"));
  ASSERT_TRUE(config.has_value());
  const std::vector<PlannedTensor> plan = weight_plan(*config);
  const auto weights = load_weights(*config, plan, *checkpoint, DType::kBF16, NodeShares{});
  ASSERT_TRUE(weights.has_value()) << weights.error().message;
  const CheckpointValues values(root.path() / "model");
  for (int64_t row = 0; row < 512; ++row) {
    ASSERT_EQ(packed_element(weights->lm_head, row, row % 256), values.at("model.embed_tokens.weight", row, row % 256));
  }
}

}  // namespace
}  // namespace hadal
