// The measurement of one pair of nodes over a TCP connection of its own: latency, clocks, whether large packets pass,
// and bandwidth. Every wait is bounded; what goes wrong is a fault by name.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "cli/comm_check.h"

namespace hadal {

struct ProbeLimits {
  std::chrono::milliseconds step{5'000};        // of connecting, of all pings, of the first large message
  std::chrono::milliseconds bandwidth{10'000};  // of each direction
  int64_t bandwidth_bytes = int64_t{32} << 20;  // sent in each direction
  int num_pings = 200;
};

// The side that is connected to. Single-owner.
class ProbeListener {
 public:
  // Binds to this address only; port 0: the system chooses. Errors: kIo.
  static Expected<std::unique_ptr<ProbeListener>> open(const std::string& address, int port, std::string nonce);
  ~ProbeListener();
  int port() const { return port_; }

  // Answers one peer that knows the nonce until it says goodbye; strangers are cut off. Nothing, or "peer-dead" and
  // "peer-frozen" when the peer `from` stops in between. A peer that never connects is nothing: it has its own fault.
  std::optional<Fault> serve(int from, int own, const ProbeLimits& limits);

 private:
  ProbeListener(int fd, int port, std::string nonce) : fd_(fd), port_(port), nonce_(std::move(nonce)) {}
  const int fd_;
  const int port_;
  const std::string nonce_;
};

// The side that connects.
PairResult probe_pair(const NodeCard& own, const NodeCard& peer, const ProbeLimits& limits);

}  // namespace hadal
