// A row that came together from digests of its shares gives what the whole row gives, to the last bit.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "engine/sampler.h"
#include "kernels/kernels.h"
#include "model/logit_digest.h"

namespace hadal {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

ModelConfig config_of(int64_t vocab_size) {
  ModelConfig config;
  config.vocab_size = vocab_size;
  return config;
}

Isa fastest_isa() { return available_isas().back(); }

// What rank 0 has of a row when it has computed the first share: nothing of the others but their digests.
struct Gathered {
  std::vector<float> row;
  RowDigest digest{fastest_isa()};
  bool is_enough = false;
};
Gathered gather(const std::vector<float>& logits, int world_size, const LogitWant& want, Isa isa = fastest_isa()) {
  const ModelConfig config = config_of(static_cast<int64_t>(logits.size()));
  Gathered gathered;
  gathered.row.assign(logits.size(), kNan);
  gathered.digest.begin(config.vocab_size, want);
  DigestWriter writer(isa);
  for (int rank = 0; rank < world_size; ++rank) {
    const IndexRange share = vocab_share(config, world_size, rank);
    const std::span values = std::span(logits).subspan(share.begin, share.size());
    std::vector<std::byte> bytes(digest_bytes(share));
    writer.write(values, share, want, bytes.data());
    if (rank == 0) std::copy(values.begin(), values.end(), gathered.row.begin());
    EXPECT_TRUE(gathered.digest.add(share, bytes, rank == 0, gathered.row.data()));
  }
  gathered.is_enough = gathered.digest.finish(gathered.row);
  return gathered;
}

using Bits = std::vector<uint32_t>;
Bits bits_of(const TokenOutput& out) {
  Bits bits = {static_cast<uint32_t>(out.token_id)};
  const auto add = [&bits](const TokenLogprob& token) {
    bits.insert(bits.end(), {static_cast<uint32_t>(token.token_id), std::bit_cast<uint32_t>(token.logprob),
                             static_cast<uint32_t>(token.rank)});
  };
  if (out.logprob) add(*out.logprob);
  for (const TokenLogprob& token : out.top_logprobs) add(token);
  return bits;
}

// Peaked as a language model's; `step` > 0 rounds, so that many are equal.
std::vector<float> random_row(int64_t size, uint32_t seed, float width, float step) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, width);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(generator);
  for (int i = 0; i < 12; ++i) logits[generator() % size] += 8 * width;
  if (step > 0) {
    for (float& logit : logits) logit = std::round(logit / step) * step;
  }
  for (int i = 0; i < 5; ++i) logits[generator() % size] = -kInfinity;
  return logits;
}

struct Case {
  float temperature = 0, top_p = 1, min_p = 0;
  int32_t top_k = 0, num_logprobs = -1;
  bool is_partial = true;
};
const Case kCases[] = {{},
                       {.num_logprobs = 0},
                       {.num_logprobs = 20},
                       {.temperature = 0.7f, .top_k = 1},
                       {.temperature = 1, .top_k = 50},
                       {.temperature = 1.3f, .top_k = 40, .num_logprobs = 5},
                       {.temperature = 0.6f, .top_p = 0.95f},
                       {.temperature = 1, .top_p = 0.9f, .num_logprobs = 3},
                       {.temperature = 0.6f, .top_p = 0.8f, .top_k = 20, .num_logprobs = 2},
                       {.temperature = 0.8f, .min_p = 0.05f, .num_logprobs = 4},
                       {.temperature = 0.8f, .top_p = 0.7f, .min_p = 0.02f, .top_k = 30},
                       {.temperature = 1, .is_partial = false},
                       {.temperature = 0.6f, .top_p = 0.95f, .num_logprobs = 1, .is_partial = false}};

SamplingParams params_of(const Case& made) {
  SamplingParams params;
  params.temperature = made.temperature;
  params.top_p = made.top_p;
  params.min_p = made.min_p;
  params.top_k = made.top_k;
  params.num_logprobs = made.num_logprobs;
  return params;
}

struct Rows {
  int64_t vocab_size, num_valid;
  float width, step;
};
const Rows kRows[] = {
    {129280, 128815, 1, 0}, {129280, 129280, 0.5f, 0.125f}, {4096, 4000, 1, 0}, {8200, 8192, 2, 0.5f}};

