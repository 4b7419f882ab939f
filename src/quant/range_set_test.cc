#include "quant/range_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/file.h"
#include "quant/range_fields.h"
#include "quant/testing/range_samples.h"
#include "support/test_files.h"

namespace hadal {
namespace {

bool equal(const RangeSet& a, const RangeSet& b) { return a.dims == b.dims && a.layers == b.layers; }

TEST(RangeSet, IsSizedByTheModelAndStartsUnmeasured) {
  const RangeSet set = make_range_set(small_dims());
  ASSERT_TRUE(check_range_set(set).has_value());
  EXPECT_EQ(set.layers[0].down_in.size(), 4u);         // dense leaves
  EXPECT_EQ(set.layers[1].down_in.size(), 2u);         // shared expert's
  EXPECT_EQ(set.layers[0].expert_down_in.size(), 0u);  // dense
  EXPECT_EQ(set.layers[1].expert_down_in.size(), 8u);
  EXPECT_EQ(set.layers[1].sdpa_q, std::vector<float>(4, kUnmeasured));
}

TEST(RangeSet, SurvivesTheFileBitForBit) {
  RangeSet set = numbered_ranges(small_dims());
  set.layers[1].mlp_in = 0x1.fffffep-3f;  // needs all 24 bits
  set.layers[1].expert_down_in[3] = std::numeric_limits<float>::denorm_min();
  set.layers[2].attention_in = kUnmeasured;
  set.provenance = {"nano", "words.txt", "bf16", "hadal calibrate", 12, 3456, 2};
  const TempDir dir;
  const auto path = dir.path() / "ranges.json";
  ASSERT_TRUE(write_range_set(path, set).has_value());
  const auto read = read_range_set(path);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_TRUE(equal(set, *read));
  EXPECT_EQ(read->provenance.data, "words.txt");
  EXPECT_EQ(read->provenance.num_tokens, 3456u);
  EXPECT_EQ(read->provenance.source_world_size, 2);
}

TEST(RangeSet, MergeTakesTheLargerAndAddsTokens) {
  RangeSet a = make_range_set(small_dims()), b = a;
  a.layers[1].expert_down_in = {1, 2, 3, kUnmeasured, 0, 0, 0, 9};
  b.layers[1].expert_down_in = {2, 1, kUnmeasured, kUnmeasured, 0, 1, 0, 9};
  a.layers[1].expert_tokens = {1, 2, 3, 0, 0, 0, 0, 1};
  b.layers[1].expert_tokens = {1, 1, 0, 0, 0, 5, 0, 1};
  a.layers[1].moe_out[2] = {4, 5};
  b.layers[1].moe_out[2] = {5, 4};
  b.layers[1].moe_out[1] = {6};
  b.layers[0].softmax = 1;
  a.provenance.num_prompts = 3;
  b.provenance.num_prompts = 4;
  ASSERT_TRUE(merge_range_set(a, b).has_value());
  EXPECT_EQ(a.layers[1].expert_down_in, (std::vector<float>{2, 2, 3, kUnmeasured, 0, 1, 0, 9}));
  EXPECT_EQ(a.layers[1].expert_tokens, (std::vector<uint64_t>{2, 3, 3, 0, 0, 5, 0, 2}));
  EXPECT_EQ(a.layers[1].moe_out[2], (std::vector<float>{5, 5}));
  EXPECT_EQ(a.layers[1].moe_out[1], (std::vector<float>{6}));
  EXPECT_EQ(a.layers[0].softmax, 1);
  EXPECT_EQ(a.provenance.num_prompts, 7u);
}

TEST(RangeSet, MergeRefusesAnotherModel) {
  RangeSet a = make_range_set(small_dims());
  RangeDims other = small_dims();
  other.n_routed_experts = 16;
  const auto merged = merge_range_set(a, make_range_set(other));
  ASSERT_FALSE(merged.has_value());
  EXPECT_NE(merged.error().message.find("n_routed_experts is 16, expected 8"), std::string::npos);
}

// What ranks hand over: parts that lie beside each other make the whole.
TEST(RangeSet, IsRaisedByTheValuesOfItsParts) {
  const RangeSet whole = numbered_ranges(small_dims());
  RangeSet parts[2] = {whole, whole}, merged = make_range_set(small_dims());
  for (size_t l = 0; l < whole.layers.size(); ++l) {
    merged.layers[l].expert_tokens = whole.layers[l].expert_tokens;  // counts are not handed over
    for (const auto& [world_size, values] : whole.layers[l].moe_out) {
      merged.layers[l].moe_out[world_size].assign(values.size(), kUnmeasured);
    }
    for (const RangeListField& field : range_list_fields()) {
      const auto half = static_cast<int64_t>((whole.layers[l].*field.member).size() / 2);
      auto &first = parts[0].layers[l].*field.member, &second = parts[1].layers[l].*field.member;
      std::fill(first.begin() + half, first.end(), kUnmeasured);
      std::fill(second.begin(), second.begin() + half, kUnmeasured);
    }
  }
  for (const RangeSet& part : parts) ASSERT_TRUE(raise_range_values(merged, range_values(part)).has_value());
  EXPECT_TRUE(equal(merged, whole));
  ASSERT_TRUE(raise_range_values(merged, range_values(parts[0])).has_value());
  EXPECT_TRUE(equal(merged, whole)) << "twice is once";
}

TEST(RangeSet, ValuesOfAnotherModelAreRefused) {
  RangeSet set = numbered_ranges(small_dims());
  const RangeSet before = set;
  std::vector<float> values(range_values(set).size(), 1e9f);
  for (const size_t size : {size_t{0}, values.size() - 1}) {
    const auto raised = raise_range_values(set, std::span(values).first(size));
    ASSERT_FALSE(raised.has_value());
    EXPECT_EQ(raised.error().code, ErrorCode::kCorrupt);
    EXPECT_EQ(raised.error().message, fmt::format("{} ranges where the model has {}", size, values.size()));
    EXPECT_TRUE(equal(set, before));
  }
  // Values that no tensor has are found before they are written.
  values.assign(values.size(), 1);
  values[1] = std::numeric_limits<float>::infinity();
  ASSERT_TRUE(raise_range_values(set, values).has_value());
  EXPECT_FALSE(check_range_set(set).has_value());
}

TEST(RangeSet, NaNIsNotOverwrittenAndIsFound) {
  RangeSet set = make_range_set(small_dims());
  raise_range(set.layers[2].o_in[1], std::nanf(""));
  raise_range(set.layers[2].o_in[1], 7);
  const auto checked = check_range_set(set);
  ASSERT_FALSE(checked.has_value());
  EXPECT_NE(checked.error().message.find("layer 2, o_in[1]"), std::string::npos) << checked.error().message;
  EXPECT_FALSE(write_range_set("/nonexistent/ranges.json", set).has_value());
}

// What is damaged, and what the refusal must name.
TEST(RangeSet, RefusalsNameThePlace) {
  const std::string good = range_set_to_json(numbered_ranges(small_dims()));
  ASSERT_TRUE(range_set_from_json(good).has_value());
  const auto swap = [&good](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "not valid JSON"},
      {good.substr(0, good.size() / 2), "not valid JSON"},
      {"[]", "the file is [], expected an object"},
      {swap("hadal ranges", "x"), "format is \"x\""},
      {swap("\"version\":1", "\"version\":2"), "version 2"},
      {swap("num_hidden_layers\":3", "num_hidden_layers\":4"), "3 layers, num_hidden_layers is 4"},
      {swap("num_hidden_layers\":3", "num_hidden_layers\":1e3"), "model.num_hidden_layers is 1000.0"},
      {swap("num_attention_heads\":4", "num_attention_heads\":5"), "layers[0].sdpa_q has 4 values"},
      {swap("num_attention_heads\":4", "num_attention_heads\":-4"), "model.num_attention_heads is -4"},
      {swap("moe_layer_freq\":1", "moe_layer_freq\":0"), "model.moe_layer_freq is 0"},
      {swap("dense_leaves\":4", "dense_leaves\":3"), "intermediate_size 64 cannot be cut into 3"},
      {swap("\"attention_in\":", "\"attention_inn\":"),
       "unknown key \"attention_inn\", did you mean \"attention_in\"?"},
      {swap("\"softmax\":1.0", "\"softmax\":-1.0"), "layers[0].softmax is -1.0"},
      {swap("\"softmax\":1.0", "\"softmax\":1e39"), "layers[0].softmax is 1e+39"},
      {swap("\"softmax\":1.0", "\"softmax\":\"1\""), "layers[0].softmax is \"1\""},
      {swap("\"softmax\":1.0,", ""), "layers[0].softmax is missing"},
      {swap("\"softmax\":1.0", "\"softmax\":1.0,\"softmax\":1.0"), "key \"softmax\" appears twice"},
      {swap("\"num_tokens\":0", "\"num_tokens\":-1"), "provenance.num_tokens is -1"},
      {swap("\"moe_out\":{}", "\"moe_out\":{\"2\":[1,2]}"), "layer 0 has no experts, but moe_out"},
      {swap("\"moe_out\":{\"2\"", "\"moe_out\":{\"02\""), "has the key \"02\""},
      {swap("\"moe_out\":{\"2\"", "\"moe_out\":{\"3\""), "layers[1].moe_out.3 has 2 values"},
  };
  for (const auto& [text, expected] : cases) {
    const auto set = range_set_from_json(text);
    ASSERT_FALSE(set.has_value()) << expected;
    EXPECT_NE(set.error().message.find(expected), std::string::npos)
        << set.error().message << "\nexpected " << expected;
  }
}

TEST(RangeSet, DimsThatNoModelHasAreRefused) {
  const auto refused = [](auto change) {
    RangeDims dims = small_dims();
    change(dims);
    const auto checked = check_range_dims(dims);
    return checked ? std::string() : checked.error().message;
  };
  EXPECT_NE(refused([](RangeDims& d) { d.shared_leaves = 0; }).find("shared_leaves"), std::string::npos);
  EXPECT_NE(refused([](RangeDims& d) { d.moe_intermediate_size = 0; }).find("moe_intermediate_size"),
            std::string::npos);
  EXPECT_NE(refused([](RangeDims& d) { d.num_hidden_layers = 0; }).find("num_hidden_layers"), std::string::npos);
}

}  // namespace
}  // namespace hadal
