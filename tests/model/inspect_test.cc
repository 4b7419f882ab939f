// Each kind of damage that config.json and the weight plan can reveal is named, and the loader refuses what inspect
// reports.
#include "model/inspect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <numeric>

#include "model/load_model.h"
#include "support/test_files.h"
#include "tiny_model.h"

namespace hadal {
namespace {

const std::string kKvA = "model.layers.1.self_attn.kv_a_proj_with_mqa.weight";

void resize(StoredTensor& tensor, DType dtype, Shape shape) {
  tensor = {dtype, shape, std::vector<std::byte>(*shape.checked_size_bytes(dtype))};
}

struct Damage {
  const char* name;
  void (*apply)(StoredTensors&);
  const char* named;  // must occur in the only problem
};

const Damage kDamages[] = {
    {"missing_tensor", [](StoredTensors& t) { t.erase("model.layers.2.mlp.experts.7.up_proj.weight"); },
     "model.layers.2.mlp.experts.7.up_proj.weight is missing"},
    {"missing_scale", [](StoredTensors& t) { t.erase(kKvA + "_scale_inv"); }, "kv_a_proj_with_mqa.weight_scale_inv"},
    {"wrong_shape", [](StoredTensors& t) { resize(t["model.norm.weight"], DType::kBF16, {255}); },
     "model.norm.weight: shape [255], config.json asks for [256]"},
    {"wrong_scale_shape",
     [](StoredTensors& t) {
       resize(t[kKvA + "_scale_inv"], DType::kF32, {1, 1});
     },
     "ask for [1, 2]"},
    {"wrong_scale_dtype",
     [](StoredTensors& t) {
       resize(t[kKvA + "_scale_inv"], DType::kBF16, {1, 2});
     },
     "dtype BF16, supported is F32"},
    {"wrong_dtype", [](StoredTensors& t) { resize(t["model.layers.0.input_layernorm.weight"], DType::kF16, {256}); },
     "dtype F16, supported is BF16"},
    {"quantised_head",
     [](StoredTensors& t) {
       resize(t["lm_head.weight"], DType::kF8E4M3, {512, 256});
     },
     "lm_head.weight: dtype F8_E4M3"},
    {"unexpected",
     [](StoredTensors& t) {
       resize(t["model.layers.1.self_attn.q_proj.weight"], DType::kBF16, {8, 8});
     },
     "q_proj.weight is not part of this model"},
    {"half_an_mtp_layer", [](StoredTensors& t) { t.erase("model.layers.3.hnorm.weight"); },
     "model.layers.3.hnorm.weight is missing"},
    {"gate_unlike_up",
     [](StoredTensors& t) {
       resize(t["model.layers.0.mlp.up_proj.weight"], DType::kBF16, {512, 256});
     },
     "both must be alike"},
};

class Inspect : public testing::Test {
 protected:
  static const std::filesystem::path& sound_dir() {
    static TempDir root;
    static const std::filesystem::path dir = [] {
      const auto path = root.path() / "sound";
      write_tiny_checkpoint(path, tiny_config(), SynthWeights::kFp8);
      return path;
    }();
    return dir;
  }
  // A copy of the sound folder with its tensors changed, as one file.
  std::filesystem::path damaged(void (*apply)(StoredTensors&)) {
    const auto dir = root_.path() / "damaged";
    std::filesystem::create_directories(dir);
    std::filesystem::copy_file(sound_dir() / "config.json", dir / "config.json");
    StoredTensors tensors = read_all_tensors(sound_dir());
    apply(tensors);
    write_single_file(dir, tensors);
    return dir;
  }
  static ModelInspection inspect(const std::filesystem::path& dir) {
    return inspect_model(dir, kernels_for(Isa::kPortable));
  }
  static void expect_refused(const std::filesystem::path& dir) {
    EXPECT_FALSE(load_deepseek_v3(dir, {.kernels = &kernels_for(Isa::kPortable), .num_threads = 1}).has_value());
  }

