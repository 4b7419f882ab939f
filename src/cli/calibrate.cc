// hadal calibrate: the ranges that FP8 scales are made from, measured on real text.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "cli/bench_common.h"
#include "cli/calibrate_files.h"
#include "cli/calibrate_inspect.h"
#include "cli/calibrate_prompts.h"
#include "cli/calibrate_report.h"
#include "cli/calibrate_run.h"
#include "cli/command.h"
#include "cli/config_registry.h"
#include "cli/config_sources.h"
#include "cli/launch_environment.h"
#include "cli/open_model.h"
#include "cli/rank_serving.h"
#include "eval/content_hash.h"
#include "model/range_observer.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

struct CalibrateOptions {
  ServeOptions model;
  std::string data;
  PromptSelection prompts;
  int64_t osl = 32;
  int64_t batch = 8;
  std::vector<int64_t> world_sizes = {8};
  std::string output;  // empty: as the configuration says, or kDefaultOutput
  std::string config;  // INC's, of mode MEASURE; may be empty
  double checkpoint_interval_s = 30;
  bool resume = false;
};

CalibrateOptions g_options;
std::vector<std::string> g_inspected;
InspectMeasurementsOptions g_inspect;
uint64_t g_seed = 0;
CLI::Option* g_seed_option = nullptr;
std::unique_ptr<OptionRegistry> g_registry;  // of the options about ranks

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The flags of the model as the peer calibrates it: BF16 activations and cache, whatever the weights.
ServeOptions model_options(const CalibrateOptions& o) {
  ServeOptions model = o.model;
  if (model.numerics.empty()) model.numerics = "bf16";
  if (model.numerics.starts_with("gaudi")) model.gaudi_mode = "runtime-dequant";
  const CalibrationSizes sizes = {.prompt_len = o.prompts.prompt_len, .osl = o.osl, .batch = o.batch};
  model.max_model_len = o.prompts.prompt_len + o.osl;
  model.max_num_seqs = o.batch;
  model.max_num_batched_tokens = std::max(o.batch, std::min<int64_t>(o.prompts.prompt_len, 1024));
  model.block_size = CalibrationSizes::kBlockSize;
  model.num_blocks = o.batch * sizes.blocks_per_prompt();
  model.calibrated_world_sizes = o.world_sizes;
  return model;
}

Status check_options(const CalibrateOptions& o) {
  if (o.data.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "--data is missing: give a .jsonl or .txt file of documents");
  }
  const std::string& numerics = o.model.numerics;
  if (!numerics.empty() && numerics != "bf16" && !numerics.starts_with("gaudi")) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--numerics {}: ranges are those of unquantised activations; give bf16, gaudi2 or gaudi3 (their "
                      "weights, dequantised)",
                      numerics);
  }
  return {};
}

class Calibration {
 public:
  Calibration(const CalibrateOptions& options, CalibrationOutput output)
      : o_(options), filter_(std::move(output.filter)), files_(std::move(output.base)) {}

  Status run() {
    const Clock::time_point started = Clock::now();
    HADAL_ASSIGN_OR_RETURN(const ServeOptions model, place_rank_zero(model_options(o_)));
    HADAL_ASSIGN_OR_RETURN(const OpenedModel opened, open_model(model));
    for (const std::string& warning : opened.numerics.warnings) fmt::print(stderr, "hadal: warning: {}\n", warning);
    HADAL_ASSIGN_OR_RETURN(RangeObserver observer, RangeObserver::create(opened.config, o_.world_sizes));
    HADAL_RETURN_IF_ERROR(choose_prompts(*opened.folder.tokenizer));
    HADAL_ASSIGN_OR_RETURN(const Json identity, identity_of(opened));
    HADAL_RETURN_IF_ERROR(prepare_files(identity, observer));
    HADAL_ASSIGN_OR_RETURN(CalibrationRunner runner, load(model, opened, observer));
    HADAL_RETURN_IF_ERROR(run_prompts(runner, observer));
    HADAL_ASSIGN_OR_RETURN(const RangeSet ranges, ranges_now(runner, observer));
    HADAL_RETURN_IF_ERROR(files_.write_checkpoint(ranges));
    HADAL_RETURN_IF_ERROR(files_.write_results(ranges, o_.world_sizes, filter_));
    fmt::print("e2e took {:.1f} seconds\n", seconds_since(started));
    report(ranges);
    return {};
  }

