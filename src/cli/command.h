// One subcommand of the hadal program.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace hadal {

// Exit codes of every subcommand.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;    // it ran and the answer is no, or something broke
inline constexpr int kExitBadUsage = 2;  // the command line is wrong

struct Command {
  // Adds the subcommand and its flags to the program; called once before parsing.
  void (*add)(CLI::App& program);
  const char* name;
  // Runs it after parsing. Returns an exit code.
  int (*run)();
};

extern const Command kServeCommand;
extern const Command kInspectCommand;

}  // namespace hadal
