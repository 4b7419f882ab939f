// hadal: one program, one subcommand per job.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "base/names.h"
#include "cli/command.h"
#include "cli/peer_flags.h"
#include "cli/version.h"

namespace hadal {
namespace {

const Command* const kCommands[] = {&kServeCommand, &kWorkerCommand,  &kChatCommand,    &kInspectCommand,
                                    &kBenchCommand, &kPlanCommand,    &kConvertCommand, &kCalibrateCommand,
                                    &kEvalCommand,  &kCertifyCommand, &kDoctorCommand,  &kCommCommand};

// vLLM accepts snake_case spellings of every flag: --max_model_len=4096 is --max-model-len=4096.
std::string with_kebab_case_flag(std::string argument) {
  if (argument.rfind("--", 0) != 0) return argument;
  const size_t name_end = std::min(argument.find('='), argument.size());
  std::replace(argument.begin(), argument.begin() + static_cast<ptrdiff_t>(name_end), '_', '-');
  return argument;
}

// hccl_demo's own words with one dash, of `hadal comm bench`.
std::string with_two_dashes(std::string argument) {
  for (const char* word : {"-list", "-clean", "-mpi", "-no_color", "-ignore_mpi_errors"}) {
    if (argument == word) return "-" + argument;
  }
  return argument;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> subcommand_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

// "unknown flag --modle (did you mean --model?)" for the first argument that nothing took.
int report_unknown_argument(const CLI::App& program) {
  const std::vector<std::string> extras = program.remaining(true);
  const std::string unknown = extras.empty() ? "" : extras.front().substr(0, extras.front().find('='));
  const CLI::App* command = &program;  // the innermost subcommand that was recognised
  std::string command_path;
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    command_path += command->get_name() + " ";
  }
  const bool is_flag = unknown.rfind("-", 0) == 0;
  const std::vector<std::string> subcommands = subcommand_names(*command);
  const std::string suggestion = closest_name(unknown, is_flag ? option_names(*command) : subcommands);
  std::fprintf(stderr, "hadal: unknown %s '%s'%s\nRun 'hadal %s--help' for what there is.\n",
               is_flag ? "flag" : (subcommands.empty() ? "argument" : "command"), unknown.c_str(),
               suggestion.empty() ? "" : (" (did you mean " + suggestion + "?)").c_str(), command_path.c_str());
  return kExitBadUsage;
}

int run_program(int argc, char** argv) {
  CLI::App program{"hadal serves DeepSeek-V3-architecture models from their Hugging Face folder.", "hadal"};
  program.set_version_flag("--version", std::string("hadal ") + kVersion);
  program.allow_extras();
  program.footer(
      "Examples:\n  hadal serve --model models/nano\n  hadal inspect /data/DeepSeek-R1\n"
      "Exit codes: 0 done, 1 failed, 2 wrong command line.");
  for (const Command* command : kCommands) {
    command->add(program);
    program.get_subcommand(command->name)->allow_extras();
  }
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) arguments.push_back(with_kebab_case_flag(with_two_dashes(argv[i])));
  if (!arguments.empty() && arguments.front() == kServeCommand.name) {
    put_peer_spellings(*program.get_subcommand(kServeCommand.name), arguments);
  }
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
  try {
    program.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? kExitOk : kExitBadUsage;
  }
  if (!program.remaining(true).empty()) return report_unknown_argument(program);
  for (const Command* command : kCommands) {
    if (program.got_subcommand(command->name)) return command->run();
  }
  std::fputs(program.help().c_str(), stdout);
  return kExitBadUsage;
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) {
  try {
    return hadal::run_program(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hadal: internal error: %s\n", error.what());
    return hadal::kExitFailed;
  }
}
