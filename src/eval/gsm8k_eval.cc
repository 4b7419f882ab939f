#include "eval/gsm8k_eval.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "eval/content_hash.h"
#include "eval/gsm8k_score.h"
#include "eval/jsonl.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxConcurrent = 1024;
constexpr int64_t kDefaultFewshot = 5;

TranscriptSample score(int64_t index, const Gsm8kProblem& problem, const EvalPrompt& prompt, EvalAnswer answer) {
  TranscriptSample sample;
  sample.index = index;
  sample.prompt = prompt.messages.is_null() ? prompt.text : dump_json(prompt.messages);
  sample.strict = strict_match(answer.text);
  sample.flexible = flexible_extract(answer.text);
  sample.target = problem.answer;
  sample.strict_right = exact_match(sample.strict, problem.answer);
  sample.flexible_right = exact_match(sample.flexible, problem.answer);
  sample.answer = std::move(answer.text);
  sample.reasoning = std::move(answer.reasoning);
  sample.finish_reason = std::move(answer.finish_reason);
  sample.num_prompt_tokens = answer.num_prompt_tokens;
  sample.num_tokens = answer.num_tokens;
  return sample;
}

// Threads that take the next open problem until none is left or one has failed.
class Gsm8kRun {
 public:
  Gsm8kRun(const Gsm8kTask& task, AnswerSource& source) : task_(task), source_(source) {}

  Expected<Gsm8kReport> run() {
    const auto begin = Clock::now();
    Gsm8kReport report;
    report.config = task_.config;
    report.config["model"] = source_.identity();
    HADAL_RETURN_IF_ERROR(open_transcript(report.config));
    report.num_resumed = static_cast<int64_t>(samples_.size());
    ask_all();
    if (failed_) return tl::unexpected<Error>(*std::move(failed_));
    report.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    summarise(report);
    return report;
  }

 private:
  Status open_transcript(const Json& config) {
    const Gsm8kOptions& options = task_.options;
    std::vector<bool> answered(task_.prompts.size());
    std::error_code ignored;
    if (!options.transcript.empty()) {
      auto opened = options.resume && std::filesystem::exists(options.transcript, ignored)
                        ? Transcript::resume(options.transcript, config)
                        : Transcript::create(options.transcript, config);
      if (!opened) return forward_error(std::move(opened));
      transcript_ = std::move(*opened);
      for (const TranscriptSample& sample : transcript_->samples()) {
        if (sample.index >= static_cast<int64_t>(answered.size())) continue;  // of a run with a higher --limit
        answered[static_cast<size_t>(sample.index)] = true;
        samples_.push_back(sample);
      }
    }
    for (size_t i = 0; i < answered.size(); ++i) {
      if (!answered[i]) open_.push_back(static_cast<int64_t>(i));
    }
    return {};
  }

  void ask_all() {
    if (task_.options.show_progress) bar_.emplace("gsm8k", "problem");
    std::vector<std::thread> threads;
    const auto num_threads = std::min<size_t>(static_cast<size_t>(task_.options.num_concurrent), open_.size());
    for (size_t i = 0; i < num_threads; ++i) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
  }

  void work() {
    while (const auto index = take_next()) {
      const auto at = static_cast<size_t>(*index);
      auto answer = source_.answer(task_.prompts[at]);
      const std::lock_guard lock(mutex_);
      Status kept;
      if (!answer) {
        kept = forward_error(std::move(answer), fmt::format("problem {}", *index + 1));
      } else {
        TranscriptSample sample = score(*index, task_.problems[at], task_.prompts[at], *std::move(answer));
        if (transcript_) kept = transcript_->add(sample);
        samples_.push_back(std::move(sample));
        if (bar_) bar_->update(samples_.size(), task_.prompts.size());
      }
      if (!kept && !failed_) failed_ = kept.error();
    }
  }

  std::optional<int64_t> take_next() {
    const std::lock_guard lock(mutex_);
    if (failed_ || next_ == open_.size()) return std::nullopt;
    return open_[next_++];
  }

  void summarise(Gsm8kReport& report) {
    std::sort(samples_.begin(), samples_.end(), [](const auto& a, const auto& b) { return a.index < b.index; });
    report.num_samples = static_cast<int64_t>(samples_.size());
    int64_t num_strict = 0, num_flexible = 0;
    for (const TranscriptSample& sample : samples_) {
      num_strict += sample.strict_right ? 1 : 0;
      num_flexible += sample.flexible_right ? 1 : 0;
      report.num_truncated += sample.finish_reason == "length" ? 1 : 0;
      report.num_strict_unparsed += sample.strict == kUnparsedAnswer ? 1 : 0;
      report.num_flexible_unparsed += sample.flexible == kUnparsedAnswer ? 1 : 0;
      report.num_prompt_tokens += sample.num_prompt_tokens;
      report.num_tokens += sample.num_tokens;
    }
    report.strict = make_accuracy(num_strict, report.num_samples);
    report.flexible = make_accuracy(num_flexible, report.num_samples);
    report.samples = std::move(samples_);
  }

  const Gsm8kTask& task_;
  AnswerSource& source_;
  std::vector<int64_t> open_;  // problems to ask

