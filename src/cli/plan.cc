// hadal plan: what fits and how fast it would be, on this machine and on others, computed from shapes.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/resource_limits.h"
#include "bench/ceilings.h"
#include "bench/machine.h"
#include "bench/network_plan.h"
#include "bench/plan.h"
#include "cli/command.h"
#include "cli/memory_plan.h"
#include "cli/serving_folder.h"
#include "formats/hf_config.h"
#include "model/config.h"

namespace hadal {
namespace {

constexpr const char* kThisMachine = "auto";
constexpr uint64_t kMaxConfigBytes = 4 << 20;
constexpr uint64_t kMaxCeilingsBytes = 16 << 20;
constexpr double kProbeSeconds = 4;

struct PlanOptions {
  std::string model;
  std::vector<std::string> machines;
  std::string ceilings;
  std::string network = "25gbe";
  int num_nodes = 1;
  PlanRequest request;
  bool json = false;
};
PlanOptions g_options;
const CLI::App* g_plan = nullptr;

Expected<ModelConfig> read_config(const std::string& model) {
  const std::filesystem::path path(model);
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    HADAL_ASSIGN_OR_RETURN(const HfConfig hf, load_hf_config(path));
    auto config = make_model_config(hf);
    if (!config) return forward_error(std::move(config), (path / "config.json").string());
    return config;
  }
  if (const std::string advice = download_advice(path); !advice.empty()) {
    return make_error(ErrorCode::kNotFound, "{}: no such folder{}", model, advice);
  }
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxConfigBytes));
  const auto hf = parse_hf_config(text);
  if (!hf) return forward_error(Expected<HfConfig>(hf), path.string());
  auto config = make_model_config(*hf);
  if (!config) return forward_error(std::move(config), path.string());
  return config;
}

Expected<Ceilings> read_ceilings(const std::string& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxCeilingsBytes));
  auto json = parse_json(text);
  if (!json) return forward_error(std::move(json), path);
  auto ceilings = ceilings_from_json(*json);
  if (!ceilings) return forward_error(std::move(ceilings), path);
  return ceilings;
}

// With the disk that the model lies on, where that allows direct I/O.
Expected<Ceilings> probe_this_machine(const std::string& model) {
  CeilingOptions options;
  options.seconds = kProbeSeconds;
  std::error_code ignored;
  if (std::filesystem::is_directory(model, ignored)) options.disk = model;
  auto ceilings = measure_ceilings(options);
  if (ceilings || options.disk.empty() || ceilings.error().code != ErrorCode::kUnsupported) return ceilings;
  options.disk.clear();
  return measure_ceilings(options);
}

Expected<Machine> find_machine(const PlanOptions& options, const std::string& name) {
  std::error_code ignored;
  if (name == kThisMachine) {
    HADAL_ASSIGN_OR_RETURN(const Ceilings ceilings, options.ceilings.empty() ? probe_this_machine(options.model)
                                                                             : read_ceilings(options.ceilings));
    return machine_from_ceilings(ceilings, static_cast<double>(available_memory_bytes().value_or(0)));
  }
  if (std::filesystem::is_regular_file(name, ignored)) return load_machine(name);
  return machine_by_name(name);
}

Expected<std::vector<MachinePlan>> make_plans(const PlanOptions& options, const ModelConfig& config) {
  std::vector<std::string> names = options.machines;
  if (names.empty()) {
    names.emplace_back(kThisMachine);
    for (const Machine& machine : machine_table()) names.push_back(machine.name);
  }
  std::vector<MachinePlan> plans;
  for (const std::string& name : names) {
    HADAL_ASSIGN_OR_RETURN(const Machine machine, find_machine(options, name));
    plans.push_back(plan_machine(config, machine, options.request));
  }
  return plans;
}

std::string bytes_text(double bytes) { return bytes < 0 ? "-" : format_bytes(static_cast<uint64_t>(bytes)); }

std::string rate_text(double rate) { return fmt::format("{:.{}f}", rate, rate < 100 ? 1 : 0); }

std::string seconds_text(double seconds) {
  if (seconds == 0) return "?";
  if (seconds < 1) return fmt::format("{:.0f} ms", seconds * 1e3);
  return seconds < 600 ? fmt::format("{:.1f} s", seconds) : fmt::format("{:.0f} min", seconds / 60);
}

using Cell = std::function<std::string(const MachinePlan&)>;

