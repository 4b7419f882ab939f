#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/file.h"
#include "base/python_random.h"
#include "eval/gsm8k_data.h"
#include "eval/gsm8k_eval.h"
#include "eval/gsm8k_score.h"
#include "eval/transcript.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What lm_eval's own code gives (tests/golden/make_gsm8k_cases.py).
const Json& golden() {
  static const Json kCases = load_json(source_dir() / "tests/golden/gsm8k_cases.json");
  return kCases;
}

TEST(Gsm8kScore, FiltersEqualLmEval) {
  ASSERT_GT(golden()["answers"].size(), 60u);
  for (const Json& row : golden()["answers"]) {
    const std::string answer = row["answer"];
    EXPECT_EQ(strict_match(answer), row["strict"].get<std::string>()) << answer;
    EXPECT_EQ(flexible_extract(answer), row["flexible"].get<std::string>()) << answer;
  }
}

TEST(Gsm8kScore, ExactMatchEqualsLmEvalForEveryPair) {
  std::set<std::pair<std::string, std::string>> matches;
  for (const Json& pair : golden()["matches"]) matches.emplace(pair[0], pair[1]);
  ASSERT_GT(matches.size(), 50u);
  for (const std::string prediction : golden()["predictions"]) {
    for (const std::string target : golden()["targets"]) {
      EXPECT_EQ(exact_match(prediction, target), matches.contains({prediction, target}))
          << prediction << " | " << target;
    }
  }
}

TEST(PythonRandom, DrawsEqualPythons) {
  PythonRandom random(1234);
  for (const uint32_t expected : golden()["uint32_of_1234"]) EXPECT_EQ(random.next(), expected);
  for (const Json& draw : golden()["draws"]) {
    PythonRandom fresh(draw["seed"].get<uint64_t>());
    for (const Json& picked : draw["picked"]) {
      EXPECT_EQ(fresh.sample(draw["pool"], draw["count"]), picked.get<std::vector<uint32_t>>()) << draw.dump();
    }
  }
}

TEST(Gsm8kPrompts, TextFormIsLmEvals) {
  const std::vector<Gsm8kProblem> problems = {{"How many?", "1+1\n#### 2"}};
  const std::vector<Gsm8kProblem> examples = {{"Q0", "#### 0"}, {"Q1", "#### 1"}, {"Q2", "#### 2"}};
  const auto bare = gsm8k_prompts(problems, {}, {});
  ASSERT_TRUE(bare);
  EXPECT_EQ((*bare)[0].text, "Question: How many?\nAnswer:");
  const auto shots = gsm8k_prompts(problems, examples, {.num_fewshot = 2});
  ASSERT_TRUE(shots);
  const auto picked = PythonRandom(1234).sample(3, 2);
  std::string expected;
  for (const uint32_t i : picked) expected += fmt::format("Question: Q{}\nAnswer: #### {}\n\n", i, i);
  EXPECT_EQ((*shots)[0].text, expected + "Question: How many?\nAnswer:");
  EXPECT_TRUE((*shots)[0].messages.is_null());
}