 private:
  Status choose_prompts(const Tokenizer& tokenizer) {
    HADAL_ASSIGN_OR_RETURN(prompts_, select_prompts(o_.data, tokenizer, o_.prompts));
    const auto found = static_cast<int64_t>(prompts_.ids.size());
    if (found < o_.prompts.num_prompts) {
      fmt::print(stderr, "hadal: {} of {} documents have {} tokens or more; --nprompts asked for {}\n", found,
                 prompts_.num_documents, o_.prompts.prompt_len, o_.prompts.num_prompts);
    }
    fmt::print("Got {} prompts, length of first prompt: {}.\n", found, prompts_.ids.front().size());
    std::fflush(stdout);
    return {};
  }

  // Everything that the ranges depend on.
  Expected<Json> identity_of(const OpenedModel& opened) const {
    HADAL_ASSIGN_OR_RETURN(const std::string hash, model_hash(o_.model.model));
    std::string ids;
    for (const std::vector<int32_t>& prompt : prompts_.ids) {
      ids.append(reinterpret_cast<const char*>(prompt.data()), prompt.size() * sizeof(int32_t));
    }
    return Json{{"format", "hadal calibration"},
                {"version", 1},
                {"model_hash", hash},
                {"numerics", opened.numerics.key},
                {"isa", opened.numerics.kernels->name},
                {"expert_parallel", o_.model.ranks.enable_expert_parallel},
                {"prompts_hash", content_hash(ids)},
                {"num_prompts", prompts_.ids.size()},
                {"prompt_len", o_.prompts.prompt_len},
                {"osl", o_.osl},
                {"world_sizes", o_.world_sizes}};
  }

  Status prepare_files(const Json& identity, RangeObserver& observer) {
    numerics_ = identity["numerics"];
    HADAL_ASSIGN_OR_RETURN(std::optional<RangeSet> earlier, files_.prepare(identity, o_.resume));
    if (!files_.backup_dir().empty()) {
      fmt::print("Files of an earlier run are in {} now.\n", files_.backup_dir().string());
    }
    if (!earlier) return {};
    num_finished_ = earlier->provenance.num_prompts;
    if (num_finished_ > prompts_.ids.size()) {
      return make_error(ErrorCode::kCorrupt, "{}: the checkpoint has {} prompts of {}",
                        files_.base().parent_path().string(), num_finished_, prompts_.ids.size());
    }
    fmt::print("Going on after {} of {} prompts.\n", num_finished_, prompts_.ids.size());
    return observer.resume(std::move(*earlier));
  }

  Expected<CalibrationRunner> load(const ServeOptions& options, const OpenedModel& opened, RangeObserver& observer) {
    HADAL_ASSIGN_OR_RETURN(RankServing ranks, start_ranks(options, opened));
    ProgressBar bar("loading", "B");
    const auto progress = [&](uint64_t done_bytes, uint64_t total_bytes) { bar.update(done_bytes, total_bytes); };
    HADAL_ASSIGN_OR_RETURN(auto model, load_opened_model(options, opened, progress, {}, &observer));
    HADAL_ASSIGN_OR_RETURN(model, ranks.join(std::move(model), [](const std::string&) {}));
    for (const std::string& line : ranks.table(opened.num_threads)) fmt::print("{}\n", line);
    return CalibrationRunner::create(std::move(model), {.prompt_len = o_.prompts.prompt_len,
                                                        .osl = o_.osl,
                                                        .batch = o_.batch,
                                                        .max_tokens = options.max_num_batched_tokens,
                                                        .num_valid_tokens = opened.folder.tokenizer->vocab_size()});
  }

