// hadal convert: a folder for Gaudi from an official FP8 checkpoint, and back.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/progress.h"
#include "base/topology.h"
#include "cli/command.h"
#include "cli/memory_plan.h"
#include "cli/serving_folder.h"
#include "quant/convert.h"

namespace hadal {
namespace {

struct ConvertFlags {
  std::string input, output;
  std::string method = "exact";
  std::string target = "gaudi2";
  std::string input_scales;
  bool bug_compatible = false;
  bool reverse = false;
  bool verify = false;
  bool dry_run = false;
  bool json = false;
  int threads = 0;
};
ConvertFlags g_flags;

Expected<ConvertOptions> options_from(const ConvertFlags& flags) {
  if (const std::string advice = download_advice(flags.input, "-i"); !advice.empty()) {
    return make_error(ErrorCode::kNotFound, "{}: no such folder{}", flags.input, advice);
  }
  ConvertOptions options;
  options.input = flags.input;
  options.output = flags.output;
  HADAL_ASSIGN_OR_RETURN(options.method, parse_convert_method(flags.method));
  HADAL_ASSIGN_OR_RETURN(options.target, parse_convert_target(flags.target));
  options.input_scales = flags.input_scales;
  options.bug_compatible = flags.bug_compatible;
  options.reverse = flags.reverse;
  options.verify = flags.verify;
  options.dry_run = flags.dry_run;
  options.num_threads = flags.threads != 0 ? flags.threads : std::clamp(default_num_threads(), 1, 32);
  return options;
}

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

// Root mean square of the error beside that of the weights.
double relative_noise(const CodeMapStats& stats) {
  return stats.signal > 0 ? std::sqrt(stats.noise / stats.signal) : 0;
}

// What the codes lost, in words; channel has other figures than the maps.
std::string describe_loss(const ConvertFlags& flags, const CodeMapStats& stats) {
  std::string text = fmt::format("{} of {} codes inexact ({:.4g} %)", stats.num_inexact, stats.num_codes,
                                 100 * share(stats.num_inexact, stats.num_codes));
  if (flags.method == "channel") {
    text += fmt::format(", RMS error {:.3g} % of the weights'", 100 * relative_noise(stats));
  } else if (stats.num_inexact > 0) {
    text += fmt::format(", by at most {:.4g} %{}", 100 * stats.max_relative_error,
                        flags.method == "exact" ? " and 1/229376 of the full scale" : "");
  }
  return text;
}

void print_summary(const ConvertFlags& flags, const ConvertSummary& summary, double seconds) {
  fmt::print("{:<12}{} weights, {} other tensors as they are{}, {} in {} shard(s)\n",
             flags.dry_run ? "to convert" : "converted", summary.num_converted, summary.num_copied,
             summary.num_dropped > 0 ? fmt::format(", {} dropped", summary.num_dropped) : "",
             format_bytes(summary.output_bytes), summary.num_shards);
  if (!summary.range_evidence.empty()) fmt::print("{:<12}{}\n", "input", summary.range_evidence);
  if (summary.scales.num_zero > 0) {
    fmt::print("{:<12}{} of {} scales are 0: their blocks stand for zeros\n", "scales", summary.scales.num_zero,
               summary.scales.num_scales);
  }
  if (flags.dry_run) {
    fmt::print("nothing was written (--dry-run)\n");
    return;
  }
  if (flags.reverse) {
    fmt::print("{:<12}{} codes got their bit back\n", "restored", summary.codes.num_inexact);
  } else if (summary.num_converted > 0) {
    fmt::print("{:<12}{}\n", "codes", describe_loss(flags, summary.codes));
    for (size_t i = 0; i < std::min<size_t>(summary.worst.size(), 3); ++i) {
      const TensorReport& tensor = summary.worst[i];
      fmt::print("  {:<60} {}\n", tensor.name, describe_loss(flags, tensor.stats));
    }
  }
  if (summary.codes.num_nan > 0) fmt::print("{:<12}{} codes are NaN, kept as they are\n", "NaN", summary.codes.num_nan);
  if (summary.codes.num_zero_rows > 0) {
    fmt::print("{:<12}{} rows are all zero: scale 1\n", "rows", summary.codes.num_zero_rows);
  }
  if (summary.sidecar_bytes > 0) {
    fmt::print("{:<12}{} in hadal_sidecar/, for --reverse\n", "sidecars", format_bytes(summary.sidecar_bytes));
  }
  if (summary.num_resumed_shards > 0) {
    fmt::print("{:<12}{} shard(s) were done by an earlier run\n", "resumed", summary.num_resumed_shards);
  }
  if (flags.verify) fmt::print("{:<12}{} tensors, every byte\n", "verified", summary.num_verified_tensors);
  fmt::print("{:<12}{} in {:.1f} s\n", "written", flags.output, seconds);
}

Json stats_json(const CodeMapStats& stats) {
  return {{"codes", stats.num_codes},
          {"inexact", stats.num_inexact},
          {"nan", stats.num_nan},
          {"max_relative_error", stats.max_relative_error},
          {"relative_rms_error", relative_noise(stats)},
          {"zero_rows", stats.num_zero_rows}};
}

void print_json(const ConvertFlags& flags, const ConvertSummary& summary, double seconds) {
  Json worst = Json::array();
  for (const TensorReport& tensor : summary.worst) {
    Json entry = stats_json(tensor.stats);
    entry["name"] = tensor.name;
    worst.push_back(std::move(entry));
  }
  const Json out = {{"input", flags.input},
                    {"output", flags.output},
                    {"method", flags.method},
                    {"target", flags.target},
                    {"reverse", flags.reverse},
                    {"dry_run", flags.dry_run},
                    {"shards", summary.num_shards},
                    {"resumed_shards", summary.num_resumed_shards},
                    {"converted_weights", summary.num_converted},
                    {"copied_tensors", summary.num_copied},
                    {"dropped_tensors", summary.num_dropped},
                    {"output_bytes", summary.output_bytes},
                    {"sidecar_bytes", summary.sidecar_bytes},
                    {"nothing_to_convert", summary.nothing_to_convert},
                    {"input_range", summary.found_range ? Json(range_map_name(*summary.found_range)) : Json()},
                    {"input_evidence", summary.range_evidence},
                    {"zero_scales", summary.scales.num_zero},
                    {"codes", stats_json(summary.codes)},
                    {"worst", std::move(worst)},
                    {"skipped_files", summary.skipped_files},
                    {"verified_tensors", summary.num_verified_tensors},
                    {"seconds", seconds}};
  fmt::print("{}\n", dump_json(out));
}

int report(const Error& error) {
  std::fprintf(stderr, "hadal: %s\n", error.message.c_str());
  return error.code == ErrorCode::kInvalidArgument ? kExitBadUsage : kExitFailed;
}

int run_convert() {
  // A file size limit is then an error of write(), and the message can say how to go on.
  std::signal(SIGXFSZ, SIG_IGN);
  const auto options = options_from(g_flags);
  if (!options) return report(options.error());
  std::optional<ProgressBar> bar;
  std::string shown;
  ConvertEvents events;
  events.on_note = [](std::string_view text) {
    std::fprintf(stderr, "hadal: %.*s\n", static_cast<int>(text.size()), text.data());
  };
  events.on_progress = [&](std::string_view phase, uint64_t done, uint64_t total) {
    if (!bar || shown != phase) bar.emplace(shown = phase, "B");
    bar->update(done, total);
  };
  const auto started = std::chrono::steady_clock::now();
  const auto summary = convert_checkpoint(*options, events);
  bar.reset();
  if (!summary) return report(summary.error());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  if (g_flags.json) {
    print_json(g_flags, *summary, seconds);
  } else {
    print_summary(g_flags, *summary, seconds);
  }
  return kExitOk;
}

void add_convert_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "convert", "Convert an official FP8 checkpoint for Gaudi, or back; `serve` does not need it");
  command->add_option("-i,--input-path,--input", g_flags.input, "Official folder (with --reverse: the converted one)")
      ->required();
  command->add_option("-o,--output-path,--output", g_flags.output, "New folder; the same command goes on with a part")
      ->required();
  command
      ->add_option("--method", g_flags.method,
                   "exact: half the values, twice the scales; seed: as convert_for_g2.py; channel: one scale a row")
      ->capture_default_str();
  command->add_option("--target", g_flags.target, "gaudi2 (up to 240), gaudi3 (up to 448; channel only)")
      ->capture_default_str();
  command->add_option("--input-scales", g_flags.input_scales,
                      "channel: JSON of static activation scales, {module: scale}");
  command->add_flag("--bug-compatible", g_flags.bug_compatible,
                    "seed: also what convert_for_g2.py damages (BF16 \"proj\" weights such as eh_proj)");
  command->add_flag("--reverse", g_flags.reverse, "Restore the official folder from one of --method exact");
  command->add_flag("--verify", g_flags.verify, "Read both folders again and compare every tensor");
  command->add_flag("--dry-run", g_flags.dry_run, "Check everything, write nothing");
  command->add_option("--threads", g_flags.threads, "0: all cores, up to 32")
      ->check(CLI::Range(0, kMaxConvertThreads))
      ->capture_default_str();
  command->add_flag("--json", g_flags.json, "One JSON object on stdout");
  command->footer(
      "Killed or out of disk space: run the same command again, finished shards are kept.\n"
      "Exit codes: 0 done, 1 failed, 2 wrong command line or folder for it.\n"
      "Examples:\n"
      "  hadal convert -i /data/DeepSeek-R1 -o /data/DeepSeek-R1-G2 --verify\n"
      "  hadal convert -i /data/DeepSeek-R1 -o /data/DeepSeek-R1-G2 --method seed\n"
      "  hadal convert -i /data/DeepSeek-R1-G2 -o /data/DeepSeek-R1 --reverse");
}

}  // namespace

const Command kConvertCommand = {add_convert_command, "convert", run_convert};

}  // namespace hadal
