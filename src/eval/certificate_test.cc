#include "eval/certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "base/file.h"
#include "eval/accuracy_table.h"
#include "eval/content_hash.h"
#include "eval/numerics_hash.h"
#include "quant/profile_plan.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

constexpr const char* kGood = R"({"hadal_certificate": 1, "model": {"path": "m", "hash": "abc"},
  "numerics": {"key": "gaudi2-dynamic", "hash": "def"}, "made": {"date": "2026-11-28T12:00:00Z"},
  "gsm8k": {"strict_match": {"accuracy": 0.944, "stderr": 0.0103}},
  "kl": {"mean_kl": 0.00123, "top1_agreement": 0.9912, "perplexity": 1.0567}})";

TEST(Certificate, SummaryNamesWhatIsThere) {
  const auto certificate = parse_certificate(kGood);
  ASSERT_TRUE(certificate) << certificate.error().message;
  EXPECT_EQ(certificate->summary(),
            "gsm8k 94.4 +- 1.0 %, KL 1.2e-03, top-1 99.12 %, perplexity 1.057, of \"2026-11-28T12:00:00Z\"");
  const auto bare = parse_certificate(
      R"({"hadal_certificate": 1, "model": {"hash": "a"}, "numerics": {"key": "k", "hash": "h"}, "kl": [1], "gsm8k": 3,
          "made": {"date": "\u001b[2Jx"}})");
  ASSERT_TRUE(bare);
  EXPECT_EQ(bare->summary(), R"(of "\u001b[2Jx")");  // nothing reaches a terminal unescaped
}

TEST(Certificate, DamagedOnesAreRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "not valid JSON"},
      {"[]", "no certificate of schema 1"},
      {"{}", "no certificate of schema 1"},
      {R"({"hadal_certificate": 2})", "hadal_certificate is 2"},
      {R"({"hadal_certificate": "1"})", "no certificate of schema 1"},
      {R"({"hadal_certificate": 1})", "model.hash must be a string"},
      {R"({"hadal_certificate": 1, "model": 3})", "model.hash must be a string"},
      {R"({"hadal_certificate": 1, "model": {"hash": ""}})", "model.hash must be a string"},
      {R"({"hadal_certificate": 1, "model": {"hash": "a"}, "numerics": {"key": 1}})", "numerics.key must be a string"},
      {R"({"hadal_certificate": 1, "model": {"hash": "a"}, "numerics": {"key": "k"}})", "numerics.hash must be"},
      {R"({"hadal_certificate": 1, "hadal_certificate": 1})", "appears twice"},
  };
  for (const auto& [text, message] : cases) {
    const auto certificate = parse_certificate(text);
    ASSERT_FALSE(certificate) << text;
    EXPECT_EQ(certificate.error().code, ErrorCode::kCorrupt) << text;
    EXPECT_THAT(certificate.error().message, HasSubstr(message));
  }
  EXPECT_FALSE(parse_certificate("{\"hadal_certificate\": 1, \"x\": " + std::string(100, '[')));
}

TEST(Certificate, IsFoundByKeyAndOnlyForTheSameModelAndScales) {
  const TempDir dir;
  const CertificateSubject subject = {.model_hash = "abc", .numerics_key = "gaudi2-dynamic", .numerics_hash = "def"};
  EXPECT_FALSE(find_certificate(dir.path(), subject)->has_value());
  ASSERT_TRUE(write_file_atomically(dir.path() / "hadal_certificate.gaudi2-dynamic.json", kGood));
  const auto found = find_certificate(dir.path(), subject);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->path, dir.path() / "hadal_certificate.gaudi2-dynamic.json");
  const std::pair<CertificateSubject, const char*> others[] = {
      {{"abd", "gaudi2-dynamic", "def"}, "other weights (\"abc\", here \"abd\")"},
      {{"abc", "gaudi2-dynamic", "deg"}, "other scales"}};
  for (const auto& [other, message] : others) {
    const auto refused = find_certificate(dir.path(), other);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr(message));
  }
  ASSERT_TRUE(write_file_atomically(dir.path() / "hadal_certificate.bf16.json", kGood));
  EXPECT_THAT(find_certificate(dir.path(), {"abc", "bf16", "def"}).error().message, HasSubstr("other numerics"));
  EXPECT_FALSE(find_certificate(dir.path(), {"abc", "bf16-kv_fp8", "def"})->has_value());
}

NumericsPlan some_plan() {
  NumericsPlan plan = make_profile_plan(
      {.profile = NumericsProfile::kGaudi2, .mode = GaudiMode::kDynamic, .fp8_cache = true, .num_layers = 2});
  plan.layers[1].expert_down_scales = {{2, 0.5F}, {4, 0.25F}};
  return plan;
}

