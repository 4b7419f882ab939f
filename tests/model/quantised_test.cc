// Numerics plans: requantised weights against the formulas, and what they do to logits.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <span>

#include "base/file.h"
#include "base/json.h"
#include "formats/hf_config.h"
#include "model/config.h"
#include "model/loader.h"
#include "model/static_plan.h"
#include "numerics_plans.h"
#include "quant/profile_plan.h"
#include "support/test_files.h"
#include "tensor/block_scale.h"
#include "tensor/fp8.h"
#include "tiny_model.h"

namespace hadal {
namespace {

// A checkpoint, loaded under a plan, beside its stored tensors.
class QuantisedWeights : public testing::Test {
 protected:
  void load(const NumericsPlan& numerics, Json config_json = tiny_config(), SynthWeights kind = SynthWeights::kFp8) {
    dir_ = root_.path() / "model";
    write_tiny_checkpoint(dir_, config_json, kind);
    reload(numerics);
  }

  void reload(const NumericsPlan& numerics) {
    stored_ = read_all_tensors(dir_);
    const auto config = make_model_config(load_hf_config(dir_).value());
    ASSERT_TRUE(config.has_value()) << config.error().message;
    const Checkpoint checkpoint = Checkpoint::open(dir_).value();
    const auto plan = weight_plan(*config);
    std::vector<Error> problems;
    check_checkpoint(*config, plan, checkpoint, CheckpointState::kComplete, problems);
    ASSERT_TRUE(problems.empty()) << problems.front().message;
    weights_ = load_weights(*config, plan, checkpoint, DType::kBF16, NodeShares{}, {}, numerics).value();
  }

  // bf16(bf16(mapped code) * bf16(mapped scale)).
  float on_device(const std::string& name, int64_t row, int64_t col) const {
    const StoredTensor& tensor = stored_.at(name);
    const int64_t cols = tensor.shape[1];
    const auto code = static_cast<uint8_t>(tensor.bytes[static_cast<size_t>(row * cols + col)]);
    const auto at = static_cast<size_t>(BlockScaleLayout{}.scale_idx(row, col, cols));
    float scale;
    std::memcpy(&scale, stored_.at(name + "_scale_inv").bytes.data() + at * sizeof(float), sizeof(scale));
    return round_to_bf16(e4m3_to_f32(range_map_codes(RangeMap::kExact)[code]) * round_to_bf16(scale * 2));
  }

  std::vector<float> row_on_device(const std::string& name, int64_t row) const {
    std::vector<float> values;
    for (int64_t col = 0; col < stored_.at(name).shape[1]; ++col) values.push_back(on_device(name, row, col));
    return values;
  }

  static float largest(const std::vector<float>& values) {
    float amax = 0;
    for (const float v : values) amax = std::max(amax, std::fabs(v));
    return amax;
  }

  // Every element of a few rows, given each row's scale.
  template <typename ScaleOf>
  void expect_rows(const PackedMatrix& matrix, const std::string& name, int64_t first_row, ScaleOf scale_of) const {
    ASSERT_EQ(matrix.dtype, DType::kF8E4M3);
    ASSERT_NE(matrix.row_scales, nullptr);
    for (int64_t row = 0; row < matrix.rows; row += row == 0 ? 1 : 13) {
      const std::vector<float> values = row_on_device(name, first_row + row);
      const StaticScale scale = scale_of(values);
      ASSERT_EQ(matrix.row_scales[row], scale.scale) << name << " row " << row;
      for (int64_t col = 0; col < matrix.cols; ++col) {
        const float wanted = e4m3_to_f32(f32_to_e4m3(values[static_cast<size_t>(col)] * scale.inv, 240));
        ASSERT_EQ(packed_element(matrix, row, col), wanted) << name << " " << row << "," << col;
        ASSERT_EQ(matrix.scales[row / kPanelRows * matrix.num_scale_cols() + col / kScaleBlock], 1.0f);
      }
    }
  }

