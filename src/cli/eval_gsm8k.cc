// hadal eval gsm8k: share of word problems solved, scored as lm_eval scores them.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include "cli/bench_common.h"
#include "cli/command.h"
#include "cli/eval_model.h"
#include "eval/gsm8k_eval.h"
#include "eval/http_answers.h"

namespace hadal {
namespace {

ServeOptions g_model;
Gsm8kOptions g_gsm8k;
HttpAnswersOptions g_http;
std::string g_data, g_train, g_output, g_json;

// --output names the transcript, or a folder for it.
std::filesystem::path transcript_path(const std::string& output, const std::string& data) {
  std::error_code ignored;
  if (output.empty()) return {};
  if (!output.ends_with('/') && !std::filesystem::is_directory(output, ignored)) return output;
  return std::filesystem::path(output) / ("gsm8k_" + std::filesystem::path(data).stem().string() + ".jsonl");
}

Expected<std::unique_ptr<AnswerSource>> make_source(const Gsm8kTask& task) {
  if (!g_http.base_url.empty()) {
    HttpAnswersOptions http = g_http;
    http.model = g_model.model;
    http.chat = task.options.chat;
    return make_http_answers(http, task.options.answers);
  }
  HADAL_ASSIGN_OR_RETURN(EvalModel model, open_eval_model(g_model, task.options.num_concurrent));
  return make_engine_answers(std::move(model), task.options.answers);
}

Status evaluate() {
  g_gsm8k.data = g_data;
  g_gsm8k.train = g_train;
  g_gsm8k.transcript = transcript_path(g_output, g_data);
  HADAL_ASSIGN_OR_RETURN(const Gsm8kTask task, prepare_gsm8k(g_gsm8k));
  HADAL_ASSIGN_OR_RETURN(const std::unique_ptr<AnswerSource> source, make_source(task));
  HADAL_ASSIGN_OR_RETURN(const Gsm8kReport report, run_gsm8k(task, *source));
  fmt::print("{}", gsm8k_text(report));
  return write_json_file(g_json, gsm8k_json(report));
}

int run_eval_gsm8k() {
  const Status evaluated = evaluate();
  return evaluated ? kExitOk : report_bench_error(evaluated.error());
}

void add_eval_gsm8k(CLI::App& eval) {
  CLI::App* command = eval.add_subcommand("gsm8k", "Word problems, as lm_eval's gsm8k task asks and scores them");
  Gsm8kOptions& o = g_gsm8k;
  const auto add = [&](const char* name, auto& value, const char* help) {
    command->add_option(name, value, help)->capture_default_str();
  };
  command->add_option("--data", g_data, "GSM8K's JSONL: {\"question\": .., \"answer\": ..} a line")->required();
  command->add_option("--train", g_train, "The same, to draw few-shot examples from");
  command->add_option("--num-fewshot", o.num_fewshot, "Examples in front of each problem [5 with --train, else 0]");
  command->add_flag("--chat", o.chat, "Ask in the model's chat form; reasoning is split off before scoring");
  add("--limit", o.limit, "Only the first so many problems; 0: all");
  add("--max-gen-toks", o.answers.max_gen_toks, "Tokens an answer may have");
  add("--concurrency", o.num_concurrent, "Problems that are answered at once");
  add("--seed", o.seed, "Of the draws of examples");
  command->add_flag("--add-bos-token,!--no-add-bos-token", o.answers.add_bos_token,
                    "Put BOS before a prompt, where the tokenizer does so [on]");
  command->add_option("--output", g_output, "Keep every answer in this JSONL file, or in this folder");
  command->add_flag("--resume", o.resume, "Go on with the file that --output names, if it is there");
  command->add_option("--json", g_json, "Write the results to this file");
  CLI::Option* base_url =
      command->add_option("--base-url", g_http.base_url, "Ask this server (http://HOST:PORT/v1); --model is its model");
  command->add_option("--api-key", g_http.api_key, "Of that server")->envname("OPENAI_API_KEY");
  add_eval_model_options(*command, g_model);
  exclude_numerics_options(*command, base_url);
  command->footer(
      "Examples:\n  hadal eval gsm8k --model models/nano --data models/nano/heldout.jsonl\n"
      "  hadal eval gsm8k --base-url http://127.0.0.1:8000/v1 --data test.jsonl --train train.jsonl --output run/");
}

}  // namespace

const Command kEvalGsm8kCommand = {add_eval_gsm8k, "gsm8k", run_eval_gsm8k};

}  // namespace hadal
