// Answers from an engine in this process.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "eval/answer_source.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace hadal {

// An engine with the model's text side. The caller may go on using all of it.
struct EvalModel {
  std::shared_ptr<Engine> engine;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;  // none: chat prompts are refused
  std::vector<int32_t> eos_token_ids;
  int64_t max_model_len = 0;
  std::string reasoning_parser = "auto";  // as reasoning_mode() takes it
  Json identity;                          // what AnswerSource::identity() says
};

// Errors of answer(): kInvalidArgument (the prompt does not fit the context, or has no chat template), those of the
// engine.
std::unique_ptr<AnswerSource> make_engine_answers(EvalModel model, AnswerOptions options);

}  // namespace hadal
