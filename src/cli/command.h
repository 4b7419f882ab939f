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
extern const Command kWorkerCommand;
extern const Command kChatCommand;
extern const Command kInspectCommand;
extern const Command kBenchCommand;  // its benchmarks are Commands too, added to the "bench" subcommand
extern const Command kPlanCommand;
extern const Command kPlanBucketsCommand;  // added to the "plan" subcommand
extern const Command kConvertCommand;
extern const Command kCalibrateCommand;
extern const Command kEvalCommand;  // as bench: its evaluations are Commands too
extern const Command kCertifyCommand;
extern const Command kDoctorCommand;
extern const Command kCommCommand;  // as bench

extern const Command kBenchCeilingsCommand;
extern const Command kBenchLatencyCommand;
extern const Command kBenchLoadCommand;
extern const Command kBenchPlotCommand;
extern const Command kBenchThroughputCommand;
extern const Command kBenchKernelsCommand;
extern const Command kBenchEngineCommand;
extern const Command kBenchTuneCommand;
extern const Command kBenchLiveCommand;
extern const Command kBenchServeCommand;
extern const Command kBenchCompareCommand;

extern const Command kCommBenchCommand;
extern const Command kCommCheckCommand;

extern const Command kEvalGsm8kCommand;
extern const Command kEvalPerplexityCommand;
extern const Command kEvalKlCommand;
extern const Command kEvalTableCommand;

}  // namespace hadal
