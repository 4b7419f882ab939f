// What `hadal comm check` knows and concludes: cards of the nodes, measurements of pairs, faults by name with what to
// do. Pure; comm_check_run.h gathers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

// A node about itself; travels as JSON through the store. Foreign bytes: node_card_from_json checks kinds and lengths.
struct NodeCard {
  int node_rank = 0, nnodes = 1;
  std::string host, interface_name, address;
  int mtu = 0;
  int probe_port = 0;  // where pairs are measured
  std::string version;
  std::string binary_hash;  // of the running program
  std::string model_hash;   // "" without --model
  std::string config;       // numerics and layout flags that must agree; "" without
  std::string nonce;        // unique to this process
};
Json to_json(const NodeCard& card);
Expected<NodeCard> node_card_from_json(std::string_view text);

// Names never change their meaning: scripts read them.
struct Fault {
  std::string name;  // "port-blocked"
  std::vector<int> nodes;
  std::string found, fix;
};

// Two nodes, `from` connecting to `to`.
struct PairResult {
  int from = 0, to = 0;
  double latency_us = 0;        // half a round trip of 64 bytes, the median
  double bandwidth = 0;         // bytes/s, the slower direction
  double clock_difference = 0;  // seconds that `to` is ahead, give or take the latency
  std::optional<Fault> fault;   // then the figures are not valid
};
Json to_json(const PairResult& pair);
Expected<PairResult> pair_result_from_json(std::string_view text);

struct CheckThresholds {
  double min_bandwidth = 0;   // bytes/s; 0: none
  double max_latency_us = 0;  // 0: none
  double max_clock_seconds = 1;
};

struct CheckReport {
  int nnodes = 1;
  std::vector<NodeCard> cards;  // of the nodes that came
  std::vector<PairResult> pairs;
  std::vector<Fault> faults;
};

// What the cards contradict each other in.
std::vector<Fault> compare_cards(const std::vector<NodeCard>& cards);
// What the measurements say.
std::vector<Fault> judge_pairs(const std::vector<NodeCard>& cards, const std::vector<PairResult>& pairs,
                               const CheckThresholds& thresholds);

// A connection that failed, from errno: refused and unanswered are different faults. what: "the rendezvous of node 0".
Fault connect_fault(int error, int from, int to, const std::string& what, const std::string& address, int port);
// An error on the way to the rendezvous. Errors keep their words; the name is told by code and errno.
Fault rendezvous_fault(const Error& error, int node_rank);

std::string check_text(const CheckReport& report);
Json check_json(const CheckReport& report);

}  // namespace hadal