  static Error with_advice(Error error) {
    if (error.code == ErrorCode::kUnavailable) error.message += ". --resume goes on after the last checkpoint";
    return error;
  }

  Status run_prompts(CalibrationRunner& runner, const RangeObserver& observer) {
    ProgressBar bar("calibrating", "tok");
    const auto per_prompt = static_cast<uint64_t>(o_.prompts.prompt_len + o_.osl - 1);
    const uint64_t total = (prompts_.ids.size() - num_finished_) * per_prompt;
    uint64_t done = 0;
    Clock::time_point last_checkpoint = Clock::now();
    while (num_finished_ < prompts_.ids.size()) {
      const size_t count = std::min(prompts_.ids.size() - num_finished_, static_cast<size_t>(o_.batch));
      const Status ran = runner.run(std::span(prompts_.ids).subspan(num_finished_, count), [&](int64_t num_tokens) {
        done += static_cast<uint64_t>(num_tokens);
        bar.update(done, total);
      });
      if (!ran) return tl::unexpected<Error>(with_advice(ran.error()));
      num_finished_ += count;
      if (seconds_since(last_checkpoint) < o_.checkpoint_interval_s) continue;
      HADAL_ASSIGN_OR_RETURN(const RangeSet ranges, ranges_now(runner, observer));
      HADAL_RETURN_IF_ERROR(files_.write_checkpoint(ranges));
      last_checkpoint = Clock::now();
    }
    return {};
  }

  // Of all ranks.
  Expected<RangeSet> ranges_now(CalibrationRunner& runner, const RangeObserver& observer) const {
    if (const Status gathered = runner.gather_ranges(); !gathered)
      return tl::unexpected<Error>(with_advice(gathered.error()));
    RangeSet ranges = observer.ranges();
    ranges.provenance = {.model = o_.model.model,
                         .data = o_.data,
                         .numerics = numerics_,
                         .method = "hadal calibrate",
                         .num_prompts = num_finished_,
                         .num_tokens = num_finished_ * static_cast<uint64_t>(o_.prompts.prompt_len + o_.osl)};
    return ranges;
  }

  void report(const RangeSet& ranges) const {
    fmt::print("{}", coverage_text(ranges));
    for (const int64_t world_size : o_.world_sizes) {
      fmt::print("{}_hooks_maxabs_<rank>_{}.json, .npz, _mod_list.json: INC, {} ranks\n", files_.base().string(),
                 world_size, world_size);
    }
    fmt::print("{}: for any tensor- and expert-parallel degree\n", files_.ranges_path().string());
  }

  const CalibrateOptions& o_;
  const ModuleFilter filter_;
  CalibrationFiles files_;
  SelectedPrompts prompts_;
  std::string numerics_;
  size_t num_finished_ = 0;  // prompts
};

Status calibrate(const CalibrateOptions& options) {
  HADAL_RETURN_IF_ERROR(check_options(options));
  HADAL_RETURN_IF_ERROR(check_serve_options(options.model));
  HADAL_ASSIGN_OR_RETURN(CalibrationOutput output, choose_calibration_output(options.output, options.config));
  return Calibration(options, std::move(output)).run();
}

// Nothing: this process has rank 0. Else the exit code of the other rank, or node, that it was.
Expected<std::optional<int>> run_other_rank(CalibrateOptions& options) {
  RankOptions& ranks = options.model.ranks;
  HADAL_RETURN_IF_ERROR(adopt_launcher(*g_registry, current_environment(), ranks));
  HADAL_RETURN_IF_ERROR(check_rank_options(ranks));
  HADAL_ASSIGN_OR_RETURN(const auto contract, other_ranks_contract(ranks));
  if (!contract) return std::optional<int>();
  HADAL_ASSIGN_OR_RETURN(const int code, run_other_ranks(options.model, *contract));
  return std::optional(code);
}