  TempDir root_;
  std::filesystem::path dir_;
  StoredTensors stored_;
  ModelWeights weights_;
};

TEST_F(QuantisedWeights, DynamicRowsFollowTheFormula) {
  const NumericsPlan plan = gaudi2_dynamic_plan();
  load(plan);
  const auto row_scale = [](const std::vector<float>& values) {
    const float scale = round_to_bf16(round_to_bf16(largest(values) + 1e-8f) / 240);
    return StaticScale{scale, round_to_bf16(1 / scale)};
  };
  const LayerWeights& layer = weights_.layers[1];
  expect_rows(layer.q_a, "model.layers.1.self_attn.q_a_proj.weight", 0, row_scale);
  expect_rows(layer.o, "model.layers.1.self_attn.o_proj.weight", 0, row_scale);
  expect_rows(layer.experts[3].down, "model.layers.1.mlp.experts.3.down_proj.weight", 0, row_scale);
  const HeadWeights& head = layer.heads[1];
  const std::string kv_b = "model.layers.1.self_attn.kv_b_proj.weight";
  const int64_t first_row = head.w_uk.rows + head.w_uv.rows;
  expect_rows(head.w_uk_f8, kv_b, first_row, row_scale);
  expect_rows(head.w_uv_f8, kv_b, first_row + head.w_uk.rows, row_scale);
  // Decode keeps the BF16 matrices.
  EXPECT_EQ(packed_element(head.w_uk, 3, 5), on_device(kv_b, first_row + 3, 5));
}

TEST_F(QuantisedWeights, RuntimeDequantKeepsBf16) {
  load(gaudi2_runtime_dequant_plan());
  const PackedMatrix& q_a = weights_.layers[0].q_a;
  ASSERT_EQ(q_a.dtype, DType::kBF16);
  for (int64_t row = 0; row < q_a.rows; row += 7) {
    for (int64_t col = 0; col < q_a.cols; col += 3) {
      ASSERT_EQ(packed_element(q_a, row, col), on_device("model.layers.0.self_attn.q_a_proj.weight", row, col));
    }
  }
}

TEST_F(QuantisedWeights, OneScaleForAModuleSpansGateAndUp) {
  NumericsPlan plan = gaudi2_static_plan();
  plan.weight_scale_per_tensor = true;
  plan.weight_rule = {.rounding = ScaleRounding::kHwAligned, .backoff = 0.5f};
  load(plan);
  const std::string prefix = "model.layers.1.mlp.experts.2.";
  float amax = 0;
  for (const char* part : {"gate_proj.weight", "up_proj.weight"}) {
    for (int64_t row = 0; row < stored_.at(prefix + part).shape[0]; ++row) {
      amax = std::max(amax, largest(row_on_device(prefix + part, row)));
    }
  }
  const StaticScale scale = scale_from_amax(amax, plan.weight_rule);
  const auto same = [&](const std::vector<float>&) { return scale; };
  expect_rows(weights_.layers[1].experts[2].gate, prefix + "gate_proj.weight", 0, same);
  expect_rows(weights_.layers[1].experts[2].up, prefix + "up_proj.weight", 0, same);
}

TEST_F(QuantisedWeights, RowsOfZerosStayZero) {
  load({});
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  StoredTensors tensors = stored_;
  std::fill_n(tensors.at(name).bytes.begin(), 2 * tensors.at(name).shape[1], std::byte{0});
  std::filesystem::remove(dir_ / "model.safetensors.index.json");
  for (const auto& file : std::filesystem::directory_iterator(dir_)) {
    if (file.path().extension() == ".safetensors") std::filesystem::remove(file.path());
  }
  write_single_file(dir_, tensors);
  reload(gaudi2_static_plan());  // no epsilon
  const PackedMatrix& down = weights_.layers[0].mlp.down;
  EXPECT_EQ(down.row_scales[1], 0.0f);
  EXPECT_EQ(packed_element(down, 1, 4), 0.0f);
  EXPECT_GT(down.row_scales[2], 0.0f);
}

// A per-channel checkpoint with static input scales, made from the tiny model's own weights.
TEST_F(QuantisedWeights, PerChannelCheckpointIsTakenAsStored) {
  load({});
  StoredTensors tensors;
  for (const auto& [name, tensor] : stored_) {
    if (name.find("layers.3.") != name.npos || name.ends_with("_scale_inv")) continue;  // no MTP layer
    tensors[name] = tensor;
    if (tensor.dtype != DType::kF8E4M3) continue;
    const auto store_floats = [&](const std::string& to, const std::vector<float>& values) {
      const auto bytes = std::as_bytes(std::span(values));
      tensors[to] = {DType::kF32, Shape{static_cast<int64_t>(values.size())}, {bytes.begin(), bytes.end()}};
    };
    std::vector<float> rows;
    for (int64_t row = 0; row < tensor.shape[0]; ++row) rows.push_back(0x1p-9f * static_cast<float>(1 + row % 7));
    store_floats(name + "_scale_inv", rows);
    const std::string module = name.substr(0, name.size() - std::string(".weight").size());
    store_floats(module + ".input_scale", {name.find("experts.5.") != name.npos ? 0.5f : 0.25f});
  }
  Json json = tiny_config();
  json["quantization_config"] = {{"activation_scheme", "static"}, {"fmt", "e4m3"}, {"quant_method", "fp8"}};
  dir_ = root_.path() / "channel";
  std::filesystem::create_directories(dir_);
  ASSERT_TRUE(write_file_atomically(dir_ / "config.json", dump_json(json)).has_value());
  write_single_file(dir_, tensors);
  const auto config = make_model_config(load_hf_config(dir_).value());
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_TRUE(config->static_input_scales);
  const auto plan = make_static_plan(NumericsProfile::kGaudi2, *config, Checkpoint::open(dir_).value());
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  EXPECT_EQ(plan->layers[0].q_a.input.scale, (StaticScale{0.25f, 4.0f}));
  EXPECT_EQ(plan->layers[1].experts.input.scale.scale, 0.5f);  // the largest of all experts
  EXPECT_EQ(plan->layers[1].expert_down_scales.at(0).scale, 0.5f);
  for (const NumericsPlan& numerics : {NumericsPlan{}, *plan}) {
    reload(numerics);
    const PackedMatrix& o = weights_.layers[2].o;
    EXPECT_EQ(o.row_scales[9], 0x1p-9f * 3);
    const StoredTensor& source = stored_.at("model.layers.2.self_attn.o_proj.weight");
    EXPECT_EQ(packed_element(o, 9, 33),
              e4m3_to_f32(static_cast<uint8_t>(source.bytes[static_cast<size_t>(9 * source.shape[1] + 33)])));
  }
  TestRunner runner(dir_, {.isa = available_isas().back(), .numerics = *plan});
  TestSequence sequence = runner.make_sequence(random_ids(20, 512, 5), 8);
  runner.run(sequence, 20);
  EXPECT_TRUE(std::isfinite(sequence.logits.back().front()));
}

// RMS of b - a over that of a, all positions.
double relative_rms(const TestSequence& a, const TestSequence& b) {
  double squares = 0, differences = 0;
  for (size_t position = 0; position < a.logits.size(); ++position) {
    for (size_t i = 0; i < a.logits[position].size(); ++i) {
      squares += std::pow(a.logits[position][i], 2);
      differences += std::pow(a.logits[position][i] - b.logits[position][i], 2);
    }
  }
  return std::sqrt(differences / squares);
}

class QuantisedLogits : public testing::Test {
 protected:
  QuantisedLogits() { write_tiny_checkpoint(root_.path() / "model", tiny_config(), SynthWeights::kFp8); }

