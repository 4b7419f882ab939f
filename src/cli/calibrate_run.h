// Runs calibration prompts through a model, as the seed's run_example_tp.py does (spec/gaudi-pipeline.md 3.1): each
// prompt is prefilled in the expanded attention form, then continued greedily for a fixed number of tokens, EOS or not.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/forward_model.h"

namespace hadal {

struct CalibrationSizes {
  int64_t prompt_len = 1024;     // tokens of every prompt
  int64_t osl = 32;              // tokens generated after it; the last one is not fed back
  int64_t batch = 8;             // prompts that decode together: results do not depend on it
  int64_t max_tokens = 1024;     // of one step, at least `batch`
  int64_t num_valid_tokens = 0;  // ids at or above are never chosen
  static constexpr int64_t kBlockSize = 64;

  int64_t blocks_per_prompt() const { return (prompt_len + osl - 1 + kBlockSize - 1) / kBlockSize; }
};

// Single-owner: the thread that runs the model.
class CalibrationRunner {
 public:
  // Allocates the cache. Errors: kResourceExhausted, kInvalidArgument.
  static Expected<CalibrationRunner> create(std::unique_ptr<ForwardModel> model, const CalibrationSizes& sizes);

  // Called with the number of tokens just computed.
  using Progress = std::function<void(int64_t num_tokens)>;
  // Runs 1 .. batch prompts to their end. Errors: what forward() returns; kInternal for logits that are no numbers.
  Status run(std::span<const std::vector<int32_t>> prompts, const Progress& progress);
  // As ForwardModel.
  Status gather_ranges() { return model_->gather_ranges(); }

 private:
  CalibrationRunner(std::unique_ptr<ForwardModel> model, const CalibrationSizes& sizes);

  Status prefill(size_t slot, std::span<const int32_t> prompt, const Progress& progress);
  Status decode(int64_t position, const Progress& progress);
  Status choose(std::span<const float> logits, size_t slot);
  // Blocks of its first positions.
  std::span<const int32_t> table_of(size_t slot, int64_t num_positions) const;

  std::unique_ptr<ForwardModel> model_;
  CalibrationSizes sizes_;
  std::vector<int32_t> block_table_;  // [batch, blocks_per_prompt]
  std::vector<float> logits_;         // [batch, vocab]
  std::vector<int32_t> next_ids_;     // [prompts at work]
};

}  // namespace hadal
