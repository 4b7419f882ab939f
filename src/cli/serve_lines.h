// The lines that `hadal serve` prints at start-up: a block for people, then log lines that scripts made for vLLM wait
// for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/open_model.h"
#include "cli/serve_options.h"
#include "server/server.h"

namespace hadal {

// Plain lines on stdout, or log lines when logs are JSON.
class ServeLines {
 public:
  explicit ServeLines(bool as_log) : as_log_(as_log) {}

  // What was found before a weight is read.
  void found(const ServeOptions& options, const OpenedModel& opened) const;
  void sampling(const ServeOptions& options, const SamplingDefaults& defaults) const;
  void rank(const std::string& line) const { say(line); }
  void certified(const std::string& summary) const;
  // Where it listens, and a command that asks something. The last line of the block begins with "curl".
  void ready(const ServerOptions& server, uint16_t port, bool has_chat_template, double seconds) const;

 private:
  void say(const std::string& line) const;
  bool as_log_;
};

// "Starting vLLM API server on ..", "Application startup complete.", "Uvicorn running on ..": only once requests are
// answered, because whoever waits for them sends one next.
void log_peer_ready_lines(const ServerOptions& server, uint16_t port);

}  // namespace hadal
