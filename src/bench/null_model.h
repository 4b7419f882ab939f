// A model that computes nothing: every token gets the same logits. What a step costs with it, the engine costs.
#pragma once

#include <chrono>
#include <cstdint>

#include "model/forward_model.h"

namespace hadal {

class NullModel final : public ForwardModel {
 public:
  explicit NullModel(int64_t vocab_size) : vocab_size_(vocab_size) {}

  int64_t vocab_size() const override { return vocab_size_; }
  int64_t max_position_embeddings() const override { return int64_t{1} << 20; }
  int64_t kv_bytes_per_token() const override { return 1; }
  Status allocate_kv(int64_t, int64_t, int64_t) override { return {}; }
  PartialLogits partial_logits(int64_t) const override { return {}; }
  Status forward(const StepInput& input, float* logits) override;
  const StepProfile& profile() const override { return profile_; }
  void fill_kv(uint64_t) override {}

 private:
  int64_t vocab_size_;
  StepProfile profile_;  // wall_s: time to subtract from a step
};

}  // namespace hadal