void print_row(const std::string& label, const std::vector<MachinePlan>& plans, const Cell& cell) {
  fmt::print("{:<26}", label);
  for (const MachinePlan& plan : plans) fmt::print(" {:>15}", cell(plan));
  fmt::print("\n");
}

// A rate on a machine that cannot hold the weights is no rate.
Cell if_loaded(Cell cell) {
  return [cell = std::move(cell)](const MachinePlan& plan) {
    return plan.max_context_tokens > 0 ? cell(plan) : std::string("-");
  };
}

void print_memory(const PlanRequest& request, const std::vector<MachinePlan>& plans) {
  print_row("devices", plans, [](const MachinePlan& plan) { return fmt::format("{}", plan.machine.num_devices); });
  print_row("memory per device", plans, [](const MachinePlan& plan) { return bytes_text(plan.machine.memory_bytes); });
  print_row("weights per device", plans, [](const MachinePlan& plan) { return bytes_text(plan.weight_bytes); });
  print_row("activations per device", plans, [](const MachinePlan& plan) { return bytes_text(plan.activation_bytes); });
  print_row("room for the KV cache", plans, [](const MachinePlan& plan) { return bytes_text(plan.kv_room_bytes); });
  print_row("KV cache per token", plans, [](const MachinePlan& plan) { return bytes_text(plan.kv_bytes_per_token); });
  print_row("longest context", plans, [](const MachinePlan& plan) {
    return plan.max_context_tokens == 0 ? "none fits" : fmt::format("{}", plan.max_context_tokens);
  });
  print_row(fmt::format("sequences of {}", request.context_tokens), plans,
            [](const MachinePlan& plan) { return fmt::format("{}", plan.max_concurrency); });
  print_row(fmt::format("{} x {}", request.context_tokens, request.concurrency), plans,
            [](const MachinePlan& plan) { return plan.fits ? "fits" : "does not fit"; });
  print_row("load", plans, if_loaded([](const MachinePlan& plan) { return seconds_text(plan.load_s); }));
}

void print_speed(const PlanRequest& request, const std::vector<MachinePlan>& plans) {
  fmt::print("\nprompt to first token, one request alone\n");
  for (size_t i = 0; i < std::size(kPlanPrompts); ++i) {
    print_row(fmt::format("  {} tokens", kPlanPrompts[i]), plans,
              if_loaded([i](const MachinePlan& plan) { return seconds_text(plan.ttft[i].seconds); }));
  }
  fmt::print("\ntokens/s of all sequences together, short | at {} tokens\n", request.context_tokens);
  for (size_t i = 0; i < std::size(kPlanBatches); ++i) {
    print_row(fmt::format("  batch {}", kPlanBatches[i]), plans, if_loaded([i](const MachinePlan& plan) {
                const DecodeRate& rate = plan.decode[i];
                const std::string full = rate.batch <= plan.max_concurrency ? rate_text(rate.full_tokens_per_s) : "-";
                return rate_text(rate.short_tokens_per_s) + " | " + full;
              }));
  }
}

void print_plans(const PlanOptions& options, const ModelConfig& config, const std::vector<MachinePlan>& plans) {
  fmt::print("{}: checkpoint {} ({:.0f} GiB), {} a token at batch 1\n\n", options.model,
             bytes_text(checkpoint_bytes(config)), checkpoint_bytes(config) / (1 << 30),
             bytes_text(step_cost(config, decode_shape(1, 0)).total().weight_bytes));
  print_row("", plans, [](const MachinePlan& plan) { return plan.machine.name; });
  print_memory(options.request, plans);
  print_speed(options.request, plans);
  fmt::print("\n");
  for (const MachinePlan& plan : plans) {
    fmt::print("{:<14} {}: {}\n", plan.machine.name, plan.machine.title, plan.machine.sources);
  }
  fmt::print("Computed, not measured: for each phase of a step the slower of reading and multiplying.\n");
}

void print_json(const PlanOptions& options, const ModelConfig& config, const std::vector<MachinePlan>& plans) {
  Json list = Json::array();
  for (const MachinePlan& plan : plans) list.push_back(plan_to_json(plan));
  Json out = {{"model", options.model},
              {"checkpoint_bytes", checkpoint_bytes(config)},
              {"context_tokens", options.request.context_tokens},
              {"concurrency", options.request.concurrency}};
  out["plans"] = std::move(list);
  fmt::print("{}\n", out.dump(2));
}

