// hadal eval: how good the answers are. A new evaluation is a Command and a line in the table.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "cli/command.h"

namespace hadal {
namespace {

const Command* const kEvaluations[] = {&kEvalGsm8kCommand, &kEvalPerplexityCommand, &kEvalKlCommand,
                                       &kEvalTableCommand};

const CLI::App* g_eval = nullptr;

void add_eval_command(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("eval", "Measure accuracy: word problems, perplexity, what a profile costs");
  for (const Command* evaluation : kEvaluations) {
    evaluation->add(*command);
    command->get_subcommand(evaluation->name)->allow_extras();
  }
  g_eval = command;
}

int run_eval() {
  for (const Command* evaluation : kEvaluations) {
    if (g_eval->got_subcommand(evaluation->name)) return evaluation->run();
  }
  std::fputs(g_eval->help().c_str(), stdout);
  return kExitBadUsage;
}

}  // namespace

const Command kEvalCommand = {add_eval_command, "eval", run_eval};

}  // namespace hadal
