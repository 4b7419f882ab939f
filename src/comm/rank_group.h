// One contract for every launcher: what a process is told about its place, and the two groups that it joins with it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/key_value_store.h"

namespace hadal {

// Ranks of a node are consecutive; nodes ascend with their first rank. Environment names: HADAL_RANK,
// HADAL_WORLD_SIZE, HADAL_LOCAL_RANK, HADAL_LOCAL_WORLD_SIZE, HADAL_NODE_RANK, HADAL_NNODES, HADAL_MASTER_ADDR,
// HADAL_MASTER_PORT, HADAL_GENERATION, HADAL_IFACE, HADAL_AUTH_TOKEN.
struct RankIdentity {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  int local_world_size = 1;
  int node_rank = 0;
  int nnodes = 1;
  std::string master_addr = "127.0.0.1";  // of rank 0, where the rendezvous listens
  uint16_t master_port = 0;
  int generation = 0;          // grows with every restart of the group; ranks of another one are refused
  std::string interface_name;  // or an own address; empty: the one that leads to master_addr
  std::string token;
};

// A token for a new group: 128 random bits, in hexadecimal.
std::string make_rank_token();

struct RankGroupOptions {
  std::chrono::milliseconds join_timeout{120'000};
  std::chrono::milliseconds data_timeout{30'000};     // of one operation between ranks that compute
  std::chrono::milliseconds control_timeout{10'000};  // of one operation of the control group
};

struct RankGroups {
  std::unique_ptr<Communicator> control;  // plans and heartbeats: a rank that waits sleeps
  std::unique_ptr<Communicator> data;     // sums: spins for some microseconds first
  std::string transport;                  // for people: "shared memory", "shared memory + TCP (eth0 10.0.0.2)"
};

// Meets the other ranks through `store`: shared memory among the ranks of a node, TCP between nodes, both below one
// communicator whose sums are those of one binary tree over all ranks. Ranks may be threads of one process. Nodes with
// different numbers of ranks, or not a power of two of them, use TCP between all ranks: the same bits, slower. Errors:
// kUnavailable naming who did not come, kInvalidArgument for an identity that contradicts itself, a loopback address
// between nodes.
Expected<RankGroups> join_rank_groups(KeyValueStore& store, const RankIdentity& identity,
                                      const RankGroupOptions& options = {});

}  // namespace hadal