TEST(Gsm8kPrompts, ChatFormHasExamplesAsTurns) {
  const auto prompts = gsm8k_prompts({{"Q", "#### 2"}}, {{"E", "#### 1"}}, {.num_fewshot = 1, .chat = true});
  ASSERT_TRUE(prompts);
  EXPECT_EQ(dump_json((*prompts)[0].messages),
            R"([{"role":"user","content":"E"},{"role":"assistant","content":"#### 1"},{"role":"user","content":"Q"}])");
}

TEST(Gsm8kPrompts, TooFewExamplesAreRefused) {
  const auto prompts = gsm8k_prompts({{"Q", "#### 2"}}, {{"E", "#### 1"}}, {.num_fewshot = 5});
  ASSERT_FALSE(prompts);
  EXPECT_THAT(prompts.error().message, HasSubstr("5 few-shot examples asked, 1 are given"));
}

struct DamagedData {
  const char* text;
  const char* message;
};

TEST(Gsm8kData, DamagedLinesAreRefusedByNumber) {
  const std::string good = "{\"question\": \"q\", \"answer\": \"#### 1\"}\n";
  const DamagedData cases[] = {
      {"{\"question\": \"q\"}", "\"answer\" is missing"},
      {"{\"question\": 3, \"answer\": \"#### 1\"}", "\"question\" must be a string"},
      {"{\"question\": \"\", \"answer\": \"#### 1\"}", "\"question\" is empty"},
      {"{\"question\": \"q\", \"answer\": \"none\"}", "no final number"},
      {"{\"question\": \"q\", \"answer\": \"12 apples\\n#### \"}", "no final number"},
      {"[1]", "must be a JSON object"},
      {"{\"question\": \"q\"", "not valid JSON"},
      {"{\"question\": \"q\", \"question\": \"r\", \"answer\": \"#### 1\"}", "appears twice"},
      {"{\"question\": \"\xff\", \"answer\": \"#### 1\"}", "not valid JSON"},
  };
  for (const DamagedData& damaged : cases) {
    const auto read = parse_gsm8k(good + "\n" + damaged.text + "\n" + good, "test.jsonl");
    ASSERT_FALSE(read) << damaged.text;
    EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(read.error().message, HasSubstr("test.jsonl:3: "));
    EXPECT_THAT(read.error().message, HasSubstr(damaged.message));
  }
  EXPECT_EQ(parse_gsm8k("\n \n", "x").error().message, "x: no problems in it");
  EXPECT_EQ(parse_gsm8k(good + good, "x")->size(), 2u);
}

TEST(Accuracy, StandardErrorIsThatOfASample) {
  const Accuracy accuracy = make_accuracy(3, 4);
  // Deviation of {1, 1, 1, 0} with n - 1, over sqrt(n): sqrt(0.75 / 3) / 2.
  EXPECT_DOUBLE_EQ(accuracy.share, 0.75);
  EXPECT_DOUBLE_EQ(accuracy.std_error, 0.25);
  EXPECT_TRUE(std::isnan(make_accuracy(1, 1).std_error));
}

// Answers from a table; remembers what it was asked.
class TableSource final : public AnswerSource {
 public:
  Expected<EvalAnswer> answer(const EvalPrompt& prompt) override {
    const std::lock_guard lock(mutex_);
    asked.push_back(prompt.text);
    const int64_t number = static_cast<int64_t>(asked.size());
    if (number == fail_at) return make_error(ErrorCode::kUnavailable, "gone");
    EvalAnswer answer = {.text = text, .finish_reason = finish_reason, .num_prompt_tokens = 3, .num_tokens = 2};
    return answer;
  }
  Json identity() const override { return {{"path", name}}; }

  std::string name = "table", text = " #### 1", finish_reason = "stop";
  int64_t fail_at = 0;
  std::vector<std::string> asked;

 private:
  std::mutex mutex_;
};

class Gsm8kEval : public ::testing::Test {
 protected:
  Gsm8kEval() {
    std::string lines;
    for (int i = 0; i < 6; ++i) lines += fmt::format("{{\"question\": \"Q{}\", \"answer\": \"#### {}\"}}\n", i, i % 2);
    EXPECT_TRUE(write_file_atomically(dir_.path() / "data.jsonl", lines));
    options_.data = dir_.path() / "data.jsonl";
    options_.transcript = dir_.path() / "out/run.jsonl";
    options_.num_concurrent = 1;
    options_.show_progress = false;
  }
  Expected<Gsm8kReport> run() {
    auto task = prepare_gsm8k(options_);
    if (!task) return forward_error(std::move(task));
    return run_gsm8k(*task, source_);
  }

  TempDir dir_;
  Gsm8kOptions options_;
  TableSource source_;
};

TEST_F(Gsm8kEval, CountsRightTruncatedAndUnparsedApart) {
  source_.text = "the answer is 1";
  source_.finish_reason = "length";
  options_.num_concurrent = 4;
  const auto report = run();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->num_samples, 6);
  EXPECT_EQ(report->flexible.num_right, 3);
  EXPECT_EQ(report->strict.num_right, 0);
  EXPECT_EQ(report->num_strict_unparsed, 6);
  EXPECT_EQ(report->num_flexible_unparsed, 0);
  EXPECT_EQ(report->num_truncated, 6);
  EXPECT_EQ(report->num_tokens, 12);
  EXPECT_DOUBLE_EQ(report->flexible.std_error, std::sqrt(0.25 / 5));
}