// Returns how many of the rows were gathered in digests.
int compare_rows(const Case& made, const Rows& rows, int world_size) {
  const SamplingParams params = params_of(made);
  Sampler sampler(rows.vocab_size, rows.num_valid);
  const TokenCounts counts(params, {});
  SampleContext context{.rules = {.params = &params, .counts = &counts}};
  const LogitWant want = sampler.want(context.rules);
  EXPECT_EQ(want.num_valid != 0, made.is_partial);
  if (want.num_valid == 0) return 0;
  EXPECT_TRUE(shares_are_blocks(config_of(rows.vocab_size), world_size, want.num_valid));
  int num_enough = 0;
  for (uint32_t seed = 0; seed < 12; ++seed) {
    std::vector<float> logits = random_row(rows.vocab_size, seed, rows.width, rows.step);
    Gathered gathered = gather(logits, world_size, want);
    if (!gathered.is_enough) continue;
    ++num_enough;
    context.seed = seed;
    TokenOutput whole, partial;
    EXPECT_TRUE(sampler.sample(logits.data(), context, whole));
    EXPECT_TRUE(sampler.sample(gathered.row.data(), context, partial, gathered.digest.view()));
    EXPECT_EQ(bits_of(partial), bits_of(whole)) << "seed " << seed;
  }
  return num_enough;
}

TEST(PartialRows, GiveWhatTheWholeRowGives) {
  for (size_t i = 0; i < std::size(kCases); ++i) {
    SCOPED_TRACE(i);
    int num_enough = 0;
    for (const Rows& rows : kRows) {
      for (const int world_size : {2, 4, 16}) {
        SCOPED_TRACE(testing::Message() << rows.vocab_size << " over " << world_size);
        num_enough += compare_rows(kCases[i], rows, world_size);
      }
    }
    EXPECT_EQ(num_enough > 0, kCases[i].is_partial);
  }
}

TEST(PartialRows, ManyEqualsAreNeededWhole) {
  std::vector<float> logits(4096, 1.0f);
  const LogitWant want{.num_valid = 4096, .num_best = 1};
  EXPECT_FALSE(gather(logits, 4, want).is_enough);
  logits[77] = 2;
  EXPECT_TRUE(gather(logits, 4, want).is_enough);
  EXPECT_FALSE(gather(logits, 4, {.num_valid = 4096, .num_best = 2}).is_enough);
  EXPECT_FALSE(gather(logits, 4, {.num_valid = 4096, .num_best = 1, .depth = 1}).is_enough);
  EXPECT_TRUE(gather(logits, 4, {.num_valid = 4096, .num_best = 1, .depth = 0.5f}).is_enough);
}

TEST(PartialRows, RowsThatAreNoNumbersAreNeededWhole) {
  for (const float bad : {kNan, kInfinity}) {
    for (const size_t at : {size_t{0}, size_t{4090}}) {
      std::vector<float> logits = random_row(4096, 1, 1, 0);
      logits[at] = bad;
      EXPECT_FALSE(gather(logits, 4, {.num_valid = 4000, .num_best = 1}).is_enough);
    }
  }
  EXPECT_FALSE(gather(std::vector<float>(4096, -kInfinity), 4, {.num_valid = 4096, .num_best = 1}).is_enough);
}

TEST(PartialRows, RowsThatOtherInstructionsSummedAreNeededWhole) {
  const std::vector<float> logits = random_row(4096, 1, 1, 0);
  const LogitWant want{.num_valid = 4000, .num_best = 1, .exp_scale = 1};
  for (const Isa isa : available_isas()) {
    EXPECT_EQ(gather(logits, 4, want, isa).is_enough, isa == fastest_isa()) << isa_name(isa);
  }
}

TEST(PartialRows, DamagedDigestsAreRefused) {
  const ModelConfig config = config_of(4096);
  const IndexRange share = vocab_share(config, 4, 1);
  const LogitWant want{.num_valid = 4096, .num_best = 1, .exp_scale = 1};
  const std::vector<float> logits = random_row(share.size(), 3, 1, 0);
  std::vector<std::byte> good(digest_bytes(share));
  DigestWriter(fastest_isa()).write(logits, share, want, good.data());
  std::mt19937 generator(5);
  int num_refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes = good;
    for (int k = 0; k < 3; ++k) bytes[generator() % bytes.size()] = static_cast<std::byte>(generator());
    std::vector<float> row(4096, kNan);
    RowDigest digest(fastest_isa());
    digest.begin(4096, want);
    const bool is_taken = digest.add(share, bytes, false, row.data());
    num_refused += !is_taken;
    if (is_taken) static_cast<void>(digest.finish(row));
  }
  EXPECT_GT(num_refused, 100);
}

TEST(PartialRows, SharesEndWhereBlocksEnd) {
  EXPECT_TRUE(shares_are_blocks(config_of(129280), 16, 128815));
  EXPECT_FALSE(shares_are_blocks(config_of(129280), 16, 100000)) << "ids that are not valid on two ranks";
  EXPECT_FALSE(shares_are_blocks(config_of(2048), 16, 2048)) << "fewer blocks than ranks";
  EXPECT_TRUE(shares_are_blocks(config_of(2048), 8, 2048));
}

}  // namespace
}  // namespace hadal