  std::mutex mutex_;
  // Guarded by mutex_ while threads run.
  size_t next_ = 0;
  std::optional<Error> failed_;
  std::optional<Transcript> transcript_;
  std::vector<TranscriptSample> samples_;
  std::optional<ProgressBar> bar_;
};

Status check_options(const Gsm8kOptions& options) {
  const auto refuse = [](const char* name, int64_t value, int64_t least, int64_t most) -> Status {
    if (value >= least && value <= most) return {};
    return make_error(ErrorCode::kInvalidArgument, "{} {}: must be {} to {}", name, value, least, most);
  };
  constexpr int64_t kMost = int64_t{1} << 30;
  HADAL_RETURN_IF_ERROR(refuse("--concurrency", options.num_concurrent, 1, kMaxConcurrent));
  HADAL_RETURN_IF_ERROR(refuse("--limit", options.limit, 0, kMost));
  HADAL_RETURN_IF_ERROR(refuse("--max-gen-toks", options.answers.max_gen_toks, 1, kMost));
  return refuse("--num-fewshot", options.num_fewshot, -1, kMost);
}

Json accuracy_json(const Accuracy& accuracy) {
  return {{"right", accuracy.num_right}, {"accuracy", accuracy.share}, {"stderr", accuracy.std_error}};
}

}  // namespace

Accuracy make_accuracy(int64_t num_right, int64_t num_samples) {
  const auto n = static_cast<double>(num_samples);
  const double share = num_samples > 0 ? static_cast<double>(num_right) / n : std::nan("");
  return {.num_right = num_right,
          .share = share,
          .std_error = num_samples > 1 ? std::sqrt(share * (1 - share) / (n - 1)) : std::nan("")};
}

Expected<Gsm8kTask> prepare_gsm8k(Gsm8kOptions options) {
  HADAL_RETURN_IF_ERROR(check_options(options));
  Gsm8kTask task;
  std::string train_hash;
  std::vector<Gsm8kProblem> examples;
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(options.data, kMaxJsonlBytes));
  HADAL_ASSIGN_OR_RETURN(task.problems, parse_gsm8k(text, options.data.string()));
  if (!options.train.empty()) {
    HADAL_ASSIGN_OR_RETURN(const std::string train, read_file(options.train, kMaxJsonlBytes));
    HADAL_ASSIGN_OR_RETURN(examples, parse_gsm8k(train, options.train.string()));
    train_hash = content_hash(train);
  }
  if (options.num_fewshot < 0) options.num_fewshot = examples.empty() ? 0 : kDefaultFewshot;
  if (options.limit > 0 && options.limit < static_cast<int64_t>(task.problems.size())) {
    task.problems.resize(static_cast<size_t>(options.limit));
  }
  if (!options.chat) options.answers.stop = gsm8k_stop_strings();
  HADAL_ASSIGN_OR_RETURN(
      task.prompts, gsm8k_prompts(task.problems, examples,
                                  {.num_fewshot = options.num_fewshot, .seed = options.seed, .chat = options.chat}));
  task.config = {{"task", "gsm8k"},
                 {"data", content_hash(text)},
                 {"train", train_hash},
                 {"num_fewshot", options.num_fewshot},
                 {"seed", options.seed},
                 {"chat", options.chat},
                 {"add_bos_token", options.answers.add_bos_token},
                 {"max_gen_toks", options.answers.max_gen_toks},
                 {"stop", options.answers.stop}};
  task.options = std::move(options);
  return task;
}

Expected<Gsm8kReport> run_gsm8k(const Gsm8kTask& task, AnswerSource& source) { return Gsm8kRun(task, source).run(); }

std::string gsm8k_text(const Gsm8kReport& r) {
  const auto line = [&](const char* name, const Accuracy& accuracy, int64_t num_unparsed) {
    return fmt::format("{:<18}{:>8.2f} % +- {:.2f} {:>10} of {} right {:>8} unparsed\n", name, 100 * accuracy.share,
                       100 * accuracy.std_error, accuracy.num_right, r.num_samples, num_unparsed);
  };
  std::string text = line("strict-match", r.strict, r.num_strict_unparsed) +
                     line("flexible-extract", r.flexible, r.num_flexible_unparsed);
  text += fmt::format("{} answers were cut off at max_gen_toks; {} tokens in {:.1f} s", r.num_truncated, r.num_tokens,
                      r.seconds);
  if (r.num_resumed > 0) text += fmt::format("; {} answers are from the transcript", r.num_resumed);
  return text + "\n";
}

Json gsm8k_json(const Gsm8kReport& r) {
  return {{"task", "gsm8k"},
          {"samples", r.num_samples},
          {"strict_match", accuracy_json(r.strict)},
          {"flexible_extract", accuracy_json(r.flexible)},
          {"strict_unparsed", r.num_strict_unparsed},
          {"flexible_unparsed", r.num_flexible_unparsed},
          {"truncated", r.num_truncated},
          {"prompt_tokens", r.num_prompt_tokens},
          {"generated_tokens", r.num_tokens},
          {"resumed", r.num_resumed},
          {"seconds", r.seconds},
          {"config", r.config}};
}

}  // namespace hadal
