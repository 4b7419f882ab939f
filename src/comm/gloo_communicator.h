// Ranks of different machines, over TCP by Gloo's pairs: every rank exchanges with every other one, messages of at most
// `chunk_bytes` at a time so that two ranks that write to each other never block. Gloo stays inside the .cc.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/key_value_store.h"

namespace hadal {

struct GlooGroupOptions {
  int rank = 0;
  int world_size = 0;
  std::string address;                        // own address or name to bind to; with it the interface is chosen
  std::string prefix;                         // of the keys: unique per group and generation
  std::chrono::milliseconds timeout{30'000};  // of one operation, and of connecting
  // Waits by asking the socket again and again: 5 us faster an exchange, one core busy while it waits. For data between
  // ranks that compute; a group that mostly waits leaves it off.
  bool busy_poll = false;
  int64_t chunk_bytes = 256 << 10;
};

// Connects to all others; `store` is used until this returns. Errors: kUnavailable (a rank does not come, a connection
// fails), naming address and rank. set_timeout() has no effect on a group: Gloo fixes it when it connects.
Expected<std::unique_ptr<Communicator>> join_gloo_group(KeyValueStore& store, const GlooGroupOptions& options);

}  // namespace hadal
