// One rank's part: what it reads and holds, what it refuses, and steps that fail because another rank is lost.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

#include "formats/hf_config.h"
#include "model/inspect.h"
#include "model/memory_needs.h"
#include "rank_threads.h"
#include "support/test_files.h"

namespace hadal {
namespace {

const std::filesystem::path& checkpoint() {
  static TempDir root;
  static std::filesystem::path dir;
  if (dir.empty()) {
    dir = root.path() / "model";
    write_tiny_checkpoint(dir, tiny_config(), SynthWeights::kFp8);
  }
  return dir;
}

// One step of three tokens on a fresh model; rank 0 gets logits.
Status try_step(ForwardModel& model, int rank, std::vector<float>& logits) {
  static const std::vector<int32_t> ids = {1, 2, 3}, table = {0}, rows = {0, 2};
  const SequenceSpan span = {.num_tokens = 3, .block_table = table};
  logits.assign(2 * static_cast<size_t>(model.vocab_size()), 0);
  return model.forward({ids, {&span, 1}, rows}, rank == 0 ? logits.data() : nullptr);
}

std::unique_ptr<ForwardModel> load_rank(const std::filesystem::path& dir, const RankSlice& slice) {
  auto model = load_deepseek_v3(dir, {.kernels = &kernels_for(Isa::kPortable), .num_threads = 1, .slice = slice});
  if (!model) throw std::runtime_error(model.error().message);
  if (!(*model)->allocate_kv(4, 8, 16)) throw std::runtime_error("no cache");
  return std::move(*model);
}

TEST(RanksApart, CannotStep) {
  const auto model = load_rank(checkpoint(), {.rank = 1, .world_size = 2});
  std::vector<float> logits;
  const Status status = try_step(*model, 1, logits);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
}

// A rank leaves: the others' step fails with kUnavailable, no one waits in vain. In a new group the same models give
// the bits of one rank again.
TEST(RanksApart, StepsFailAndComeBackWithANewGroup) {
  const std::filesystem::path& dir = checkpoint();
  std::vector<float> wanted, logits;
  ASSERT_TRUE(try_step(*load_rank(dir, {}), 0, wanted));
  constexpr int kRanks = 4;
  std::vector<std::unique_ptr<ForwardModel>> models;
  for (int rank = 0; rank < kRanks; ++rank) models.push_back(load_rank(dir, {.rank = rank, .world_size = kRanks}));
  for (const int lost : {0, 2}) {
    SCOPED_TRACE(lost);
    std::array<ErrorCode, kRanks> codes{};
    run_ranks(kRanks, [&](int rank, std::unique_ptr<Communicator> communicator) {
      const auto idx = static_cast<size_t>(rank);
      std::vector<float> got;
      models[idx]->set_communicator(communicator.get());
      if (!try_step(*models[idx], rank, got)) throw std::runtime_error("the first step");
      if (rank == 0) logits = got;
      if (rank == lost) {
        models[idx]->set_communicator(nullptr);
        communicator.reset();
        return;
      }
      for (int i = 0; i < 2; ++i) {  // once lost, it stays lost
        const Status status = try_step(*models[idx], rank, got);
        if (status) throw std::runtime_error("a step without all ranks");
        codes[idx] = status.error().code;
      }
      models[idx]->set_communicator(nullptr);
    });
    EXPECT_EQ(std::memcmp(logits.data(), wanted.data(), wanted.size() * sizeof(float)), 0);
    for (int rank = 0; rank < kRanks; ++rank) {
      EXPECT_TRUE(rank == lost || codes[static_cast<size_t>(rank)] == ErrorCode::kUnavailable) << "rank " << rank;
    }
  }
}

// The open step is dropped with the error; the model takes the next one.
TEST(RanksApart, AnOpenStepIsDropped) {
  const std::filesystem::path& dir = checkpoint();
  run_ranks(2, [&](int rank, std::unique_ptr<Communicator> communicator) {
    const auto model = load_rank(dir, {.rank = rank, .world_size = 2});
    if (!model->prepare_pieces(1)) throw std::runtime_error("no pieces");
    model->set_communicator(communicator.get());
    const std::vector<int32_t> ids = {1, 2, 3}, table = {0};
    const SequenceSpan span = {.num_tokens = 3, .block_table = table};
    if (!model->open_step({ids, {&span, 1}, {}})) throw std::runtime_error("not opened");
    if (rank == 1) return;
    const Status status = model->run_pieces(model->num_pieces(), nullptr);
    if (status || status.error().code != ErrorCode::kUnavailable) throw std::runtime_error("a step alone");
    if (model->num_pieces() != 0) throw std::runtime_error("still open");
  });
}

TEST(RankLoading, RefusesWhatCannotBeCut) {
  const auto refusal = [](const LoadOptions& options) {
    const auto model = load_deepseek_v3(checkpoint(), options);
    return model ? std::string("loaded") : model.error().message;
  };
  EXPECT_EQ(refusal({.slice = {.world_size = 3}}),
            "--tensor-parallel-size 3: this model can be cut into 1, 2 or 4 parts");
  EXPECT_EQ(refusal({.slice = {.world_size = 8}}),
            "--tensor-parallel-size 8: this model can be cut into 1, 2 or 4 parts");
}

// Rows and widths long enough for reading in parts to save the disk anything.
Json wide_config() {
  Json config = tiny_config();
  const Json changes = Json::parse(R"({"hidden_size": 64, "v_head_dim": 2048, "intermediate_size": 16384,
    "moe_intermediate_size": 8192, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2,
    "num_nextn_predict_layers": 0, "num_hidden_layers": 2})");
  for (const auto& [key, value] : changes.items()) config[key] = value;
  return config;
}

// Ranks together read everything once, and what all of them have once each. What was announced as memory is taken.
TEST(RankLoading, ReadsAndHoldsItsPartOnly) {
  const TempDir root;
  const std::filesystem::path dir = root.path() / "model";
  write_tiny_checkpoint(dir, wide_config(), SynthWeights::kBf16);
  const auto read_by = [&](const RankSlice& slice) {
    uint64_t bytes = 0;
    const auto model = load_deepseek_v3(dir, {.kernels = &kernels_for(Isa::kPortable),
                                              .num_threads = 1,
                                              .progress = [&](uint64_t, uint64_t total) { bytes = total; },
                                              .slice = slice});
    EXPECT_TRUE(model) << model.error().message;
    return bytes;
  };
  uint64_t replicated = 0;
  const Checkpoint checkpoint = Checkpoint::open(dir).value();
  for (const Checkpoint::Entry& entry : checkpoint.entries()) {
    const std::string& name = entry.info.name;
    const bool is_everywhere = name.find("norm") != name.npos || name.find("_a_proj") != name.npos ||
                               name.find("embed_tokens") != name.npos || name.find(".gate.") != name.npos;
    if (is_everywhere) replicated += entry.info.size_bytes();
  }
  const uint64_t whole = read_by({});
  EXPECT_EQ(whole, checkpoint.total_tensor_bytes());
  const KernelTable& kernels = kernels_for(Isa::kPortable);
  const uint64_t whole_memory = weight_memory_bytes(dir, kernels, {}).value();
  const ModelConfig config = make_model_config(load_hf_config(dir).value()).value();
  for (const bool expert_parallel : {false, true}) {
    for (const int world_size : {2, 4}) {
      SCOPED_TRACE(fmt::format("{} ranks, experts whole: {}", world_size, expert_parallel));
      uint64_t read = 0, memory = 0;
      for (int rank = 0; rank < world_size; ++rank) {
        const RankSlice slice = {.rank = rank, .world_size = world_size, .expert_parallel = expert_parallel};
        read += read_by(slice);
        memory += weight_memory_bytes(dir, kernels, {}, slice).value();
      }
      EXPECT_EQ(read, whole + (static_cast<uint64_t>(world_size) - 1) * replicated);
      // Vectors are F32 in memory, and pieces are rounded up to cache lines.
      EXPECT_LE(memory, whole_memory + (static_cast<uint64_t>(world_size) - 1) * 2 * replicated + 64 * 1024);
      const WorkspaceLimits limits = {.max_tokens = 64, .max_positions = 512};
      WorkspaceLimits cut = limits;
      cut.slice = {.world_size = world_size, .expert_parallel = expert_parallel};
      EXPECT_LT(workspace_bytes(config, kernels, cut), workspace_bytes(config, kernels, limits));
    }
  }
}

// Columns of FP8 rows shorter than a page, vocabularies that do not divide, a head that is the embedding.
TEST(RankLoading, TiedHeadGivesTheBitsOfOne) {
  const TempDir root;
  Json config = ragged_config();
  config["tie_word_embeddings"] = true;
  write_tiny_checkpoint(root.path() / "model", config, SynthWeights::kBf16);
  const TestRunner::Options options = {.isa = available_isas().back(), .num_blocks = 96};
  const Logits wanted = run_scenario(root.path() / "model", options, 1, false, prefill_and_decode);
  expect_same_bits(run_scenario(root.path() / "model", options, 4, false, prefill_and_decode), wanted);
}

// The books: two sums a layer and the logits of rank 0's peers.
TEST(RankProfile, CountsCollectivesAndBytes) {
  run_ranks(2, [&](int rank, std::unique_ptr<Communicator> communicator) {
    const auto model = load_rank(checkpoint(), {.rank = rank, .world_size = 2});
    model->set_communicator(communicator.get());
    std::vector<float> logits;
    if (!try_step(*model, rank, logits)) throw std::runtime_error("no step");
    const PhaseCost& cost = model->profile().of(StepPhase::kCommunication);
    if (cost.num_collectives != 3 * 2 + 1) throw std::runtime_error("collectives");
    if (cost.comm_bytes != 6 * 3 * 256 * 4 + 2 * 256 * 4) throw std::runtime_error("bytes");
    if (cost.wall_s <= 0) throw std::runtime_error("seconds");
  });
}

}  // namespace
}  // namespace hadal
