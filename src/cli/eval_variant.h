// Steps that `hadal certify` and `hadal eval table` share: word problems under a set of numerics flags, and the answers
// as a text to compare on.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "cli/eval_windows.h"
#include "cli/serve_options.h"
#include "eval/gsm8k_eval.h"
#include "text/tokenizer.h"

namespace hadal {

// Loads the model, asks it and lets go of it. Errors: as open_eval_model() and run_gsm8k().
Expected<Gsm8kReport> ask_problems(const ServeOptions& options, const Gsm8kTask& task);

// What to compare numerics on: the text that flags.data names; without one the answers of `report`, given its prompts:
// the tokens that the model itself writes. Chat answers have no plain prompt: then the data set's own solutions.
Expected<std::vector<TokenWindow>> comparison_windows(const WindowFlags& flags, const Gsm8kReport& report,
                                                      const Gsm8kTask& task, const Tokenizer& tokenizer,
                                                      int64_t max_model_len);

}  // namespace hadal