Status check_request(const PlanRequest& request, const ModelConfig& config) {
  if (request.concurrency < 1) {
    return make_error(ErrorCode::kInvalidArgument, "--concurrency {}: at least 1", request.concurrency);
  }
  if (request.context_tokens < 1 || request.context_tokens > config.max_position_embeddings) {
    return make_error(ErrorCode::kInvalidArgument, "--context {}: 1 to max_position_embeddings = {} are possible",
                      request.context_tokens, config.max_position_embeddings);
  }
  return {};
}

// Of the first machine asked for, or this one.
Status print_network(const PlanOptions& options, const ModelConfig& config) {
  HADAL_ASSIGN_OR_RETURN(const Network network, parse_network(options.network));
  const std::string name = options.machines.empty() ? kThisMachine : options.machines.front();
  HADAL_ASSIGN_OR_RETURN(const Machine machine, find_machine(options, name));
  HADAL_ASSIGN_OR_RETURN(const NetworkPlan plan, plan_network(config, machine, network, options.num_nodes));
  if (options.json) {
    Json out = network_plan_to_json(plan);
    out["model"] = options.model;
    out["machine"] = machine_to_json(machine);
    fmt::print("{}\n", out.dump(2));
  } else {
    fmt::print("{}{}: {}\n", network_plan_text(plan), machine.name, machine.title);
  }
  return {};
}

int report_error(const Error& error) {
  std::fprintf(stderr, "hadal: %s\n", error.message.c_str());
  const bool usage = error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kNotFound;
  return usage ? kExitBadUsage : kExitFailed;
}

int run_plan() {
  if (g_plan->got_subcommand(kPlanBucketsCommand.name)) return kPlanBucketsCommand.run();
  if (g_options.model.empty()) {  // not CLI11's required(): `plan buckets` needs no model
    return report_error({ErrorCode::kInvalidArgument, "--model is missing: give a model folder or a config.json"});
  }
  const auto config = read_config(g_options.model);
  if (!config) return report_error(config.error());
  if (g_options.request.context_tokens == 0) {
    g_options.request.context_tokens = std::min(PlanRequest{}.context_tokens, config->max_position_embeddings);
  }
  if (const auto checked = check_request(g_options.request, *config); !checked) return report_error(checked.error());
  if (g_options.num_nodes != 1) {
    const Status printed = print_network(g_options, *config);
    return printed ? kExitOk : report_error(printed.error());
  }
  const auto plans = make_plans(g_options, *config);
  if (!plans) return report_error(plans.error());
  if (g_options.json) {
    print_json(g_options, *config, *plans);
  } else {
    print_plans(g_options, *config, *plans);
  }
  return g_options.machines.size() == 1 && !plans->front().fits ? kExitFailed : kExitOk;
}

void add_plan_command(CLI::App& program) {
  g_options.request.context_tokens = 0;
  CLI::App* command = program.add_subcommand("plan", "What fits and how fast it would be, here and on other machines");
  command->add_option("model,--model", g_options.model, "Model folder, or a config.json alone (required)");
  command->add_option("--machine", g_options.machines,
                      "auto (this one), a name of the built-in table, or a JSON file; default: auto and the table");
  command->add_option("--ceilings", g_options.ceilings,
                      "For auto: output of `hadal bench ceilings --json` instead of measuring");
  command->add_option("--context", g_options.request.context_tokens,
                      "Tokens per sequence; default: 32768 or the model's limit");
  command->add_option("--concurrency", g_options.request.concurrency, "Sequences at once")->capture_default_str();
  command->add_option("--nnodes", g_options.num_nodes,
                      "Print what so many nodes of the first machine tell each other in a step, by layout");
  command
      ->add_option("--network", g_options.network,
                   "Between them: 1gbe, 25gbe, 100gbe, 200gb-rdma, or microseconds of an exchange and GB/s, as 30,2.9")
      ->capture_default_str();
  command->add_flag("--json", g_options.json, "One JSON object on stdout");
  kPlanBucketsCommand.add(*command);
  command->get_subcommand(kPlanBucketsCommand.name)->allow_extras();
  g_plan = command;
  command->footer(
      "Exit codes: 0 done, 1 it does not fit the one machine asked for, or failed, 2 wrong command line.\n"
      "Example:\n  hadal plan --model config.json --machine 8x-gaudi2 --context 32768\n"
      "  hadal plan --model config.json --nnodes 2 --network 25gbe --machine 2x-epyc-9005");
}

}  // namespace

const Command kPlanCommand = {add_plan_command, "plan", run_plan};

}  // namespace hadal