int run_calibrate() {
  if (!g_inspected.empty()) return inspect_measurements(g_inspected, g_inspect);
  if (g_seed_option->count() > 0) g_options.prompts.seed = g_seed;
  const auto other = run_other_rank(g_options);
  if (!other) return report_bench_error(other.error());
  if (*other) return **other;
  const Status calibrated = calibrate(g_options);
  return calibrated ? kExitOk : report_bench_error(calibrated.error());
}

void add_calibrate(CLI::App& program) {
  CLI::App* command = program.add_subcommand("calibrate", "Measure the ranges that FP8 scales for Gaudi are made from");
  CalibrateOptions& o = g_options;
  const auto count = [&](const char* name, int64_t& value, int64_t least, const char* help) {
    command->add_option(name, value, help)
        ->check(CLI::Range(least, int64_t{1} << 24).description(""))
        ->capture_default_str();
  };
  command->add_option("--model", o.model.model, "Hugging Face folder of the model");
  command->add_option("--data", o.data, "Documents: .jsonl (\"text\" of each line) or .txt (a document a line)");
  count("--nprompts", o.prompts.num_prompts, 1, "Prompts to run");
  count("--prompt-len", o.prompts.prompt_len, 1, "Tokens of each prompt; shorter documents are passed over");
  count("--osl", o.osl, 2, "Tokens to generate after each prompt, greedily");
  add_list_option(*command, "--wd", o.world_sizes, "World sizes to write INC's files for");
  command->add_option("-o,--output", o.output, "Folder for the results [./nc_workspace_measure_kvcache]");
  command->add_option("--config,--quant-config", o.config,
                      "INC's configuration of mode MEASURE: names the files (dump_stats_path) and leaves out modules");
  command->add_flag("--resume", o.resume, "Go on with an interrupted run in that folder");
  g_seed_option = command->add_option("--seed", g_seed, "Try the documents in an order drawn with it [as they lie]");
  count("--batch", o.batch, 1, "Prompts that decode together; results do not depend on it");
  command->add_option("--checkpoint-interval", o.checkpoint_interval_s, "Seconds between two checkpoints")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--numerics", o.model.numerics, "bf16, or gaudi2, gaudi3: their weights, dequantised [bf16]");
  command->add_option("--isa", o.model.isa, "Kernels to use")->capture_default_str();
  command->add_option("--threads", o.model.num_threads, "Compute threads; 0: one per usable core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->add_option("--inspect", g_inspected, "Measure nothing: report what these measurement files say");
  command->add_option("--device", g_inspect.device, "Whose FP8 the report is about: gaudi2 or gaudi3")
      ->check(CLI::IsMember({"gaudi2", "gaudi3"}))
      ->capture_default_str();
  command->add_flag("--json", g_inspect.json, "The report as JSON");
  g_registry = std::make_unique<OptionRegistry>(*command);
  add_rank_options(*g_registry, o.model.ranks, false);
  command->footer(
      "Examples:\n  hadal calibrate --model /data/DeepSeek-R1-0528 --data pile-10k.jsonl --wd 8,16 -o calibration/\n"
      "  hadal calibrate --model DIR --data FILE --tensor-parallel-size 16 --nnodes 2 --master-addr 10.0.0.1, and on\n"
      "    node 1 the same with --node-rank 1 --headless: a model that one machine cannot hold, the same files\n"
      "  hadal calibrate --inspect calibration/inc_measure_output_hooks_maxabs_0_16.json\n"
      "Older results in the folder are moved to backup_*, never deleted.");
}

}  // namespace

const Command kCalibrateCommand = {add_calibrate, "calibrate", run_calibrate};

}  // namespace hadal
