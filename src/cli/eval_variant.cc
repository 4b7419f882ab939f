#include "cli/eval_variant.h"

#include <utility>

#include "cli/eval_model.h"

namespace hadal {

Expected<Gsm8kReport> ask_problems(const ServeOptions& options, const Gsm8kTask& task) {
  HADAL_ASSIGN_OR_RETURN(EvalModel model, open_eval_model(options, task.options.num_concurrent));
  const auto source = make_engine_answers(std::move(model), task.options.answers);
  return run_gsm8k(task, *source);
}

Expected<std::vector<TokenWindow>> comparison_windows(const WindowFlags& flags, const Gsm8kReport& report,
                                                      const Gsm8kTask& task, const Tokenizer& tokenizer,
                                                      int64_t max_model_len) {
  if (!flags.data.empty() || task.options.chat) {
    WindowFlags given = flags;
    if (given.data.empty()) given.data = task.options.data.string();
    return read_windows(given, tokenizer, max_model_len);
  }
  std::vector<Document> documents;
  for (const TranscriptSample& sample : report.samples) {
    documents.push_back({.prompt = sample.prompt, .text = sample.answer});
  }
  return windows_of(documents, flags, tokenizer, max_model_len);
}

}  // namespace hadal
