// hadal comm: is the network between the nodes all right? One question per subcommand.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "cli/command.h"

namespace hadal {
namespace {

const Command* const kCommands[] = {&kCommBenchCommand, &kCommCheckCommand};

const CLI::App* g_comm = nullptr;

void add_comm_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("comm", "Test the links between ranks and nodes");
  for (const Command* test : kCommands) {
    test->add(*command);
    command->get_subcommand(test->name)->allow_extras();
  }
  g_comm = command;
}

int run_comm() {
  for (const Command* test : kCommands) {
    if (g_comm->got_subcommand(test->name)) return test->run();
  }
  std::fputs(g_comm->help().c_str(), stdout);
  return kExitBadUsage;
}

}  // namespace

const Command kCommCommand = {add_comm_command, "comm", run_comm};

}  // namespace hadal