TEST(NumericsHash, DiffersWithEveryField) {
  const std::function<void(NumericsPlan&)> changes[] = {
      [](NumericsPlan&) {},
      [](NumericsPlan& p) { p.profile = NumericsProfile::kGaudi3; },
      [](NumericsPlan& p) { p.mode = GaudiMode::kInc; },
      [](NumericsPlan& p) { p.range = FpRange::kGaudi3; },
      [](NumericsPlan& p) { p.range_map = RangeMap::kSeed; },
      [](NumericsPlan& p) { p.weight_rule.rounding = ScaleRounding::kPow2; },
      [](NumericsPlan& p) { p.weight_rule.backoff *= 0.5F; },
      [](NumericsPlan& p) { p.weight_scale_per_tensor = !p.weight_scale_per_tensor; },
      [](NumericsPlan& p) { p.group_scale_pow2 = !p.group_scale_pow2; },
      [](NumericsPlan& p) { p.bf16_results = !p.bf16_results; },
      [](NumericsPlan& p) { p.fixed_weight_scale = StaticScale{}; },
      [](NumericsPlan& p) { p.layers.pop_back(); },
      [](NumericsPlan& p) { p.layers[0].q_a.weight = WeightFormat::kBf16; },
      [](NumericsPlan& p) { p.layers[0].kv_a.input.kind = InputQuantKind::kStatic; },
      [](NumericsPlan& p) { p.layers[0].q_b.input.scale.inv = 3; },
      [](NumericsPlan& p) { p.layers[0].o.input.scale.inv = 3; },
      [](NumericsPlan& p) { p.layers[0].gate_up.input.scale.inv = 3; },
      [](NumericsPlan& p) { p.layers[0].down.input.scale.inv = 3; },
      [](NumericsPlan& p) { p.layers[0].experts.input.scale.inv = 3; },
      [](NumericsPlan& p) { p.layers[1].experts.input.scale.inv = 3; },
      [](NumericsPlan& p) { p.layers[0].expert_down = InputQuantKind::kGroup; },
      [](NumericsPlan& p) { p.layers[1].expert_down_scales[1].scale = 5; },
      [](NumericsPlan& p) { p.layers[0].attention.latent_cache.reset(); },
      [](NumericsPlan& p) { p.layers[0].attention.sdpa.emplace(); },
      [](NumericsPlan& p) { p.layers[0].attention.kv_b.weight = WeightFormat::kBf16; },
      [](NumericsPlan& p) { p.layers[0].attention.matmul_qk.emplace(); },
      [](NumericsPlan& p) { p.layers[0].attention.matmul_av.emplace(); },
      [](NumericsPlan& p) { p.layers[0].attention.batch2block.emplace(); },
      [](NumericsPlan& p) { p.layers[0].attention.block2batch.emplace(); },
  };
  std::set<std::string> hashes;
  for (const auto& change : changes) {
    NumericsPlan plan = some_plan();
    change(plan);
    EXPECT_EQ(numerics_hash(plan).size(), 32u);
    EXPECT_TRUE(hashes.insert(numerics_hash(plan)).second) << hashes.size();
  }
  EXPECT_EQ(numerics_hash(some_plan()), numerics_hash(some_plan()));
}

TEST(ModelHash, FollowsConfigHeadersAndWeights) {
  const std::filesystem::path nano = source_dir() / "models/nano";
  const auto hash = model_hash(nano);
  ASSERT_TRUE(hash) << hash.error().message;
  const TempDir copy;
  std::filesystem::copy(nano, copy.path(), std::filesystem::copy_options::recursive);
  ASSERT_EQ(model_hash(copy.path()).value_or(""), *hash);
  const std::filesystem::path config = copy.path() / "config.json";
  const std::string text = *read_file(config, 1 << 20);
  ASSERT_TRUE(write_file_atomically(config, text + " "));
  EXPECT_NE(model_hash(copy.path()).value(), *hash);
  ASSERT_TRUE(write_file_atomically(config, text));
  for (const char* name : {"model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"}) {
    std::string shard = *read_file(copy.path() / name, 1 << 30);
    shard.back() ^= 1;
    ASSERT_TRUE(write_file_atomically(copy.path() / name, shard));
    EXPECT_NE(model_hash(copy.path()).value(), *hash) << name;
    shard.back() ^= 1;
    ASSERT_TRUE(write_file_atomically(copy.path() / name, shard));
  }
  EXPECT_EQ(model_hash(copy.path()).value(), *hash);
  EXPECT_FALSE(model_hash(copy.path() / "absent"));
}

TEST(AccuracyTable, ShowsWhatWasMeasured) {
  AccuracyRow row = {.name = "gaudi2 B", .kv_cache = "FP8", .numerics_key = "gaudi2-dynamic-kv_fp8"};
  row.gsm8k = Gsm8kReport{.num_samples = 500, .strict = make_accuracy(472, 500), .flexible = make_accuracy(475, 500)};
  row.divergence = DivergenceReport{.num_tokens = 1000,
                                    .mean_kl = 0.0123,
                                    .kl_stderr = 0.001,
                                    .max_kl = 3.25,
                                    .num_same_top = 987,
                                    .weights = {{"w", 22.04, 1.018}, {"v", 30, 1}},
                                    .layers = {{0, 25.04}, {1, 19.96}, {2, 21}}};
  const AccuracyRow reference = {.name = "reference", .kv_cache = "FP32"};
  const std::string table = accuracy_markdown({row, reference});
  EXPECT_THAT(table,
              HasSubstr("| gaudi2 B | FP8 | 94.4 ± 1.0 (flexible 95.0 ± 1.0) | 1.2e-02 ± 1e-03 | 3.2e+00 | 98.70 "
                        "| 21.0 | 22.0 (gain +1.8 %) |\n"));
  EXPECT_THAT(table, HasSubstr("| reference | FP32 |  | the reference | | | | |\n"));
  EXPECT_EQ(accuracy_json({row})["rows"][0]["kl"]["layers"][1]["sqnr_db"], 19.96);
}

}  // namespace
}  // namespace hadal
