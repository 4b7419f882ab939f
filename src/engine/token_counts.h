// Which tokens a sequence has seen, for penalties. Empty and free of cost when no penalty is asked for.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/request.h"

namespace hadal {

class TokenCounts {
 public:
  struct Entry {
    int32_t token_id = 0;
    int32_t num_generated = 0;  // 0: in the prompt only
  };

  TokenCounts() = default;
  TokenCounts(const SamplingParams& params, std::span<const int32_t> prompt_ids);

  void add_generated(int32_t token_id);
  std::span<const Entry> entries() const { return entries_; }

 private:
  Entry& entry(int32_t token_id);

  bool active_ = false;
  std::vector<Entry> entries_;  // each token once
  std::unordered_map<int32_t, size_t> entry_idx_;
};

}  // namespace hadal
