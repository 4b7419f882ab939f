// hadal eval gsm8k: asks all problems, many at a time, and scores the answers as lm_eval does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "eval/answer_source.h"
#include "eval/gsm8k_data.h"
#include "eval/transcript.h"

namespace hadal {

struct Gsm8kOptions {
  std::filesystem::path data, train;  // GSM8K's JSONL; train may be empty
  int64_t num_fewshot = -1;           // -1: 5 where train is given, else none
  bool chat = false;
  int64_t limit = 0;  // the first so many problems; 0: all
  int64_t num_concurrent = 64;
  uint64_t seed = 1234;              // of the draws of few-shot examples
  AnswerOptions answers;             // stop: set by prepare_gsm8k()
  std::filesystem::path transcript;  // JSONL; empty: none is kept
  bool resume = false;
  bool show_progress = true;
};

// A share of right answers with lm_eval's standard error: sample deviation / sqrt(n). NaN for a single answer.
struct Accuracy {
  int64_t num_right = 0;
  double share = 0;
  double std_error = 0;
};
Accuracy make_accuracy(int64_t num_right, int64_t num_samples);

struct Gsm8kReport {
  int64_t num_samples = 0;
  Accuracy strict, flexible;
  int64_t num_truncated = 0;  // ended by max_gen_toks
  int64_t num_strict_unparsed = 0, num_flexible_unparsed = 0;
  int64_t num_prompt_tokens = 0, num_tokens = 0;
  int64_t num_resumed = 0;  // of the samples: taken from the transcript
  double seconds = 0;
  Json config;                            // what the answers depend on
  std::vector<TranscriptSample> samples;  // by index
};

// The data of a run, read and checked before a model is loaded.
struct Gsm8kTask {
  Gsm8kOptions options;
  std::vector<Gsm8kProblem> problems;
  std::vector<EvalPrompt> prompts;
  Json config;  // of everything but the source
};
// Errors: as read_gsm8k(); kInvalidArgument for options out of range.
Expected<Gsm8kTask> prepare_gsm8k(Gsm8kOptions options);

// Errors: those of the transcript and of the source; the transcript then keeps what was answered.
Expected<Gsm8kReport> run_gsm8k(const Gsm8kTask& task, AnswerSource& source);

std::string gsm8k_text(const Gsm8kReport& report);
Json gsm8k_json(const Gsm8kReport& report);

}  // namespace hadal
