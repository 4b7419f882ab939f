// hadal plan buckets: the shapes that vLLM on Gaudi would compile before it serves, and what that costs.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>

#include "bench/gaudi_buckets.h"
#include "bench/gaudi_buckets_text.h"
#include "cli/bench_common.h"
#include "cli/command.h"

namespace hadal {
namespace {

struct PlanBucketsOptions {
  bool two_nodes = false;
  int64_t max_model_len = 16384, max_num_seqs = 64, max_num_prefill_seqs = 1;  // start_vllm.sh
  BucketingInputs inputs{.max_num_batched_tokens = 32768,                      // set_head_node.sh
                         .max_num_seqs = 512,
                         .input_min = 768,
                         .input_max = 20480,
                         .output_max = 16896};
  std::string platform = "oam";
  std::string rule = "padding-ratio";
  int64_t num_blocks = 0;
  bool json = false;
  std::map<std::string, std::string> variables;  // VLLM_* given as flags
};
PlanBucketsOptions g_options;
CLI::Option* g_max_num_seqs = nullptr;
CLI::Option* g_max_num_batched_tokens = nullptr;

BucketSettings script_settings(const PlanBucketsOptions& o) {
  constexpr int64_t kOamDecodeStep = 8;
  constexpr int64_t kPcieDecodeStep = 2;
  if (!o.two_nodes) {
    BucketSettings settings = single_node_buckets(o.max_model_len, o.max_num_seqs, o.max_num_prefill_seqs,
                                                  o.platform == "pcie" ? kPcieDecodeStep : kOamDecodeStep);
    if (g_max_num_batched_tokens->count() > 0) settings.max_num_batched_tokens = o.inputs.max_num_batched_tokens;
    return settings;
  }
  BucketingInputs inputs = o.inputs;
  if (g_max_num_seqs->count() > 0) inputs.max_num_seqs = o.max_num_seqs;
  return set_bucketing(inputs);
}

// A flag wins over the variable of its name.
std::optional<std::string> read_variable(const std::string& name) {
  if (const auto flag = g_options.variables.find(name); flag != g_options.variables.end()) return flag->second;
  const char* value = std::getenv(name.c_str());
  return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
}

std::string duration_text(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  return seconds < 5400 ? fmt::format("{:.0f} min", seconds / 60) : fmt::format("{:.1f} h", seconds / 3600);
}

void print_plan(const BucketSettings& settings, const BucketPlan& plan) {
  if (plan.prompt_over_budget) {
    fmt::print("No prompt bucket fits max_num_batched_tokens={}, so the peer keeps all of them.\n",
               settings.max_num_batched_tokens);
  }
  fmt::print("{}", bucket_lines(settings, plan));
  const WarmupEstimate warmup = estimate_warmup(plan);
  fmt::print(
      "\n{} + {} = {} shapes ({} rule): warm-up there takes about {} at the first start, {} from a recipe cache.\n",
      plan.prompt.size(), plan.decode.size(), plan.prompt.size() + plan.decode.size(), g_options.rule,
      duration_text(warmup.first_start_s), duration_text(warmup.cached_start_s));
  fmt::print("Estimated by the number of shapes: {}.\n", kWarmupSource);
  fmt::print("hadal on CPUs needs no buckets and no warm-up: its kernels take any shape, and nothing is padded.\n");
}

int run_plan_buckets() {
  BucketSettings settings = script_settings(g_options);
  settings.rule = g_options.rule == "linear" ? BucketRule::kLinear : BucketRule::kPaddingRatio;
  settings.num_blocks = g_options.num_blocks;
  if (const Status read = apply_bucket_environment(read_variable, &settings); !read) {
    return report_bench_error(read.error());
  }
  const auto plan = plan_buckets(settings);
  if (!plan) return report_bench_error(plan.error());
  if (g_options.json) {
    fmt::print("{}\n", bucket_plan_to_json(settings, *plan).dump());
  } else {
    print_plan(settings, *plan);
  }
  return kExitOk;
}

// VLLM_PROMPT_BS_BUCKET_MIN as --prompt-bs-bucket-min, and under its own name.
void add_variable_flags(CLI::App& command) {
  const auto add = [&](const std::string& variable, const std::string& short_name) {
    std::string own_name = variable;  // as main() spells flags: with dashes
    std::replace(own_name.begin(), own_name.end(), '_', '-');
    command
        .add_option_function<std::string>(
            "--" + short_name + ",--" + own_name,
            [variable](const std::string& value) { g_options.variables[variable] = value; }, "$" + variable)
        ->group("The fork's variables, as flags");
  };
  for (const char* what : {"PROMPT_BS", "PROMPT_SEQ", "DECODE_BS", "DECODE_BLOCK"}) {
    for (const char* part : {"MIN", "STEP", "MAX", "LIMIT"}) {
      const std::string rest = fmt::format("{}_BUCKET_{}", what, part);
      std::string flag = rest;
      for (char& c : flag) c = c == '_' ? '-' : static_cast<char>(c - 'A' + 'a');
      add("VLLM_" + rest, flag);
    }
  }
  add("BUCKET_PADDING_RATIO", "bucket-padding-ratio");
}

void add_plan_buckets(CLI::App& plan) {
  CLI::App* command = plan.add_subcommand("buckets", "The shapes that vLLM on Gaudi compiles before it serves");
  PlanBucketsOptions& o = g_options;
  const auto count = [&](const char* name, int64_t& value, const char* help) {
    return command->add_option(name, value, help)
        ->check(CLI::Range(int64_t{1}, kMostBucketTokens))
        ->capture_default_str();
  };
  command->add_flag("--two-nodes", o.two_nodes, "Begin with set_head_node.sh's settings instead of start_vllm.sh's");
  count("-l,--max-model-len", o.max_model_len, "One node: tokens of a sequence, and of a step");
  g_max_num_seqs = count("-b,--max-num-seqs", o.max_num_seqs, "Sequences in a step; 512 with --two-nodes");
  count("-m,--max-num-prefill-seqs", o.max_num_prefill_seqs, "One node: prompts in a step");
  g_max_num_batched_tokens = count("--max-num-batched-tokens", o.inputs.max_num_batched_tokens,
                                   "Tokens in a step; on one node --max-model-len");
  count("--input-min", o.inputs.input_min, "Two nodes: tokens of the shortest prompt");
  count("--input-max", o.inputs.input_max, "Two nodes: of the longest");
  count("--output-max", o.inputs.output_max, "Two nodes: of the longest answer");
  count("--block-size", o.inputs.block_size, "Two nodes: tokens of a cache block");
  command->add_option("--platform", o.platform, "One node: oam (HL-225) or pcie (HL-288)")
      ->check(CLI::IsMember({"oam", "pcie"}))
      ->capture_default_str();
  command
      ->add_option("--rule", o.rule,
                   "padding-ratio: what the scripts' *_LIMIT variables ask for; linear: the "
                   "extension as published, which ignores them")
      ->check(CLI::IsMember({"padding-ratio", "linear"}))
      ->capture_default_str();
  command->add_option("--num-blocks", o.num_blocks, "Blocks that the device's cache has; 0: no fewer than asked for")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->capture_default_str();
  add_variable_flags(*command);
  command->add_flag("--json", o.json, "One JSON object on stdout");
  command->footer(
      "The environment's VLLM_{PROMPT,DECODE}_{BS,SEQ|BLOCK}_BUCKET_{MIN,STEP,MAX,LIMIT} and BUCKET_PADDING_RATIO are "
      "read, flags win.\nExamples:\n  hadal plan buckets -l 16384 -b 128\n"
      "  hadal plan buckets --two-nodes --rule linear --json");
}

}  // namespace

const Command kPlanBucketsCommand = {add_plan_buckets, "buckets", run_plan_buckets};

}  // namespace hadal
