// A plan together with whose it is.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/sequence.h"
#include "engine/step_plan.h"

namespace hadal {

struct StepBatch {
  StepPlan plan;
  std::vector<Sequence*> members;  // entry i belongs to plan.sequences[i]; null: ended since (open steps only)
  int64_t num_prefill_tokens = 0;
  int64_t num_decode_tokens = 0;
  int64_t num_preempted = 0;

  bool empty() const { return members.empty(); }
  void clear() {
    plan.clear();
    members.clear();
    num_prefill_tokens = num_decode_tokens = num_preempted = 0;
  }
};

}  // namespace hadal
