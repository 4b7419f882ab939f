// forward() allocates nothing once the cache is allocated, and its workspace suits the cache's dtype.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "formats/hf_config.h"
#include "model/config.h"
#include "model/memory_needs.h"
#include "support/test_files.h"
#include "tiny_model.h"

namespace {
std::atomic<int64_t> num_allocations{0};
}

void* operator new(std::size_t size) {
  ++num_allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace hadal {
namespace {

TEST(Allocation, ForwardAllocatesNothing) {
  const TempDir root;
  write_tiny_checkpoint(root.path() / "model", tiny_config(), SynthWeights::kFp8);
  for (const DType kv_dtype : {DType::kBF16, DType::kF8E4M3}) {
    TestRunner runner(root.path() / "model", {.isa = available_isas().back(), .kv_dtype = kv_dtype, .num_threads = 2});
    const std::vector<int32_t> ids = random_ids(43, 512, 1);
    const TestSequence sequence = runner.make_sequence(ids, 8);
    const SequenceSpan span = {.num_tokens = 43, .expanded_end = 40, .block_table = sequence.block_table};
    const std::vector<int32_t> rows = {0, 42};
    std::vector<float> logits(2 * 512);
    const int64_t before = num_allocations;
    ASSERT_GT(before, 0);  // the counter works
    for (int i = 0; i < 3; ++i) {
      const bool ok = runner.model().forward({ids, {&span, 1}, rows}, logits.data()).has_value();
      if (!ok) break;
    }
    EXPECT_EQ(num_allocations - before, 0) << dtype_name(kv_dtype);
  }
}

// Opening may: it makes the list of pieces.
TEST(Allocation, PiecesAllocateNothing) {
  const TempDir root;
  write_tiny_checkpoint(root.path() / "model", tiny_config(), SynthWeights::kFp8);
  TestRunner runner(root.path() / "model", {.num_threads = 2, .max_tokens_between = 1});
  const std::vector<int32_t> ids = random_ids(43, 512, 1), rows = {0, 42}, row = {0};
  const TestSequence sequence = runner.make_sequence(ids, 8), decoding = runner.make_sequence(ids, 8);
  const SequenceSpan span = {.num_tokens = 43, .expanded_end = 40, .block_table = sequence.block_table};
  const SequenceSpan one = {.num_tokens = 1, .block_table = decoding.block_table};
  std::vector<float> logits(2 * 512);
  ASSERT_TRUE(runner.model().open_step({ids, {&span, 1}, rows}));
  const int64_t num_pieces = runner.model().num_pieces();
  const int64_t before = num_allocations;
  bool ok = true;
  for (int64_t i = 0; i < num_pieces; ++i) {
    ok = ok && runner.model().run_pieces(1, logits.data()).has_value();
    ok = ok && runner.model().forward({std::span(ids).first(1), {&one, 1}, row}, logits.data()).has_value();
  }
  EXPECT_EQ(num_allocations - before, 0);
  EXPECT_TRUE(ok);
}

TEST(Workspace, HasRoomForDecodedRows) {
  const TempDir root;
  write_tiny_checkpoint(root.path() / "model", tiny_config(), SynthWeights::kFp8);
  const ModelConfig config = make_model_config(load_hf_config(root.path() / "model").value()).value();
  const auto bytes = [&](DType kv_dtype) {
    return workspace_bytes(config, kernels_for(Isa::kPortable),
                           {.max_tokens = 1, .max_positions = 4096, .kv_dtype = kv_dtype});
  };
  EXPECT_GT(bytes(DType::kF8E4M3), bytes(DType::kBF16));
}

TEST(ForwardInput, ContradictionsAreRefused) {
  const TempDir root;
  write_tiny_checkpoint(root.path() / "model", tiny_config(), SynthWeights::kBf16);
  TestRunner runner(root.path() / "model", {.block_size = 8, .num_blocks = 4, .max_tokens = 16});
  const std::vector<int32_t> ids = {1, 2, 3};
  const std::vector<int32_t> table = {0, 1};
  const std::vector<int32_t> rows = {2};
  const SequenceSpan good = {.num_tokens = 3, .first_position = 6, .block_table = table};
  std::vector<float> logits(512);
  const auto forward = [&](const std::vector<int32_t>& tokens, const SequenceSpan& span,
                           const std::vector<int32_t>& logit_rows) {
    return runner.model().forward({tokens, {&span, 1}, logit_rows}, logits.data()).has_value();
  };
  EXPECT_TRUE(forward(ids, good, rows));
  EXPECT_TRUE(forward(ids, good, {}));
  const std::vector<int32_t> bad_table = {0, 4};
  SequenceSpan bad = good;
  bad.block_table = bad_table;
  EXPECT_FALSE(forward(ids, bad, rows));
  bad.block_table = std::span(table).first(1);
  EXPECT_FALSE(forward(ids, bad, rows));
  bad = good;
  bad.first_position = 4095;
  EXPECT_FALSE(forward(ids, bad, rows));
  bad = good;
  bad.num_tokens = 2;
  EXPECT_FALSE(forward(ids, bad, rows));
  EXPECT_FALSE(forward({1, 2, 512}, good, rows));
  EXPECT_FALSE(forward({1, 2, -1}, good, rows));
  EXPECT_FALSE(forward(ids, good, {3}));
  EXPECT_FALSE(forward({}, good, {}));
}

}  // namespace
}  // namespace hadal
