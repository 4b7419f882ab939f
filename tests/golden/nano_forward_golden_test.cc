// models/nano against its own training code: log-probabilities that tools/nano/golden.py computed in PyTorch, in FP32,
// from the exported weights. Proves the forward pass on trained weights, which the random tiny models cannot.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "kernels/kernels.h"
#include "support/test_files.h"
#include "tiny_model.h"

namespace hadal {
namespace {

// The golden has four decimals; FP32 sums of at most 1,024 terms differ by about as much.
constexpr double kReferenceTolerance = 5e-4;
// BF16 activations can flip the routing of a trained model where two experts nearly tie, which moves improbable tokens
// by whole units. So the BF16 kernels are held to the winner where it leads by more than this, in log-probability.
constexpr double kClearMargin = 1;

double log_sum_exp(const std::vector<float>& logits, int64_t num_tokens) {
  const double top = *std::max_element(logits.begin(), logits.begin() + num_tokens);
  double sum = 0;
  for (int64_t i = 0; i < num_tokens; ++i) sum += std::exp(logits[i] - top);
  return top + std::log(sum);
}

class NanoForward : public testing::TestWithParam<Isa> {};

TEST_P(NanoForward, AgreesWithItsTrainingCode) {
  const std::filesystem::path dir = source_dir() / "models" / "nano";
  const Json golden = load_json(dir / "golden_nano.json");
  const int64_t num_tokens = golden["rules"]["masked_ids_from"];
  TestRunner runner(dir, {.isa = GetParam(), .num_threads = 2, .block_size = 32, .num_blocks = 64, .max_tokens = 512});
  double worst = 0;
  int64_t num_steps = 0, num_clear = 0;
  for (const Json& row : golden["cases"]) {
    auto ids = row["prompt_ids"].get<std::vector<int32_t>>();
    const auto first = static_cast<int64_t>(ids.size()) - 1;
    const auto generated = row["ids"].get<std::vector<int32_t>>();
    ids.insert(ids.end(), generated.begin(), generated.end() - 1);
    TestSequence sequence = runner.make_sequence(ids, 256);
    runner.run(sequence, 256);
    for (size_t i = 0; i < generated.size(); ++i) {
      const std::vector<float>& logits = sequence.logits[first + static_cast<int64_t>(i)];
      const double normaliser = log_sum_exp(logits, num_tokens);
      for (const Json& entry : row["top_logprobs"][i]) {
        const double difference = std::abs(logits[entry[0].get<size_t>()] - normaliser - entry[1].get<double>());
        worst = std::max(worst, difference);
        if (GetParam() != Isa::kReference) continue;
        EXPECT_LE(difference, kReferenceTolerance) << row["name"] << " step " << i << " token " << entry[0];
      }
      ++num_steps;
      if (row["margins"][i].get<double>() <= kClearMargin) continue;
      ++num_clear;
      const auto best = std::max_element(logits.begin(), logits.begin() + num_tokens) - logits.begin();
      EXPECT_EQ(best, generated[i]) << row["name"] << " step " << i;
    }
  }
  std::printf(
      "[golden.nano] %s: %lld steps, %lld with a clear winner, worst log-probability difference of a top-5 token "
      "%.2g\n",
      isa_name(GetParam()), static_cast<long long>(num_steps), static_cast<long long>(num_clear), worst);
  EXPECT_GT(num_clear, num_steps * 3 / 4);
}

INSTANTIATE_TEST_SUITE_P(Isas, NanoForward, testing::ValuesIn(available_isas()), [](const auto& info) {
  std::string name = isa_name(info.param);
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace hadal