  TestSequence run(Isa isa, const NumericsPlan& numerics, std::optional<DType> kv_dtype = std::nullopt) {
    TestRunner runner(root_.path() / "model", {.isa = isa, .kv_dtype = kv_dtype, .numerics = numerics});
    TestSequence sequence = runner.make_sequence(random_ids(60, 512, 5), 8);
    sequence.expanded_end = 32;
    runner.run(sequence, 16);
    return sequence;
  }

  TempDir root_;
};

// Quantisation is noise on these weights. The fast tables differ among themselves by the order of their sums alone,
// which moves a code only where a value lies beside a tie. A wrong scale or order of columns would leave logits that
// have nothing to do with each other (sqrt 2).
TEST_F(QuantisedLogits, AreNearTheUnquantisedAndNearerToEachOther) {
  struct Case {
    const char* name;
    NumericsPlan plan;
    std::optional<DType> kv_dtype;
  };
  const Case cases[] = {{"fp8-dynamic", fp8_dynamic_plan(), std::nullopt},
                        {"gaudi2 runtime-dequant", gaudi2_runtime_dequant_plan(), std::nullopt},
                        {"gaudi2 dynamic", gaudi2_dynamic_plan(), std::nullopt},
                        {"gaudi2 static", gaudi2_static_plan(), DType::kF8E4M3}};
  const TestSequence exact = run(Isa::kReference, {});
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const TestSequence portable = run(Isa::kPortable, c.plan, c.kv_dtype);
    const double noise = relative_rms(exact, portable);
    EXPECT_GT(noise, 0);
    EXPECT_LT(noise, 0.5);
    for (const Isa isa : available_isas()) {
      const double apart = relative_rms(portable, run(isa, c.plan, c.kv_dtype));
      std::printf("%s, %s: quantisation %.4f, tables apart %.4f\n", c.name, isa_name(isa), noise, apart);
      // The reference's activations are FP32 where the others' are BF16: its codes are others too.
      EXPECT_LT(apart, isa == Isa::kReference ? 1.5 * noise : noise / 4) << isa_name(isa);
    }
  }
}

}  // namespace
}  // namespace hadal
