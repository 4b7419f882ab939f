// Tiny models for tests: a configuration with every feature, and synthetic checkpoints of it.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/checkpoint.h"
#include "model/load_model.h"
#include "synth_checkpoint/synth_checkpoint.h"

namespace hadal {

// q_lora, YaRN, grouped routing, ragged scale blocks, one MTP layer; 512 tokens, hidden 256, 3 layers, 4 heads.
Json tiny_config();
// No q_lora, no YaRN, 3 heads, two shared experts, one routing group; hidden 192.
Json tiny_config_without_lora();

// Writes config.json and weights to `dir` (made if absent). Fails the test by exception.
void write_tiny_checkpoint(const std::filesystem::path& dir, const Json& config, SynthWeights weights);

// A checkpoint in memory, to be damaged and written again as one model.safetensors.
struct StoredTensor {
  DType dtype = DType::kF32;
  Shape shape;
  std::vector<std::byte> bytes;
};
using StoredTensors = std::map<std::string, StoredTensor>;
StoredTensors read_all_tensors(const std::filesystem::path& dir);
void write_single_file(const std::filesystem::path& dir, const StoredTensors& tensors);

// One token sequence that runs through a model step by step.
struct TestSequence {
  std::vector<int32_t> ids;
  int64_t expanded_end = 0;
  std::vector<int32_t> block_table;
  int64_t num_done = 0;
  std::vector<std::vector<float>> logits;  // [num_done]
};

// A model with its cache; blocks are handed out in a scrambled order that depends on `seed`.
class TestRunner {
 public:
  struct Options {
    Isa isa = Isa::kPortable;
    std::optional<DType> kv_dtype;  // as LoadOptions
    NumericsPlan numerics;
    int num_threads = 1;
    int64_t block_size = 8;
    int64_t num_blocks = 64;
    int64_t max_tokens = 256;
    int64_t max_tokens_between = 0;  // > 0: of prepare_pieces()
    uint32_t seed = 1;
    ForwardObserver observer;
    RangeObserver* ranges = nullptr;  // outlives the runner
    RankSlice slice;
    Communicator* communicator = nullptr;  // outlives the runner
  };
  TestRunner(const std::filesystem::path& dir, const Options& options);

  TestSequence make_sequence(std::vector<int32_t> ids, int64_t tile);
  // Runs the next chunk[i] tokens of sequences[i] in one step, logits of every row (on rank 0).
  void step(std::span<TestSequence* const> sequences, std::span<const int64_t> chunks);
  // The same as an open step, `count` pieces at a time; calls `between` after each time but the last.
  void step_in_pieces(std::span<TestSequence* const> sequences, std::span<const int64_t> chunks, int64_t count,
                      const std::function<void()>& between);
  // Runs all that is left of one sequence in chunks.
  void run(TestSequence& sequence, int64_t chunk);

  ForwardModel& model() { return *model_; }

 private:
  // Calls run(input, logits) for the next chunks and takes what it wrote.
  void step_by(std::span<TestSequence* const> sequences, std::span<const int64_t> chunks,
               const std::function<void(const StepInput& input, float* logits)>& run);

  const Options options_;
  std::unique_ptr<ForwardModel> model_;
  std::vector<int32_t> free_blocks_;
};

// Deterministic ids below `vocab_size`.
std::vector<int32_t> random_ids(size_t count, int64_t vocab_size, uint32_t seed);

}  // namespace hadal
