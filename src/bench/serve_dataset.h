// Prompts of a serving benchmark. The rules are those of vLLM's benchmark client (0.7 and 0.9), draw for draw: the same
// seed gives the same prompts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/python_random.h"
#include "base/status.h"
#include "bench/numpy_random.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace hadal {

struct ServePrompt {
  std::string text;
  int64_t num_prompt_tokens = 0;  // as the data set counts them; a server may count otherwise
  int64_t num_output_tokens = 0;  // to ask for
};

// How random lengths and texts are made.
enum class RandomRule {
  kOld,  // lengths in [max(1, L * ratio), L]; the text of consecutive ids
  kMid,  // lengths in [L * (1 - ratio), L * (1 + ratio)]; that text is encoded, cut to its length and decoded again
};

struct RandomPromptOptions {
  RandomRule rule = RandomRule::kOld;
  int64_t input_len = 1024;    // tokens, >= 1
  int64_t output_len = 128;    // tokens, >= 1
  double range_ratio = 1.0;    // kOld: in [0, 1]; kMid: in [0, 1)
  int64_t prefix_len = 0;      // tokens in front that all prompts share, >= 0
  int64_t vocab_size = 0;      // ids are drawn below it, >= 1
  int64_t special_tokens = 0;  // kMid: that the tokenizer adds to a text; taken off input_len
};

// Below which ids are drawn, as Hugging Face's tokenizers count: those of tokenizer.json without the added tokens
// behind the vocabulary, those of tiktoken with them. `model_dir`: the tokenizer's.
int64_t random_vocab_size(const Tokenizer& tokenizer, const std::filesystem::path& model_dir);

// Errors: kInvalidArgument naming the option.
Expected<std::vector<ServePrompt>> random_prompts(const RandomPromptOptions& options, size_t num_prompts,
                                                  const Tokenizer& tokenizer, NumpyRandom& random);

// The first two turns of conversations, in shuffled order. `text`: a ShareGPT file. `output_len`: instead of the length
// of the answer in the file. Fewer prompts than asked for when the file has no more that fit.
// Errors: kCorrupt naming the conversation; kInvalidArgument when none fits.
Expected<std::vector<ServePrompt>> sharegpt_prompts(std::string_view text, size_t num_prompts,
                                                    std::optional<int64_t> output_len, const Tokenizer& tokenizer,
                                                    PythonRandom& random);

struct SonnetPromptOptions {
  int64_t input_len = 550, output_len = 150, prefix_len = 200;  // tokens
  bool templated = true;  // false: the bare text, for a chat route that applies the template itself
};

// An instruction, the first lines of the poem, then lines drawn from it, about input_len tokens in all.
// `text`: one line of the poem a line. Errors: kInvalidArgument when the lengths do not fit.
Expected<std::vector<ServePrompt>> sonnet_prompts(std::string_view text, size_t num_prompts,
                                                  const SonnetPromptOptions& options, const Tokenizer& tokenizer,
                                                  const ChatTemplate& chat_template, PythonRandom& random);

}  // namespace hadal
