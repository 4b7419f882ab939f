#include "cli/peer_flags.h"

#include <CLI/CLI.hpp>

#include "base/log.h"

namespace hadal {
namespace {

struct PeerFlag {
  const char* name;
  bool takes_value;
  const char* why;
};

constexpr const char* kAlwaysOn = "this is always so here";
constexpr const char* kNoPython = "no Python code of the model folder is ever run";
constexpr const char* kNoDevice = "there is no device memory or graph to manage on the CPU";
constexpr const char* kOneBlockManager = "there is one block manager";
constexpr const char* kNoSwap = "preempted requests are recomputed, not swapped";
constexpr const char* kOwnLog = "use --log-level and --log-format";
constexpr const char* kQuiet = "prompts are never logged";

constexpr PeerFlag kPeerFlags[] = {
    {"--device", true, "the device is the CPU"},
    {"--trust-remote-code", false, kNoPython},
    {"--distributed-executor-backend", true, "this build runs one rank, on all cores"},
    {"--use-v2-block-manager", false, kOneBlockManager},
    {"--use-padding-aware-scheduling", false, "batches are not padded"},
    {"--max-num-prefill-seqs", true, "prefill is chunked under --max-num-batched-tokens"},
    {"--weights-load-device", true, "weights go straight to their place"},
    {"--num-scheduler-steps", true, "the scheduler runs every step"},
    {"--enable-chunked-prefill", false, kAlwaysOn},
    {"--disable-frontend-multiprocessing", false, "there is one process"},
    {"--api-server-count", true, "there is one process"},
    {"--gpu-memory-utilization", true, "use --memory-utilization"},
    {"--max-seq-len-to-capture", true, kNoDevice},
    {"--enforce-eager", false, kNoDevice},
    {"--load-format", true, "the format is safetensors"},
    {"--swap-space", true, kNoSwap},
    {"--preemption-mode", true, kNoSwap},
    {"--scheduler-delay-factor", true, "requests are admitted as they come"},
    {"--disable-log-requests", false, kQuiet},
    {"--enable-log-requests", false, kQuiet},
    {"--max-log-len", true, kQuiet},
    {"--uvicorn-log-level", true, kOwnLog},
    {"--disable-uvicorn-access-log", false, kOwnLog},
    {"--enable-request-id-headers", false, kAlwaysOn},
    {"--enable-prompt-tokens-details", false, kAlwaysOn},
    {"--enable-server-load-tracking", false, kAlwaysOn},
    {"--enable-tokenizer-info-endpoint", false, kAlwaysOn},
    {"--disable-fastapi-docs", false, "there is no FastAPI"},
    {"--enable-reasoning", false, "use --reasoning-parser; it is chosen from the model when absent"},
};

}  // namespace

void add_peer_flags(CLI::App& command) {
  for (const PeerFlag& flag : kPeerFlags) {
    CLI::Option* option = flag.takes_value ? command.add_option(flag.name) : command.add_flag(flag.name);
    option->group("");  // not shown by --help
  }
}

void warn_about_peer_flags(const CLI::App& command) {
  for (const PeerFlag& flag : kPeerFlags) {
    if (command.count(flag.name) > 0) log_warning("{} is accepted and has no effect: {}", flag.name, flag.why);
  }
}

}  // namespace hadal
