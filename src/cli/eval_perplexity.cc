// hadal eval perplexity: how surprised a model is by a text.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <string>

#include "cli/bench_common.h"
#include "cli/command.h"
#include "cli/eval_model.h"
#include "cli/eval_windows.h"
#include "eval/content_hash.h"
#include "eval/perplexity.h"

namespace hadal {
namespace {

ServeOptions g_model;
WindowFlags g_flags;
std::string g_json;

Status evaluate() {
  HADAL_ASSIGN_OR_RETURN(const OpenedModel opened, open_for_windows(g_model, g_flags.windows.context));
  HADAL_ASSIGN_OR_RETURN(const auto windows, read_windows(g_flags, *opened.folder.tokenizer, opened.max_model_len));
  HADAL_ASSIGN_OR_RETURN(const std::string hash, model_hash(g_model.model));
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<ForwardModel> model, load_with_progress(g_model, opened));
  const int64_t num_bytes = count_scored_bytes(windows, *opened.folder.tokenizer);
  HADAL_ASSIGN_OR_RETURN(const PerplexityReport report, measure_perplexity(std::move(model), windows, num_bytes));
  fmt::print("{}", perplexity_text(report));
  Json json = perplexity_json(report);
  json["model"] = model_identity_json(g_model, opened, hash);
  return write_json_file(g_json, json);
}

int run_eval_perplexity() {
  const Status evaluated = evaluate();
  return evaluated ? kExitOk : report_bench_error(evaluated.error());
}

void add_eval_perplexity(CLI::App& eval) {
  CLI::App* command = eval.add_subcommand("perplexity", "How surprised the model is by a text");
  command->add_option("--data", g_flags.data, "Text file, or JSONL with \"text\" (or question and answer) a line")
      ->required();
  add_window_options(*command, g_flags);
  add_eval_model_options(*command, g_model);
  command->add_option("--json", g_json, "Write the results to this file");
  command->footer("Example:\n  hadal eval perplexity --model models/nano --data models/nano/heldout.jsonl");
}

}  // namespace

const Command kEvalPerplexityCommand = {add_eval_perplexity, "perplexity", run_eval_perplexity};

}  // namespace hadal
