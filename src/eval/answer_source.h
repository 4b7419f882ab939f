// Who answers an evaluation's prompts: an engine in this process or a server behind a URL.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "eval/gsm8k_data.h"

namespace hadal {

struct EvalAnswer {
  std::string text;           // without the reasoning of a chat answer
  std::string reasoning;      // chat only
  std::string finish_reason;  // "stop" or "length", as the OpenAI API says it
  int64_t num_prompt_tokens = 0;
  int64_t num_tokens = 0;  // generated
};

// How every prompt is answered: greedily, and as follows.
struct AnswerOptions {
  int64_t max_gen_toks = 256;
  std::vector<std::string> stop;
  // Put BOS in front of a text prompt where the model's tokenizer asks for it, as servers do. lm_eval's API models
  // leave it out unless they send text (tokenized_requests=False).
  bool add_bos_token = true;
};

// Thread-safe.
class AnswerSource {
 public:
  virtual ~AnswerSource() = default;
  // Blocks until the answer is whole. Errors are those of the source; the next prompt may still be answered.
  virtual Expected<EvalAnswer> answer(const EvalPrompt& prompt) = 0;
  // What the answers depend on besides the prompt and AnswerOptions: the model and its numerics.
  virtual Json identity() const = 0;
};

}  // namespace hadal
