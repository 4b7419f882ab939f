// hadal eval table: what every numerics profile costs, in one table: docs/accuracy.md is made by it.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "cli/bench_common.h"
#include "cli/command.h"
#include "cli/eval_divergence.h"
#include "cli/eval_model.h"
#include "cli/eval_table_variants.h"
#include "cli/eval_variant.h"
#include "eval/accuracy_table.h"

namespace hadal {
namespace {

ServeOptions g_model;
Gsm8kOptions g_gsm8k;
WindowFlags g_windows = {.max_tokens = 16'384};
std::string g_data, g_variants = "eval/accuracy_variants.json", g_output, g_json, g_reference = "reference";

// The variables of a row, for as long as it is measured. Nothing else of the process runs meanwhile.
class ScopedEnvironment {
 public:
  explicit ScopedEnvironment(const TableVariant& variant) : variant_(variant) {
    for (const auto& [name, value] : variant.environment) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~ScopedEnvironment() {
    for (const auto& [name, value] : variant_.environment) ::unsetenv(name.c_str());
  }
  ScopedEnvironment(const ScopedEnvironment&) = delete;
  ScopedEnvironment& operator=(const ScopedEnvironment&) = delete;

 private:
  const TableVariant& variant_;
};

Expected<AccuracyRow> measure_row(const TableVariant& variant, const Gsm8kTask& task,
                                  const ReferenceRecording& recording) {
  const ScopedEnvironment environment(variant);
  AccuracyRow row = {.name = variant.name, .kv_cache = variant.kv_cache};
  HADAL_ASSIGN_OR_RETURN(const OpenedModel opened, open_for_windows(variant.options, g_windows.windows.context));
  row.numerics_key = opened.numerics.key;
  if (variant.problems) {
    HADAL_ASSIGN_OR_RETURN(row.gsm8k, ask_problems(variant.options, task));
  }
  if (row.numerics_key == g_reference) return row;
  HADAL_ASSIGN_OR_RETURN(row.divergence,
                         with_weight_errors(measure_divergence(recording, model_factory(variant.options, opened)),
                                            variant.options, opened));
  return row;
}

// What all rows are compared on: the answers of the model as it is, in BF16, and the reference's view of them.
Expected<ReferenceRecording> make_recording(const Gsm8kTask& task) {
  const ServeOptions plain = with_numerics(g_model, "bf16"), reference = with_numerics(g_model, g_reference);
  HADAL_ASSIGN_OR_RETURN(const OpenedModel opened, open_for_windows(reference, g_windows.windows.context));
  HADAL_ASSIGN_OR_RETURN(const Gsm8kReport answers, ask_problems(plain, task));
  HADAL_ASSIGN_OR_RETURN(auto windows,
                         comparison_windows(g_windows, answers, task, *opened.folder.tokenizer, opened.max_model_len));
  return record_reference(model_factory(reference, opened), divergence_shape(opened), std::move(windows),
                          recording_limit_bytes(opened));
}

bool lacks_measurements(const TableVariant& variant) {
  return variant.options.quantization == "inc" && variant.options.measurements.empty();
}

// The rows that can be measured. Opens each, so that a wrong flag is found before the first is measured.
Expected<std::vector<TableVariant>> usable_variants(std::vector<TableVariant> variants) {
  std::erase_if(variants, [](const TableVariant& variant) {
    if (!lacks_measurements(variant)) return false;
    fmt::print(stderr, "left out, needs --measurements: {}, KV cache {}\n", variant.name, variant.kv_cache);
    return true;
  });
  for (const TableVariant& variant : variants) {
    const ScopedEnvironment environment(variant);
    auto opened = open_for_windows(variant.options, g_windows.windows.context);
    if (!opened) return forward_error(std::move(opened), variant.name);
  }
  return variants;
}

Expected<std::vector<TableVariant>> read_variants() {
  constexpr uint64_t kMaxBytes = uint64_t{1} << 20;
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(g_variants, kMaxBytes));
  auto variants = parse_table_variants(text, std::filesystem::path(g_variants).parent_path(), g_model);
  if (!variants) return forward_error(std::move(variants), g_variants);
  return variants;
}

Status evaluate() {
  g_gsm8k.data = g_data;
  HADAL_ASSIGN_OR_RETURN(std::vector<TableVariant> listed, read_variants());
  HADAL_ASSIGN_OR_RETURN(const std::vector<TableVariant> variants, usable_variants(std::move(listed)));
  HADAL_ASSIGN_OR_RETURN(const Gsm8kTask task, prepare_gsm8k(g_gsm8k));
  HADAL_ASSIGN_OR_RETURN(const ReferenceRecording recording, make_recording(task));
  std::vector<AccuracyRow> rows;
  for (const TableVariant& variant : variants) {
    auto row = measure_row(variant, task, recording);
    if (!row) return forward_error(std::move(row), variant.name);
    fmt::print("{}", accuracy_line(*row));
    std::fflush(stdout);
    rows.push_back(*std::move(row));
  }
  const std::string table = accuracy_markdown(rows);
  if (g_output.empty()) fmt::print("\n{}", table);
  if (!g_output.empty()) HADAL_RETURN_IF_ERROR(write_file_atomically(g_output, table));
  return write_json_file(g_json, accuracy_json(rows));
}

int run_eval_table() {
  const Status evaluated = evaluate();
  return evaluated ? kExitOk : report_bench_error(evaluated.error());
}

void add_eval_table(CLI::App& eval) {
  CLI::App* command = eval.add_subcommand("table", "What every numerics profile costs, as a table");
  command->add_option("--data", g_data, "Word problems in GSM8K's JSONL")->required();
  command->add_option("--variants", g_variants, "The rows: sets of numerics flags")->capture_default_str();
  command->add_option("--text", g_windows.data, "What to compare with the reference on [the BF16 answers]");
  command->add_option("--reference-numerics", g_reference, "The profile to compare with")->capture_default_str();
  command->add_flag("--chat", g_gsm8k.chat, "Ask in the model's chat form");
  command->add_option("--limit", g_gsm8k.limit, "Only the first so many problems; 0: all")->capture_default_str();
  command->add_option("--max-gen-toks", g_gsm8k.answers.max_gen_toks, "Tokens an answer may have")
      ->capture_default_str();
  command->add_option("--concurrency", g_gsm8k.num_concurrent, "Problems answered at once")->capture_default_str();
  add_window_options(*command, g_windows);
  add_eval_model_options(*command, g_model);
  command->add_option("-o,--output", g_output, "Write the Markdown table to this file");
  command->add_option("--json", g_json, "Write the results to this file");
  command->footer(
      "Example:\n  hadal eval table --model models/nano --data models/nano/heldout.jsonl --measurements DIR -o "
      "table.md");
}

}  // namespace

const Command kEvalTableCommand = {add_eval_table, "table", run_eval_table};

}  // namespace hadal
