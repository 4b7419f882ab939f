// How ranks find each other: rank 0 listens, every rank connects, shows the group's token and what it runs, and then
// sets and reads keys. A rank that runs something else than rank 0 is told so by name, before anything is loaded.
//
// Not encrypted: the token keeps strangers and stale ranks out, the network keeps readers out.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "comm/key_value_store.h"

namespace hadal {

struct RendezvousOptions {
  std::string address;  // of rank 0: name or IP; the server binds to it, and to nothing else
  uint16_t port = 0;    // 0: the system chooses (server only)
  std::string token;    // the same for all ranks of one generation
  // What must be equal on all ranks: "version", "config", "model", "world size", "generation". Values are shown.
  std::map<std::string, std::string> facts;
  // Of a rank that has connected. The server answers at once: this is for a network in trouble. A late answer is thrown
  // away.
  std::chrono::milliseconds answer_time{15'000};
};

// Serves until it is destroyed. Thread-safe; owns one thread. Strangers cost at most 128 connections of 16 KiB, for 10
// s each; ranks at most 65,536 keys of 256 bytes and 256 MiB of values.
class RendezvousServer {
 public:
  // Errors: kIo naming address and port; kInvalidArgument for an address that means all interfaces.
  static Expected<std::unique_ptr<RendezvousServer>> start(const RendezvousOptions& options);
  ~RendezvousServer();
  uint16_t port() const;
  // Waits until at most `most` ranks are connected, so that who still needs the keys can read them. A rank counts
  // before its connect_rendezvous() returns. Whether that came within `timeout`.
  bool wait_for_departures(int most, std::chrono::milliseconds timeout);

 private:
  struct Impl;
  explicit RendezvousServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Connects, trying again until `timeout` while nobody listens. Errors: kUnavailable (nobody listens, connection lost),
// kInvalidArgument (refused: wrong token, or the facts that differ with both values).
Expected<std::unique_ptr<KeyValueStore>> connect_rendezvous(const RendezvousOptions& options, int rank,
                                                            std::chrono::milliseconds timeout);

}  // namespace hadal
