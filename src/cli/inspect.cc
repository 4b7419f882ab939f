// hadal inspect: would this folder be served? Reads headers, never weights.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/json.h"
#include "cli/command.h"
#include "cli/memory_plan.h"
#include "cli/serving_folder.h"
#include "kernels/kernels.h"
#include "model/inspect.h"
#include "model/memory_needs.h"

namespace hadal {
namespace {

struct InspectOptions {
  std::string model;
  std::string isa = "auto";
  bool json = false;
};
InspectOptions g_options;

struct Report {
  ModelInspection model;
  ServingFolder folder;
  std::vector<Error> problems;  // of the model, then of tokenizer, template and generation config
  int64_t kv_bytes_per_token = 0;
};

Report inspect_folder(const InspectOptions& options, const KernelTable& kernels) {
  Report report;
  report.model = inspect_model(options.model, kernels);
  report.problems = report.model.problems;
  report.folder =
      open_serving_text_collecting(options.model, "", report.model.hf, report.model.config, report.problems);
  if (report.model.config) report.kv_bytes_per_token = kv_bytes_per_token(*report.model.config, kernels.act_dtype);
  return report;
}

std::vector<std::string> names_of_keys(const HfConfig& hf, ConfigKey::Status status) {
  std::vector<std::string> names;
  for (const ConfigKey& key : hf.keys) {
    if (key.status == status) names.push_back(key.name);
  }
  return names;
}

void print_config(const ModelConfig& config, const HfConfig& hf) {
  fmt::print("model       {} {}: {} layers ({} dense first), hidden {}, {} heads, q_lora {}, kv_lora {}\n",
             fmt::join(hf.architectures, ","), config.model_type, config.num_hidden_layers,
             config.first_k_dense_replace, config.hidden_size, config.num_attention_heads, config.q_lora_rank,
             config.kv_lora_rank);
  fmt::print("experts     {} routed, top {}, {} of {} groups, {} shared; {} MTP layer(s)\n",
             config.router.n_routed_experts, config.router.num_experts_per_tok, config.router.topk_group,
             config.router.n_group, config.n_shared_experts, config.num_nextn_predict_layers);
  fmt::print("context     {} positions, rope theta {}{}\n", config.max_position_embeddings, config.rope_theta,
             config.yarn ? fmt::format(", YaRN factor {} over {}", config.yarn->factor,
                                       config.yarn->original_max_position_embeddings)
                         : "");
  fmt::print("weights     {}\n", config.fp8_weights ? "FP8 E4M3, 128x128 block scales" : "BF16");
  const auto print_list = [](const char* label, const std::vector<std::string>& names) {
    if (!names.empty()) fmt::print("{:<11} {}\n", label, fmt::join(names, ", "));
  };
  print_list("defaulted", config.defaulted);
  print_list("ignored", names_of_keys(hf, ConfigKey::Status::kIgnored));
  print_list("unknown", names_of_keys(hf, ConfigKey::Status::kUnknown));
}

void print_report(const InspectOptions& options, const Report& report) {
  if (report.model.config) print_config(*report.model.config, report.model.hf);
  if (const auto& tokenizer = report.folder.tokenizer) {
    fmt::print("tokenizer   {} tokens, BOS \"{}\", EOS \"{}\"\n", tokenizer->vocab_size(), tokenizer->bos_token(),
               tokenizer->eos_token());
    fmt::print("template    {}\n", report.folder.chat_template ? "found" : "none: chat requests would be refused");
  }
  if (!report.model.sizes.empty()) {
    fmt::print("\n{:<28} {:>9} {:>12}\n", "", "tensors", "size");
    for (const WeightGroupSize& group : report.model.sizes) {
      fmt::print("{:<28} {:>9} {:>12}\n", group.group, group.num_tensors, format_bytes(group.checkpoint_bytes));
    }
    fmt::print("{:<28} {:>9} {:>12}\n", "all", "", format_bytes(report.model.checkpoint_bytes));
  }
  if (report.problems.empty()) {
    fmt::print("in memory   weights {}, KV cache {} per token\n", format_bytes(report.model.weight_memory_bytes),
               format_bytes(static_cast<uint64_t>(report.kv_bytes_per_token)));
    fmt::print("\n{} would be served.\n", options.model);
    return;
  }
  fmt::print("\n{} would not be served, {} problem(s):\n", options.model, report.problems.size());
  for (size_t i = 0; i < report.problems.size(); ++i) {
    fmt::print("{:>3}. {}: {}\n", i + 1, error_code_name(report.problems[i].code), report.problems[i].message);
  }
}

void print_json(const InspectOptions& options, const Report& report) {
  Json out = {{"model", options.model}, {"would_serve", report.problems.empty()}};
  Json problems = Json::array(), sizes = Json::array();
  for (const Error& problem : report.problems) {
    problems.push_back({{"kind", error_code_name(problem.code)}, {"message", problem.message}});
  }
  for (const WeightGroupSize& group : report.model.sizes) {
    sizes.push_back({{"group", group.group}, {"tensors", group.num_tensors}, {"bytes", group.checkpoint_bytes}});
  }
  out["problems"] = std::move(problems);
  out["sizes"] = std::move(sizes);
  out["checkpoint_bytes"] = report.model.checkpoint_bytes;
  out["weight_memory_bytes"] = report.model.weight_memory_bytes;
  out["kv_bytes_per_token"] = report.kv_bytes_per_token;
  if (report.model.config) out["defaulted"] = report.model.config->defaulted;
  out["ignored"] = names_of_keys(report.model.hf, ConfigKey::Status::kIgnored);
  out["unknown"] = names_of_keys(report.model.hf, ConfigKey::Status::kUnknown);
  fmt::print("{}\n", dump_json(out));
}

int run_inspect() {
  const auto kernels = select_kernels(g_options.isa);
  if (!kernels) {
    std::fprintf(stderr, "hadal: %s\n", kernels.error().message.c_str());
    return kExitBadUsage;
  }
  if (const std::string advice = download_advice(g_options.model); !advice.empty()) {
    std::fprintf(stderr, "hadal: %s: no such folder%s\n", g_options.model.c_str(), advice.c_str());
  }
  const Report report = inspect_folder(g_options, **kernels);
  if (g_options.json) {
    print_json(g_options, report);
  } else {
    print_report(g_options, report);
  }
  return report.problems.empty() ? kExitOk : kExitFailed;
}

void add_inspect_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("inspect", "Check a model folder without running it");
  command->add_option("model,--model", g_options.model, "Hugging Face folder of the model")->required();
  command->add_option("--isa", g_options.isa, "Kernels to count memory for")->capture_default_str();
  command->add_flag("--json", g_options.json, "One JSON object on stdout");
  command->footer(
      "Exit codes: 0 it would serve, 1 it would not, 2 wrong command line.\n"
      "Example:\n  hadal inspect /data/DeepSeek-R1");
}

}  // namespace

const Command kInspectCommand = {add_inspect_command, "inspect", run_inspect};

}  // namespace hadal
