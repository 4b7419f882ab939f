// One step as plain numbers: everything a rank needs to run it, nothing it would have to decide.
//
// Flat arrays only, so that it can be written to a wire as it stands. Reused from step to step without allocation.
#pragma once

#include <cstdint>
#include <vector>

#include "model/forward_model.h"

namespace hadal {

struct PlannedSequence {
  int64_t token_begin = 0;  // in token_ids
  int64_t num_tokens = 0;
  int64_t first_position = 0;
  int64_t expanded_end = 0;
  int64_t block_begin = 0;  // in block_ids
  int64_t num_blocks = 0;
  int64_t logit_begin = 0;  // in logit_rows
  int64_t num_logits = 0;   // wanted of the last rows of this sequence
};

struct StepPlan {
  std::vector<int32_t> token_ids;
  std::vector<PlannedSequence> sequences;
  std::vector<int32_t> block_ids;
  std::vector<int32_t> logit_rows;
  std::vector<LogitWant> logit_wants;  // [logit_rows], or empty: whole rows

  void clear();
};

// The plan as the model's input. `spans` is storage for it; both the plan and it must outlive the result.
StepInput make_step_input(const StepPlan& plan, std::vector<SequenceSpan>& spans);

}  // namespace hadal
