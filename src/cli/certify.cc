// hadal certify: word problems, divergence from the reference and perplexity of a model under one set of numerics
// flags, in one file that `hadal serve` finds.
#include <fmt/chrono.h>
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <filesystem>
#include <string>
#include <utility>

#include "bench/host.h"
#include "cli/bench_common.h"
#include "cli/command.h"
#include "cli/eval_divergence.h"
#include "cli/eval_model.h"
#include "cli/eval_variant.h"
#include "cli/version.h"
#include "eval/certificate.h"
#include "eval/content_hash.h"
#include "eval/numerics_hash.h"

namespace hadal {
namespace {

ServeOptions g_model;
Gsm8kOptions g_gsm8k;
WindowFlags g_windows = {.max_tokens = 16'384};
std::string g_data, g_train, g_output, g_reference = "reference";

// Where the certificate goes; checked before hours of measuring.
Expected<std::filesystem::path> output_path(const std::string& numerics_key) {
  if (!g_output.empty()) return g_output;
  const std::filesystem::path dir = g_model.model;
  if (::access(dir.c_str(), W_OK) != 0) {
    return make_error(ErrorCode::kIo, "{}: cannot be written to; name a file with --output", dir.string());
  }
  return dir / certificate_name(numerics_key);
}

Expected<Json> certificate_json(const OpenedModel& opened, const Gsm8kReport& gsm8k,
                                const DivergenceReport& divergence) {
  const char* kv_cache = opened.numerics.kv_dtype == DType::kF8E4M3 ? "fp8_e4m3" : "as activations";
  HADAL_ASSIGN_OR_RETURN(const std::string hash, model_hash(g_model.model));
  return Json{{"hadal_certificate", kCertificateSchema},
              {"model", {{"path", g_model.model}, {"hash", hash}}},
              {"numerics",
               {{"key", opened.numerics.key},
                {"hash", numerics_hash(opened.numerics.plan)},
                {"summary", opened.numerics.summary},
                {"kv_cache", kv_cache},
                {"reference", g_reference}}},
              {"made",
               {{"hadal", kVersion},
                {"date", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))},
                {"kernels", opened.numerics.kernels->name},
                {"cpu", host_facts().cpu_model}}},
              {"gsm8k", gsm8k_json(gsm8k)},
              {"kl", divergence_json(divergence)}};
}

Status certify() {
  g_gsm8k.data = g_data;
  g_gsm8k.train = g_train;
  HADAL_ASSIGN_OR_RETURN(const OpenedModel opened, open_for_windows(g_model, g_windows.windows.context));
  HADAL_ASSIGN_OR_RETURN(const std::filesystem::path path, output_path(opened.numerics.key));
  HADAL_ASSIGN_OR_RETURN(const Gsm8kTask task, prepare_gsm8k(g_gsm8k));
  HADAL_ASSIGN_OR_RETURN(const Gsm8kReport gsm8k, ask_problems(g_model, task));
  fmt::print("{}", gsm8k_text(gsm8k));
  HADAL_ASSIGN_OR_RETURN(auto windows,
                         comparison_windows(g_windows, gsm8k, task, *opened.folder.tokenizer, opened.max_model_len));
  HADAL_ASSIGN_OR_RETURN(const DivergenceReport divergence,
                         run_divergence(g_model, opened, g_reference, std::move(windows)));
  fmt::print("{}", divergence_text(divergence));
  HADAL_ASSIGN_OR_RETURN(const Json certificate, certificate_json(opened, gsm8k, divergence));
  HADAL_RETURN_IF_ERROR(write_json_file(path.string(), certificate));
  fmt::print("certificate {}\n", path.string());
  return {};
}

int run_certify() {
  const Status certified = certify();
  return certified ? kExitOk : report_bench_error(certified.error());
}

void add_certify_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("certify", "Measure a model's accuracy and keep it beside the weights");
  command->add_option("--data", g_data, "Word problems in GSM8K's JSONL")->required();
  command->add_option("--train", g_train, "The same, to draw five examples from for each problem");
  command->add_option("--text", g_windows.data,
                      "Text or JSONL to compare with the reference on [the answers themselves]");
  command->add_flag("--chat", g_gsm8k.chat, "Ask the problems in the model's chat form");
  command->add_option("--limit", g_gsm8k.limit, "Only the first so many problems; 0: all")->capture_default_str();
  command->add_option("--max-gen-toks", g_gsm8k.answers.max_gen_toks, "Tokens an answer may have")
      ->capture_default_str();
  command->add_option("--concurrency", g_gsm8k.num_concurrent, "Problems answered at once")->capture_default_str();
  command->add_option("--reference-numerics", g_reference, "The profile to compare with")->capture_default_str();
  add_window_options(*command, g_windows);
  add_eval_model_options(*command, g_model);
  command->add_option("-o,--output", g_output, "The certificate [in the model's folder, where serve finds it]");
  command->footer("Example:\n  hadal certify --model models/nano --numerics gaudi2 --data models/nano/heldout.jsonl");
}

}  // namespace

const Command kCertifyCommand = {add_certify_command, "certify", run_certify};

}  // namespace hadal
