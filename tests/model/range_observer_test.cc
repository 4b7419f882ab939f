// The ranges of a calibration: what they must be by construction, that the run around them does not matter, and that
// looking does not change what is looked at.
#include "model/range_observer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

#include "base/file.h"
#include "formats/hf_config.h"
#include "quant/range_fields.h"
#include "support/test_files.h"
#include "tensor/block_scale.h"
#include "tensor/fp8.h"
#include "tiny_model.h"

namespace hadal {
namespace {

constexpr int64_t kPromptTokens = 150, kTokens = 160;
const std::vector<int64_t> kWorldSizes = {1, 2, 4};

RangeObserver make_observer(const std::filesystem::path& dir) {
  return RangeObserver::create(make_model_config(load_hf_config(dir).value()).value(), kWorldSizes).value();
}

struct RunOptions {
  Isa isa = available_isas().back();
  int num_threads = 1;
  int64_t block_size = 16;
  int64_t chunk = kTokens;
};

// Runs one sequence, whose prompt is in the expanded form.
TestSequence run(const std::filesystem::path& dir, RangeObserver* ranges, const RunOptions& options, uint32_t seed = 3,
                 ForwardObserver observer = {}, int64_t num_tokens = kTokens, int64_t expanded_end = kPromptTokens) {
  TestRunner runner(dir, {.isa = options.isa,
                          .num_threads = options.num_threads,
                          .block_size = options.block_size,
                          .observer = std::move(observer),
                          .ranges = ranges});
  TestSequence sequence = runner.make_sequence(random_ids(static_cast<size_t>(num_tokens), 512, seed), 1);
  sequence.expanded_end = expanded_end;
  runner.run(sequence, options.chunk);
  return sequence;
}

RangeSet measure(const std::filesystem::path& dir, const RunOptions& options = {}) {
  RangeObserver observer = make_observer(dir);
  run(dir, &observer, options);
  EXPECT_TRUE(check_range_set(observer.ranges()).has_value());
  return observer.ranges();
}

class Ranges : public testing::Test {
 protected:
  Ranges() {
    write_tiny_checkpoint(fp8_, tiny_config(), SynthWeights::kFp8);
    write_tiny_checkpoint(bf16_, tiny_config(), SynthWeights::kBf16);
  }

  // The BF16 checkpoint with rows [begin, end) of some tensors times `factor`, a power of two or zero.
  std::filesystem::path scaled(const std::vector<std::string>& names, int64_t begin, int64_t end, float factor = 2) {
    const std::filesystem::path dir = root_.path() / fmt::format("scaled{}", num_scaled_++);
    std::filesystem::create_directories(dir);
    std::filesystem::copy(bf16_ / "config.json", dir / "config.json");
    StoredTensors tensors = read_all_tensors(bf16_);
    for (const std::string& name : names) {
      StoredTensor& tensor = tensors.at(name);
      const int64_t row = tensor.shape.rank() == 2 ? tensor.shape[1] : 1;
      for (int64_t i = begin * row; i < end * row; ++i) {
        bf16_t value;
        std::memcpy(&value, &tensor.bytes[static_cast<size_t>(2 * i)], 2);
        value = f32_to_bf16(bf16_to_f32(value) * factor);
        std::memcpy(&tensor.bytes[static_cast<size_t>(2 * i)], &value, 2);
      }
    }
    write_single_file(dir, tensors);
    return dir;
  }

