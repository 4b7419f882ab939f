// TCP connections from a rank to every other one, made by Gloo, and messages over them: what gloo_communicator.h builds
// its collectives from. Gloo stays inside the .cc.
//
// Two ranks that write to each other never block: the socket's buffer holds a whole message (checked on connecting).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"
#include "comm/key_value_store.h"

namespace hadal {

struct GlooGroupOptions {
  int rank = 0;
  int world_size = 0;
  std::string address;                             // own address or name to bind to; with it the interface is chosen
  std::string prefix;                              // of the keys: unique per group and generation
  std::chrono::milliseconds timeout{30'000};       // of one operation
  std::chrono::milliseconds join_timeout{30'000};  // of finding the others in the store
  // A rank that waits asks the socket again and again for so long before it sleeps: less latency between ranks that
  // compute. A group that mostly waits has zero.
  std::chrono::microseconds spin{0};
  int64_t chunk_bytes = 128 << 10;  // of a message; more is sent as several
};

// In front of every message: a rank in another operation is noticed at once.
struct MessageHead {
  uint32_t op = 0;
  uint32_t root = 0;
  uint64_t num_bytes = 0;  // of the whole operation
  uint64_t call = 0;
};
inline constexpr uint32_t kFarewell = 0xffffffff;  // MessageHead::op of a rank that gave up; the chunk says why

// Single-owner. Errors: kUnavailable; the first one stays.
class GlooMesh {
 public:
  // Connects to all others; `store` is used until this returns. One that fails tells the others. Makes the process
  // ignore SIGPIPE if nobody handles it: Gloo writes to connections that may be gone. Errors: kUnavailable (a rank does
  // not come, a connection fails), kResourceExhausted (the system allows too small socket buffers).
  static Expected<std::shared_ptr<GlooMesh>> connect(KeyValueStore& store, const GlooGroupOptions& options);
  virtual ~GlooMesh() = default;

  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  virtual int64_t chunk_bytes() const = 0;

  // Leaves the message to the system. data: at most chunk_bytes.
  virtual Status send(int peer, const MessageHead& head, std::span<const std::byte> data) = 0;
  // Waits for a message's start for at most `timeout`; its chunk, of which as many bytes are valid as the operation
  // sent, is whole and stays until the next one of this peer is received.
  virtual Expected<const std::byte*> receive(int peer, MessageHead* head, std::chrono::milliseconds timeout) = 0;
  // Tells all peers why; every later call fails with it.
  virtual void give_up(const std::string& why) = 0;
};

}  // namespace hadal
