// hadal eval kl: how far a numerics profile is from the reference, in predictions and layer by layer.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <string>

#include "cli/bench_common.h"
#include "cli/command.h"
#include "cli/eval_divergence.h"
#include "cli/eval_model.h"
#include "cli/eval_windows.h"
#include "eval/content_hash.h"

namespace hadal {
namespace {

ServeOptions g_model;
WindowFlags g_flags = {.max_tokens = 16'384};
std::string g_reference = "reference", g_json;

Status evaluate() {
  HADAL_ASSIGN_OR_RETURN(const OpenedModel opened, open_for_windows(g_model, g_flags.windows.context));
  HADAL_ASSIGN_OR_RETURN(auto windows, read_windows(g_flags, *opened.folder.tokenizer, opened.max_model_len));
  HADAL_ASSIGN_OR_RETURN(const std::string hash, model_hash(g_model.model));
  HADAL_ASSIGN_OR_RETURN(const DivergenceReport report,
                         run_divergence(g_model, opened, g_reference, std::move(windows)));
  fmt::print("{}", divergence_text(report));
  Json json = divergence_json(report);
  json["model"] = model_identity_json(g_model, opened, hash);
  json["reference_numerics"] = g_reference;
  return write_json_file(g_json, json);
}

int run_eval_kl() {
  const Status evaluated = evaluate();
  return evaluated ? kExitOk : report_bench_error(evaluated.error());
}

void add_eval_kl(CLI::App& eval) {
  CLI::App* command = eval.add_subcommand("kl", "How far a numerics profile is from the reference");
  command->add_option("--data", g_flags.data, "Text file, or JSONL with \"text\" (or question and answer) a line")
      ->required();
  command->add_option("--reference-numerics", g_reference, "The profile to compare with")->capture_default_str();
  add_window_options(*command, g_flags);
  add_eval_model_options(*command, g_model);
  command->add_option("--json", g_json, "Write the results to this file");
  command->footer("Example:\n  hadal eval kl --model models/nano --data models/nano/heldout.jsonl --numerics gaudi2");
}

}  // namespace

const Command kEvalKlCommand = {add_eval_kl, "kl", run_eval_kl};

}  // namespace hadal