  TempDir root_;
  const std::filesystem::path fp8_ = root_.path() / "fp8", bf16_ = root_.path() / "bf16";
  int num_scaled_ = 0;
};

TEST_F(Ranges, LookingChangesNoBit) {
  for (const Isa isa : available_isas()) {
    if (isa == Isa::kReference) continue;
    RangeObserver observer = make_observer(fp8_);
    const TestSequence plain = run(fp8_, nullptr, {.isa = isa}), observed = run(fp8_, &observer, {.isa = isa});
    EXPECT_EQ(plain.logits, observed.logits) << isa_name(isa);
  }
}

TEST_F(Ranges, DependOnTheTokensAlone) {
  for (const auto& dir : {fp8_, bf16_}) {
    const RangeSet whole = measure(dir);
    for (const RunOptions& options : {RunOptions{.chunk = 7}, RunOptions{.num_threads = 3, .chunk = 64},
                                      RunOptions{.num_threads = 2, .block_size = 5}}) {
      EXPECT_EQ(measure(dir, options).layers, whole.layers);
    }
  }
}

TEST_F(Ranges, AResumedRunEqualsAWholeOne) {
  RangeObserver whole = make_observer(fp8_), first = make_observer(fp8_), second = make_observer(fp8_);
  run(fp8_, &whole, {}, 3);
  run(fp8_, &whole, {}, 4);
  run(fp8_, &first, {}, 3);
  const Expected<RangeSet> stored = range_set_from_json(range_set_to_json(first.ranges()));
  ASSERT_TRUE(stored.has_value()) << stored.error().message;
  ASSERT_TRUE(second.resume(*stored).has_value());
  run(fp8_, &second, {}, 4);
  EXPECT_EQ(range_set_to_json(second.ranges()), range_set_to_json(whole.ranges()));
  EXPECT_NE(range_set_to_json(second.ranges()), range_set_to_json(first.ranges()));
}

TEST_F(Ranges, OfAnotherModelOrWorldSizeAreNotResumed) {
  RangeObserver observer = make_observer(fp8_);
  RangeSet other = observer.ranges();
  other.layers[1].moe_out.erase(4);
  const Status missing = observer.resume(other);
  ASSERT_FALSE(missing.has_value());
  EXPECT_NE(missing.error().message.find("world size 4"), std::string::npos) << missing.error().message;
  other.dims.n_routed_experts = 8;
  const Status another = observer.resume(other);
  ASSERT_FALSE(another.has_value());
  EXPECT_NE(another.error().message.find("n_routed_experts"), std::string::npos) << another.error().message;
  const auto config = make_model_config(load_hf_config(fp8_).value()).value();
  EXPECT_EQ(RangeObserver::create(config, {3}).error().code, ErrorCode::kInvalidArgument);  // 4 heads
}

TEST_F(Ranges, Invariants) {
  const RangeSet set = measure(fp8_);
  for (size_t l = 0; l < set.layers.size(); ++l) {
    const LayerRanges& layer = set.layers[l];
    for (const RangeScalarField& field : range_scalar_fields()) EXPECT_GT(layer.*field.member, 0) << field.name;
    for (const RangeListField& field : range_list_fields()) {
      for (const float v : layer.*field.member) EXPECT_GE(v, 0) << field.name << " of layer " << l;
    }
    EXPECT_GE(layer.latent_value, layer.kv_b_in);
    EXPECT_GE(layer.latent_cache, layer.latent_value);
    EXPECT_EQ(layer.softmax, 1);
    for (size_t head = 0; head < layer.o_in.size(); ++head) {
      EXPECT_GE(layer.o_in[head], layer.sdpa_out[head]);
      EXPECT_LE(layer.sdpa_out[head], layer.sdpa_v[head] * (1 + 0x1p-7f));  // a mean, up to rounding
      EXPECT_GE(layer.batch2block[head], layer.absorbed_q[head]);
    }
    if (!set.dims.is_moe_layer(static_cast<int64_t>(l))) continue;
    const uint64_t pairs = std::accumulate(layer.expert_tokens.begin(), layer.expert_tokens.end(), uint64_t{0});
    EXPECT_EQ(pairs, static_cast<uint64_t>(kTokens) * 4);
    for (size_t expert = 0; expert < layer.expert_tokens.size(); ++expert) {
      EXPECT_EQ(layer.expert_tokens[expert] == 0, layer.expert_down_in[expert] == 0);
    }
    // The sum of all ranks' outputs is no larger than the sum of their largest.
    for (const auto& [world_size, ranks] : layer.moe_out) {
      const float sum = std::accumulate(ranks.begin(), ranks.end(), 0.0f);
      EXPECT_LE(layer.moe_out.at(1)[0], sum * (1 + 0x1p-7f)) << world_size;
      EXPECT_GT(ranks.back(), 0);
    }
  }
}

// One position attends to itself with weight 1, so attention hands the value on.
TEST_F(Ranges, OfASinglePosition) {
  RangeObserver prompt = make_observer(bf16_), decode = make_observer(bf16_);
  run(bf16_, &prompt, {}, 3, {}, 1, 1);
  run(bf16_, &decode, {}, 3, {}, 1, 0);
  for (size_t l = 0; l < 3; ++l) {
    const LayerRanges& p = prompt.ranges().layers[l];
    EXPECT_EQ(p.sdpa_out, p.sdpa_v);
    EXPECT_EQ(p.o_in, p.sdpa_v);
    EXPECT_EQ(p.absorbed_q, std::vector<float>(4, kUnmeasured));
    const LayerRanges& d = decode.ranges().layers[l];
    EXPECT_EQ(d.sdpa_v, std::vector<float>(4, kUnmeasured));
    EXPECT_EQ(d.kv_b_in, kUnmeasured);
    for (size_t head = 0; head < 4; ++head) {
      // The sum of one block's probabilities is 1, and so is the group's.
      EXPECT_EQ(d.block2batch[head], std::max(1.0f, d.latent_value));
      EXPECT_EQ(d.batch2block[head], std::max(1.0f, d.absorbed_q[head]));
    }
  }
}

using Slots = std::set<std::string>;

// Fields of `fields` as "name" or "name[i]": twice the value in `doubled`, anything in `free`, else unchanged.
void expect_doubled(const LayerRanges& before, const LayerRanges& after, const Slots& fields, const Slots& doubled,
                    const Slots& free = {}) {
  const auto check = [&](const std::string& field, const std::string& slot, float was, float is) {
    if (free.contains(field) || free.contains(slot)) return;
    const bool is_doubled = doubled.contains(field) || doubled.contains(slot);
    EXPECT_GT(was, 0) << slot;
    EXPECT_EQ(is, is_doubled ? 2 * was : was) << slot;
  };
  for (const RangeScalarField& field : range_scalar_fields()) {
    if (fields.contains(field.name)) check(field.name, field.name, before.*field.member, after.*field.member);
  }
  for (const RangeListField& field : range_list_fields()) {
    for (size_t i = 0; fields.contains(field.name) && i < (before.*field.member).size(); ++i) {
      check(field.name, fmt::format("{}[{}]", field.name, i), (before.*field.member)[i], (after.*field.member)[i]);
    }
  }
}

const Slots kAttention = {"attention_in", "q_b_in",   "kv_b_in", "latent_value", "latent_cache", "sdpa_q",     "sdpa_k",
                          "sdpa_v",       "sdpa_out", "o_in",    "absorbed_q",   "batch2block",  "block2batch"};
const Slots kMlp = {"mlp_in", "down_in", "expert_down_in"};

// Powers of two pass through linears without a rounding, so what they enter doubles exactly, and nothing before it or
// beside it moves.
TEST_F(Ranges, AttentionInputsAreFoundWhereTheyBelong) {
  const RangeSet before = measure(bf16_);
  const std::string attention = "model.layers.2.self_attn.";
  const auto expect = [&](const std::string& tensor, int64_t begin, int64_t end, const Slots& doubled,
                          const Slots& free = {}) {
    SCOPED_TRACE(tensor);
    expect_doubled(before.layers[2], measure(scaled({tensor}, begin, end)).layers[2], kAttention, doubled, free);
  };
  // Head 1: 32 rows of K, 32 of V.
  expect(attention + "kv_b_proj.weight", 96, 128, {"sdpa_v[1]", "sdpa_out[1]", "o_in[1]"});
  expect(attention + "q_b_proj.weight", 96, 144, {"sdpa_q[2]", "absorbed_q[2]"},
         {"sdpa_out[2]", "o_in[2]", "batch2block[2]", "block2batch[2]"});
  expect(attention + "kv_a_layernorm.weight", 0, 64, {"kv_b_in", "latent_value", "sdpa_v"},
         {"latent_cache", "sdpa_k", "sdpa_out", "o_in", "absorbed_q", "batch2block", "block2batch"});
  expect(attention + "q_a_layernorm.weight", 0, 96, {"q_b_in", "sdpa_q", "absorbed_q"},
         {"sdpa_out", "o_in", "batch2block", "block2batch"});
  const RangeSet after = measure(scaled({"model.layers.2.input_layernorm.weight"}, 0, 256));
  EXPECT_EQ(after.layers[2].attention_in, 2 * before.layers[2].attention_in);
}

TEST_F(Ranges, MlpInputsAreFoundWhereTheyBelong) {
  const RangeSet before = measure(bf16_);
  const std::string mlp = "model.layers.2.mlp.";
  const auto expect = [&](size_t layer, const std::string& tensor, int64_t begin, int64_t end, const Slots& doubled,
                          const Slots& free = {}) {
    SCOPED_TRACE(tensor);
    expect_doubled(before.layers[layer], measure(scaled({tensor}, begin, end)).layers[layer], kMlp, doubled, free);
  };
  expect(2, mlp + "experts.5.up_proj.weight", 0, 128, {"expert_down_in[5]"});
  expect(2, mlp + "shared_experts.up_proj.weight", 24, 32, {"down_in[3]"});  // leaves of 8 columns
  expect(0, "model.layers.0.mlp.up_proj.weight", 64, 96, {"down_in[2]"});    // leaves of 32 columns
  expect(2, "model.layers.2.post_attention_layernorm.weight", 0, 256, {"mlp_in"}, {"down_in", "expert_down_in"});
}

TEST_F(Ranges, EveryRanksExpertOutputIsItsOwn) {
  const RangeSet before = measure(bf16_);
  std::vector<std::string> names;
  for (int expert = 8; expert < 12; ++expert) {
    names.push_back(fmt::format("model.layers.2.mlp.experts.{}.down_proj.weight", expert));
  }
  const RangeSet after = measure(scaled(names, 0, 256));
  const auto &was = before.layers[2].moe_out, &is = after.layers[2].moe_out;
  EXPECT_EQ(is.at(4), (std::vector<float>{was.at(4)[0], was.at(4)[1], 2 * was.at(4)[2], was.at(4)[3]}));
  EXPECT_EQ(is.at(2)[0], was.at(2)[0]);
  EXPECT_GT(is.at(2)[1], was.at(2)[1]);
}

// Without the layer's attention and shared expert, the residual stream grows by the experts' output alone: by
// routed_scaling_factor (2.5) times what the device op returns. The sum into the stream rounds to 2^-24 of the stream,
// the range to 2^-8 of itself.
TEST_F(Ranges, ExpertOutputIsWhatTheResidualGains) {
  const std::string layer = "model.layers.2.";
  const auto dir =
      scaled({layer + "self_attn.o_proj.weight", layer + "mlp.shared_experts.down_proj.weight"}, 0, 256, 0);
  std::map<int64_t, std::vector<float>> residual;
  RangeObserver observer = make_observer(dir);
  run(dir, &observer, {}, 3, [&](std::string_view name, int64_t layer_idx, const TensorView& values) {
    if (name != "residual") return;
    const auto elements = values.elements<float>();
    residual[layer_idx].assign(elements.begin(), elements.end());
  });
  float gain = 0, largest = 0, normed = 0;
  for (size_t i = 0; i < residual.at(2).size(); ++i) {
    gain = std::max(gain, std::fabs(residual.at(2)[i] - residual.at(1)[i]));
    largest = std::max({largest, std::fabs(residual.at(2)[i]), std::fabs(residual.at(1)[i])});
  }
  const LayerRanges& ranges = observer.ranges().layers[2];
  EXPECT_NEAR(ranges.moe_out.at(1)[0], gain / 2.5f, gain / 2.5f * 0x1p-8f + largest * 0x1p-22f);
  // The layer's input is the normalised stream.
  const StoredTensor norm = read_all_tensors(dir).at(layer + "input_layernorm.weight");
  for (size_t row = 0; row < residual.at(1).size() / 256; ++row) {
    const float* x = &residual.at(1)[row * 256];
    double squares = 0;
    for (int i = 0; i < 256; ++i) squares += static_cast<double>(x[i]) * x[i];
    for (size_t i = 0; i < 256; ++i) {
      bf16_t weight;
      std::memcpy(&weight, &norm.bytes[2 * i], 2);
      normed =
          std::max(normed, std::fabs(static_cast<float>(x[i] / std::sqrt(squares / 256 + 1e-6)) * bf16_to_f32(weight)));
    }
  }
  EXPECT_NEAR(ranges.attention_in, normed, normed * 0x1p-8f);
}

TEST_F(Ranges, WeightsAreThoseOfTheCheckpoint) {
  const RangeSet set = measure(fp8_);
  const StoredTensors tensors = read_all_tensors(fp8_);
  // Largest of rows and columns [begin, end) of a tensor, dequantised; kv_b_proj is kept in BF16, its scales are not
  // rounded before the product.
  const auto largest = [&](const std::string& name, int64_t row_begin, int64_t row_end, int64_t col_begin = 0,
                           int64_t col_end = -1) {
    const StoredTensor& tensor = tensors.at(name);
    const bool exact_scale = name.find("kv_b_proj") != std::string::npos;
    const int64_t cols = tensor.shape[1];
    float amax = 0;
    for (int64_t row = row_begin; row < (row_end < 0 ? tensor.shape[0] : row_end); ++row) {
      for (int64_t col = col_begin; col < (col_end < 0 ? cols : col_end); ++col) {
        float scale;
        std::memcpy(&scale,
                    &tensors.at(name + "_scale_inv")
                         .bytes[4 * static_cast<size_t>(BlockScaleLayout{}.scale_idx(row, col, cols))],
                    4);
        const float code = e4m3_to_f32(static_cast<uint8_t>(tensor.bytes[static_cast<size_t>(row * cols + col)]));
        amax = std::max(amax, std::fabs(round_to_bf16(code * (exact_scale ? scale : round_to_bf16(scale)))));
      }
    }
    return amax;
  };
  for (int64_t l = 0; l < 3; ++l) {
    const LayerRanges& layer = set.layers[static_cast<size_t>(l)];
    const std::string prefix = fmt::format("model.layers.{}.", l), attention = prefix + "self_attn.";
    EXPECT_EQ(layer.q_a_weight, largest(attention + "q_a_proj.weight", 0, -1));
    EXPECT_EQ(layer.kv_a_weight, largest(attention + "kv_a_proj_with_mqa.weight", 0, -1));
    for (int64_t h = 0; h < 4; ++h) {
      const auto head = static_cast<size_t>(h);
      EXPECT_EQ(layer.q_b_weight[head], largest(attention + "q_b_proj.weight", 48 * h, 48 * h + 48));
      EXPECT_EQ(layer.kv_b_weight[head], largest(attention + "kv_b_proj.weight", 64 * h, 64 * h + 64));
      EXPECT_EQ(layer.o_weight[head], largest(attention + "o_proj.weight", 0, -1, 32 * h, 32 * h + 32));
    }
    const std::string mlp = prefix + (l == 0 ? "mlp." : "mlp.shared_experts.");
    const int64_t leaf_width = l == 0 ? 32 : 8;
    for (int64_t leaf = 0; leaf < 16; ++leaf) {
      const int64_t begin = leaf * leaf_width, end = begin + leaf_width;
      EXPECT_EQ(layer.gate_up_weight[static_cast<size_t>(leaf)],
                std::max(largest(mlp + "gate_proj.weight", begin, end), largest(mlp + "up_proj.weight", begin, end)));
      EXPECT_EQ(layer.down_weight[static_cast<size_t>(leaf)], largest(mlp + "down_proj.weight", 0, -1, begin, end));
    }
    for (int expert = 0; l > 0 && expert < 16; ++expert) {
      const std::string name = fmt::format("{}mlp.experts.{}.", prefix, expert);
      EXPECT_EQ(layer.w13_weight[static_cast<size_t>(expert)],
                std::max(largest(name + "gate_proj.weight", 0, -1), largest(name + "up_proj.weight", 0, -1)));
      EXPECT_EQ(layer.w2_weight[static_cast<size_t>(expert)], largest(name + "down_proj.weight", 0, -1));
    }
  }
}

// No q_lora, two shared experts: q_proj's input is the layer's.
TEST_F(Ranges, OfAModelWithoutQueryLora) {
  const auto dir = root_.path() / "plain";
  write_tiny_checkpoint(dir, tiny_config_without_lora(), SynthWeights::kFp8);
  const auto config = make_model_config(load_hf_config(dir).value()).value();
  RangeObserver observer = RangeObserver::create(config, {1, 3}).value();
  run(dir, &observer, {});
  ASSERT_TRUE(check_range_set(observer.ranges()).has_value());
  for (const LayerRanges& layer : observer.ranges().layers) {
    EXPECT_EQ(layer.q_b_in, layer.attention_in);
    EXPECT_EQ(layer.q_a_weight, kUnmeasured);
    EXPECT_GT(layer.q_b_weight[2], 0);
  }
}

}  // namespace
}  // namespace hadal
