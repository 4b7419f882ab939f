#include "eval/gsm8k_data.h"

#include "base/file.h"
#include "base/python_random.h"
#include "eval/gsm8k_score.h"
#include "eval/jsonl.h"

namespace hadal {
namespace {

std::string question_text(const Gsm8kProblem& problem) { return "Question: " + problem.question + "\nAnswer:"; }

EvalPrompt text_prompt(const Gsm8kProblem& problem, const std::vector<const Gsm8kProblem*>& shots) {
  EvalPrompt prompt;
  for (const Gsm8kProblem* shot : shots) prompt.text += question_text(*shot) + " " + shot->answer + "\n\n";
  prompt.text += question_text(problem);
  return prompt;
}

EvalPrompt chat_prompt(const Gsm8kProblem& problem, const std::vector<const Gsm8kProblem*>& shots) {
  EvalPrompt prompt;
  prompt.messages = Json::array();
  for (const Gsm8kProblem* shot : shots) {
    prompt.messages.push_back({{"role", "user"}, {"content", shot->question}});
    prompt.messages.push_back({{"role", "assistant"}, {"content", shot->answer}});
  }
  prompt.messages.push_back({{"role", "user"}, {"content", problem.question}});
  return prompt;
}

}  // namespace

Expected<std::vector<Gsm8kProblem>> parse_gsm8k(std::string_view text, std::string_view where) {
  std::vector<Gsm8kProblem> problems;
  HADAL_RETURN_IF_ERROR(for_each_json_line(text, where, [&](const Json& object, int64_t) -> Status {
    Gsm8kProblem problem;
    HADAL_ASSIGN_OR_RETURN(problem.question, string_member(object, "question"));
    HADAL_ASSIGN_OR_RETURN(problem.answer, string_member(object, "answer"));
    if (problem.question.empty()) return make_error(ErrorCode::kCorrupt, "\"question\" is empty");
    if (normalize_answer(problem.answer).find_first_of("0123456789") == std::string::npos) {
      return make_error(ErrorCode::kCorrupt, "\"answer\" has no final number: GSM8K's answers end with \"#### 18\"");
    }
    problems.push_back(std::move(problem));
    return {};
  }));
  if (problems.empty()) return make_error(ErrorCode::kInvalidArgument, "{}: no problems in it", where);
  return problems;
}

Expected<std::vector<Gsm8kProblem>> read_gsm8k(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxJsonlBytes));
  return parse_gsm8k(text, path.string());
}

Expected<std::vector<EvalPrompt>> gsm8k_prompts(const std::vector<Gsm8kProblem>& problems,
                                                const std::vector<Gsm8kProblem>& examples,
                                                const Gsm8kPromptOptions& options) {
  if (options.num_fewshot < 0 || options.num_fewshot > static_cast<int64_t>(examples.size())) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{} few-shot examples asked, {} are given: name a file of them, or ask for fewer",
                      options.num_fewshot, examples.size());
  }
  PythonRandom random(options.seed);
  std::vector<EvalPrompt> prompts;
  for (const Gsm8kProblem& problem : problems) {
    std::vector<const Gsm8kProblem*> shots;
    const auto count = static_cast<uint32_t>(options.num_fewshot);
    for (const uint32_t picked : random.sample(static_cast<uint32_t>(examples.size()), count)) {
      shots.push_back(&examples[picked]);
    }
    prompts.push_back(options.chat ? chat_prompt(problem, shots) : text_prompt(problem, shots));
  }
  return prompts;
}

std::vector<std::string> gsm8k_stop_strings() { return {"Question:", "</s>", "<|im_end|>"}; }

}  // namespace hadal