  TempDir root_;
};

TEST_F(Inspect, SoundFolderHasNoProblemsAndAllSizes) {
  const ModelInspection found = inspect(sound_dir());
  ASSERT_TRUE(found.problems.empty()) << found.problems[0].message;
  ASSERT_TRUE(found.config.has_value());
  EXPECT_EQ(found.sizes.size(), 9u);
  const uint64_t sum = std::accumulate(found.sizes.begin(), found.sizes.end(), uint64_t{0},
                                       [](uint64_t total, const auto& size) { return total + size.checkpoint_bytes; });
  EXPECT_EQ(sum, found.checkpoint_bytes);
  EXPECT_GT(found.weight_memory_bytes, 0u);
}

TEST_F(Inspect, EachDamageIsTheOnlyProblemAndNamed) {
  for (const Damage& damage : kDamages) {
    SCOPED_TRACE(damage.name);
    const auto dir = damaged(damage.apply);
    const ModelInspection found = inspect(dir);
    std::string all;
    for (const Error& problem : found.problems) all += problem.message + "\n";
    EXPECT_EQ(found.problems.size(), 1u) << all;
    EXPECT_NE(all.find(damage.named), std::string::npos) << all;
    expect_refused(dir);
    std::filesystem::remove_all(dir);
  }
}

TEST_F(Inspect, HarmlessDeviationsAreAccepted) {
  const auto dir = damaged([](StoredTensors& t) {
    resize(t["model.layers.0.self_attn.rotary_emb.inv_freq"], DType::kF32, {8});
    resize(t["model.layers.4.input_layernorm.weight"], DType::kBF16, {7});  // behind the planned layers
    t.erase("model.layers.3.embed_tokens.weight");                          // a copy
    resize(t.at(kKvA), DType::kBF16, {80, 256});                            // its scale is then not used
    resize(t.at("model.layers.1.mlp.gate.e_score_correction_bias"), DType::kBF16, {16});
  });
  const ModelInspection found = inspect(dir);
  EXPECT_TRUE(found.problems.empty()) << found.problems[0].message;
}

TEST_F(Inspect, MtpLayerMayBeAbsentAltogether) {
  const auto dir = damaged(
      [](StoredTensors& t) { std::erase_if(t, [](const auto& e) { return e.first.starts_with("model.layers.3."); }); });
  const ModelInspection found = inspect(dir);
  EXPECT_TRUE(found.problems.empty()) << found.problems[0].message;
}

TEST_F(Inspect, AllProblemsAreCollected) {
  const auto dir = damaged([](StoredTensors& t) {
    for (const Damage& damage : kDamages) damage.apply(t);
  });
  // Three of them hit the same scale, and the last one stays.
  EXPECT_EQ(inspect(dir).problems.size(), std::size(kDamages) - 2);
}

TEST_F(Inspect, Fp8WithoutQuantizationConfig) {
  const auto dir = damaged([](StoredTensors&) {});
  Json config = load_json(dir / "config.json");
  config.erase("quantization_config");
  std::ofstream(dir / "config.json") << config.dump();
  const ModelInspection found = inspect(dir);
  ASSERT_EQ(found.problems.size(), 1u);
  EXPECT_NE(found.problems[0].message.find("no quantization_config"), std::string::npos) << found.problems[0].message;
}

TEST_F(Inspect, DamagedShardDoesNotMakeItsTensorsMissing) {
  const auto dir = damaged([](StoredTensors&) {});
  std::filesystem::resize_file(dir / kCheckpointSingleName, 100000);
  const ModelInspection found = inspect(dir);
  EXPECT_EQ(found.problems.size(), 1u);
  expect_refused(dir);
}

TEST_F(Inspect, UnusableConfigStillReportsItsOwnProblems) {
  const auto dir = damaged([](StoredTensors&) {});
  Json config = load_json(dir / "config.json");
  config["topk_method"] = "greedy";
  config["hidden_act"] = "gelu";
  std::ofstream(dir / "config.json") << config.dump();
  const ModelInspection found = inspect(dir);
  EXPECT_EQ(found.problems.size(), 2u);
  EXPECT_FALSE(found.config.has_value());
}

}  // namespace
}  // namespace hadal
