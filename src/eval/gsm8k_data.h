// GSM8K's problems and the prompts that lm_eval's gsm8k task makes of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

struct Gsm8kProblem {
  std::string question;
  std::string answer;  // the worked solution and its "#### 18"
};

// One {"question": .., "answer": ..} a line; other members are ignored. Errors name file and line: kCorrupt (a line is
// no such object, an answer has no final number), kInvalidArgument (no problems at all).
Expected<std::vector<Gsm8kProblem>> parse_gsm8k(std::string_view text, std::string_view where);
Expected<std::vector<Gsm8kProblem>> read_gsm8k(const std::filesystem::path& path);

// A prompt in the form that is sent: text, or a conversation.
struct EvalPrompt {
  std::string text;  // empty when `messages` is not null
  Json messages;     // OpenAI messages, or null
};

struct Gsm8kPromptOptions {
  int64_t num_fewshot = 0;
  uint64_t seed = 1234;  // of the draws of examples; lm_eval's default
  bool chat = false;
};

// "Question: ..\nAnswer:" for every problem, preceded by examples drawn as lm_eval draws them (its prompts equal these
// byte for byte); with `chat` the bare question as the user's turn, preceded by the examples as turns.
// Errors: kInvalidArgument when there are fewer examples than num_fewshot.
Expected<std::vector<EvalPrompt>> gsm8k_prompts(const std::vector<Gsm8kProblem>& problems,
                                                const std::vector<Gsm8kProblem>& examples,
                                                const Gsm8kPromptOptions& options);

// What ends an answer to a prompt without `chat`.
std::vector<std::string> gsm8k_stop_strings();

}  // namespace hadal
