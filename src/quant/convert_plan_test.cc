#include "quant/convert_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "base/file.h"
#include "formats/safetensors_writer.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Json kConfig = {
    {"num_hidden_layers", 2},
    {"quantization_config", {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {128, 128}}}}};

// A single-file checkpoint of zeros.
class ConvertPlanTest : public ::testing::Test {
 protected:
  Expected<ConvertPlan> plan(const std::vector<TensorToWrite>& tensors, const ConvertRequest& request,
                             const Json& config = kConfig) {
    std::vector<TensorInfo> layout;
    std::string file = build_safetensors_header(tensors, {}, &layout);
    file.resize(layout.empty() ? file.size() : layout.back().data_end);
    EXPECT_TRUE(write_file_atomically(dir_.path() / kCheckpointSingleName, file));
    auto checkpoint = Checkpoint::open(dir_.path());
    EXPECT_TRUE(checkpoint) << checkpoint.error().message;
    checkpoint_ = std::move(*checkpoint);
    return make_convert_plan(*checkpoint_, config, request);
  }

  static std::vector<TensorAction> actions(const ConvertPlan& plan) {
    std::vector<TensorAction> actions;
    for (const PlannedOutput& output : plan.shards.at(0).outputs) actions.push_back(output.action);
    return actions;
  }

 private:
  TempDir dir_;
  std::optional<Checkpoint> checkpoint_;
};

const std::vector<TensorToWrite> kLayer = {
    {"model.layers.0.o_proj.weight", DType::kF8E4M3, {130, 256}},
    {"model.layers.0.o_proj.weight_scale_inv", DType::kF32, {2, 2}},
    {"model.layers.0.norm.weight", DType::kBF16, {8}},
    {"model.layers.0.mlp.gate.e_score_correction_bias", DType::kF32, {8}},
    {"model.layers.2.eh_proj.weight", DType::kBF16, {4, 8}},
    {"model.layers.2.o_proj.weight", DType::kF8E4M3, {128, 128}},
    {"model.layers.2.o_proj.weight_scale_inv", DType::kF32, {1, 1}},
};

TEST_F(ConvertPlanTest, OnlyWeightsWithAScaleAreConverted) {
  using enum TensorAction;
  const auto exact = plan(kLayer, {.method = ConvertMethod::kExact});
  ASSERT_TRUE(exact) << exact.error().message;
  EXPECT_THAT(actions(*exact), ElementsAre(kMapCodes, kMapScales, kCopy, kCopy, kCopy, kMapCodes, kMapScales));
  EXPECT_EQ(exact->num_converted, 2u);
  EXPECT_EQ(exact->converted_codes, 130u * 256 + 128 * 128);
  EXPECT_TRUE(exact->has_sidecar());
  const auto seed = plan(kLayer, {.method = ConvertMethod::kSeed, .bug_compatible = true});
  EXPECT_THAT(actions(*seed), ElementsAre(kMapCodes, kMapScales, kCopy, kCopy, kSeedCast, kMapCodes, kMapScales));
  EXPECT_FALSE(seed->has_sidecar());
  const auto reverse = plan(kLayer, {.method = ConvertMethod::kExact, .reverse = true});
  EXPECT_THAT(actions(*reverse),
              ElementsAre(kRestoreCodes, kRestoreScales, kCopy, kCopy, kCopy, kRestoreCodes, kRestoreScales));
}

TEST_F(ConvertPlanTest, ChannelDropsTheMtpLayersAndAddsInputScales) {
  using enum TensorAction;
  const InputScales scales = {{"model.layers.0.o_proj", 0.5f}, {"model.layers.2.o_proj", 1.0f}};
  const auto channel = plan(kLayer, {.method = ConvertMethod::kChannel, .input_scales = &scales});
  ASSERT_TRUE(channel) << channel.error().message;
  EXPECT_THAT(actions(*channel), ElementsAre(kRowCodes, kRowScales, kConstant, kCopy, kCopy));
  const auto& outputs = channel->shards[0].outputs;
  EXPECT_EQ(outputs[1].shape, (Shape{130}));
  EXPECT_EQ(outputs[2].name, "model.layers.0.o_proj.input_scale");
  EXPECT_EQ(outputs[2].value, 0.5f * static_cast<float>(448.0 / 240.0));
  EXPECT_EQ(channel->dropped.size(), 3u);
  EXPECT_THAT(channel->unused_input_scales, ElementsAre("model.layers.2.o_proj"));
}

TEST_F(ConvertPlanTest, RefusalsSayWhatAndWhere) {
  struct Case {
    TensorToWrite tensor;  // added to a sound layer
    ConvertMethod method;
    const char* fragment;
  };
  const Case cases[] = {
      {{"a.weight", DType::kF8E4M3, {128, 128}}, ConvertMethod::kExact, "\"a.weight\" is F8_E4M3 and has no scale"},
      {{"a.weight_scale_inv", DType::kF32, {1, 1}}, ConvertMethod::kExact, "no F8_E4M3 weight of that name"},
      {{"a.weight_scale", DType::kF32, {1}}, ConvertMethod::kSeed, "named like a scale"},
      {{"a.weight_scale_2", DType::kF32, {1}}, ConvertMethod::kSeed, "named like a scale"},
      {{"a.k_scale", DType::kF32, {}}, ConvertMethod::kExact, "named like a scale"},
      {{"a.proj.input_scale_inv", DType::kF32, {1}}, ConvertMethod::kSeed, "--bug-compatible"},
      {{"a.weight_packed", DType::kU8, {4, 4}}, ConvertMethod::kExact, "named like a scale"},
      {{"a.weight", DType::kF8E5M2, {4, 4}}, ConvertMethod::kExact, "F8_E5M2"},
  };
  for (const Case& test : cases) {
    auto tensors = kLayer;
    tensors.push_back(test.tensor);
    const auto result = plan(tensors, {.method = test.method});
    ASSERT_FALSE(result) << test.tensor.name;
    EXPECT_THAT(result.error().message, HasSubstr(test.fragment));
    EXPECT_THAT(result.error().message, HasSubstr(test.tensor.name));
  }
}

TEST_F(ConvertPlanTest, ConfigsOfOtherSchemesAreRefused) {
  for (const auto& [key, value] :
       {std::pair<const char*, Json>("quant_method", "compressed-tensors"), std::pair<const char*, Json>("fmt", "e5m2"),
        std::pair<const char*, Json>("weight_block_size", Json::array({64, 64}))}) {
    Json config = kConfig;
    config["quantization_config"][key] = value;
    const auto result = plan(kLayer, {}, config);
    ASSERT_FALSE(result) << key;
    EXPECT_THAT(result.error().message, HasSubstr(key));
  }
  EXPECT_TRUE(plan(kLayer, {}, Json::object()));
}

TEST_F(ConvertPlanTest, NothingToConvert) {
  const auto result = plan({{"a.proj.weight", DType::kBF16, {4, 4}}}, {});
  ASSERT_TRUE(result);
  EXPECT_FALSE(result->converts());
  EXPECT_FALSE(result->has_sidecar());
}

}  // namespace
}  // namespace hadal
