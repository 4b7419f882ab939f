#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/test_files.h"

namespace hadal {
namespace {

ModelConfig config_from(const Json& golden) {
  ModelConfig config;
  config.qk_rope_head_dim = golden["dim"];
  // The golden softmax scales are those of the models: 128 + 64, or 32 + 16 for the tiny one.
  config.qk_nope_head_dim = config.qk_rope_head_dim * 2;
  config.rope_theta = golden["base"];
  if (golden["factor"].is_null()) return config;
  YarnConfig yarn;
  yarn.factor = golden["factor"];
  yarn.original_max_position_embeddings = golden["original_max_position_embeddings"];
  yarn.beta_fast = golden["beta_fast"];
  yarn.beta_slow = golden["beta_slow"];
  yarn.mscale = yarn.mscale_all_dim = 1;
  config.yarn = yarn;
  return config;
}

TEST(Rope, MatchesGoldenYarn) {
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_yarn.json");
  const Json all = load_json(path);
  ASSERT_GE(all.size(), 5u);
  for (const auto& [name, golden] : all.items()) {
    SCOPED_TRACE(name);
    const RopeParameters rope = make_rope_parameters(config_from(golden));
    ASSERT_EQ(rope.inv_freq.size(), golden["inv_freq"].size());
    // The golden numbers are F64 results of the same formulas: a few roundings apart.
    for (size_t i = 0; i < rope.inv_freq.size(); ++i) {
      const double wanted = golden["inv_freq"][i];
      EXPECT_NEAR(rope.inv_freq[i], wanted, 1e-14 * wanted) << i;
    }
    EXPECT_NEAR(rope.softmax_scale, golden["softmax_scale"].get<double>(), 1e-15);
    EXPECT_DOUBLE_EQ(rope.cos_sin_factor, 1.0);
  }
}

TEST(Rope, MagnitudeFactorsFollowTheirOwnKeys) {
  ModelConfig config;
  config.qk_nope_head_dim = 8;
  config.qk_rope_head_dim = 8;
  config.rope_theta = 10000;
  config.yarn = YarnConfig{.factor = 4, .original_max_position_embeddings = 64, .mscale = 1, .mscale_all_dim = 0};
  const RopeParameters rope = make_rope_parameters(config);
  EXPECT_DOUBLE_EQ(rope.softmax_scale, 0.25);  // mscale_all_dim 0: no correction
  EXPECT_DOUBLE_EQ(rope.cos_sin_factor, 0.1 * std::log(4.0) + 1);
}

TEST(Rope, AnglesStayExactFarOut) {
  ModelConfig config;
  config.qk_nope_head_dim = 8;
  config.qk_rope_head_dim = 4;
  config.rope_theta = 10000;
  const RopeParameters rope = make_rope_parameters(config);
  float cos[2], sin[2];
  rope_cos_sin(rope, 163839, cos, sin);
  EXPECT_FLOAT_EQ(cos[0], static_cast<float>(std::cos(163839.0)));
  EXPECT_FLOAT_EQ(sin[1], static_cast<float>(std::sin(1638.39)));
}

}  // namespace
}  // namespace hadal