TEST_F(Gsm8kEval, AFailureKeepsWhatWasAnsweredAndResumeAsksTheRest) {
  source_.fail_at = 4;
  const auto failed = run();
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "problem 4: gone");
  source_.fail_at = 0;
  source_.asked.clear();
  EXPECT_THAT(run().error().message, HasSubstr("--resume"));  // not overwritten by accident
  options_.resume = true;
  const auto report = run();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(source_.asked.size(), 3u);
  EXPECT_EQ(report->num_resumed, 3);
  EXPECT_EQ(report->num_samples, 6);
  EXPECT_EQ(report->strict.num_right, 3);
}

TEST_F(Gsm8kEval, ALineThatWasCutShortIsAskedAgain) {
  ASSERT_TRUE(run());
  std::filesystem::resize_file(options_.transcript, std::filesystem::file_size(options_.transcript) - 10);
  options_.resume = true;
  source_.asked.clear();
  const auto report = run();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_THAT(source_.asked, ElementsAre("Question: Q5\nAnswer:"));
  ASSERT_TRUE(run());  // whole again
}

TEST_F(Gsm8kEval, ResumeRefusesAnotherRunsTranscript) {
  options_.limit = 2;
  ASSERT_TRUE(run());
  options_.resume = true;
  options_.limit = 4;  // more of the same run
  EXPECT_EQ(run()->num_resumed, 2);
  options_.answers.max_gen_toks = 7;
  const auto other_limit = run();
  ASSERT_FALSE(other_limit);
  EXPECT_THAT(other_limit.error().message, HasSubstr("max_gen_toks is 256 there, 7 now"));
  options_.answers.max_gen_toks = 256;
  source_.name = "another";
  const auto other_model = run();
  ASSERT_FALSE(other_model);
  EXPECT_THAT(other_model.error().message, HasSubstr(R"(model is {"path":"table"} there, {"path":"another"} now)"));
}

TEST_F(Gsm8kEval, DamagedTranscriptsAreRefusedByLine) {
  ASSERT_TRUE(run());
  const std::string whole = *read_file(options_.transcript, 1 << 20);
  const std::string head = whole.substr(0, whole.find('\n') + 1);
  const std::string first = whole.substr(head.size(), whole.find('\n', head.size()) + 1 - head.size());
  const std::pair<std::string, const char*> cases[] = {
      {"", "holds no transcript"},
      {"{\"a\": 1}\n", "not a transcript"},
      {"{\"hadal_transcript\": 99, \"config\": {}}\n", "not a transcript"},
      {head + first + first, "sample 0 is there twice"},
      {head + "{\"index\": -1}\n", "\"prompt\" is missing"},
      {head + "[]\n", "must be a JSON object"},
      {head + first.substr(0, first.find("\"tokens\"")) + "\"tokens\": 1e300}\n", "\"tokens\" must be a whole number"},
      {head + first.substr(0, first.find("\"strict_right\"")) + "\"strict_right\": 1}\n", "is missing"},
  };
  options_.resume = true;
  for (const auto& [content, message] : cases) {
    ASSERT_TRUE(write_file_atomically(options_.transcript, content));
    const auto report = run();
    ASSERT_FALSE(report) << content;
    EXPECT_THAT(report.error().message, HasSubstr(message));
  }
}

TEST_F(Gsm8kEval, OptionsOutOfRangeAreRefused) {
  options_.num_concurrent = 0;
  EXPECT_THAT(run().error().message, HasSubstr("--concurrency 0: must be 1 to 1024"));
  options_.num_concurrent = 1;
  options_.answers.max_gen_toks = 0;
  EXPECT_EQ(run().error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace hadal
