#include "engine/step_plan.h"

namespace hadal {

void StepPlan::clear() {
  token_ids.clear();
  sequences.clear();
  block_ids.clear();
  logit_rows.clear();
  logit_wants.clear();
}

StepInput make_step_input(const StepPlan& plan, std::vector<SequenceSpan>& spans) {
  spans.clear();
  for (const PlannedSequence& sequence : plan.sequences) {
    spans.push_back({.token_begin = sequence.token_begin,
                     .num_tokens = sequence.num_tokens,
                     .first_position = sequence.first_position,
                     .expanded_end = sequence.expanded_end,
                     .block_table = std::span(plan.block_ids).subspan(sequence.block_begin, sequence.num_blocks)});
  }
  return {
      .token_ids = plan.token_ids, .sequences = spans, .logit_rows = plan.logit_rows, .logit_wants = plan.logit_wants};
}

}  // namespace hadal
