// What ranks leave each other at the rendezvous before a group is joined. Generation g begins when rank 0 wants a group
// and ends when that group broke or was given up; generations count from 0 and never come again.
#pragma once

#include <string>

#include "base/status.h"

namespace hadal {

// Set once, before any rank starts: write_rank_config(), model_hash() of the folder, and numerics_hash().
inline constexpr const char* kConfigKey = "config";
inline constexpr const char* kModelKey = "model";
inline constexpr const char* kNumericsKey = "numerics";

// By a rank that has loaded and would join: RankReport. May be set again by a rank that was started again.
inline std::string ready_key(int generation, int rank) { return fmt::format("ready/{}/{}", generation, rank); }
// By rank 0, to one rank: the nonce of its report, or kOver: take the next generation.
inline std::string go_key(int generation, int rank) { return fmt::format("go/{}/{}", generation, rank); }
inline constexpr const char* kOver = "over";
// By rank 0, to the agent of a node, counting from 0: RankToEnd. An agent that meets rank 0 again reads all again.
inline std::string end_key(int node_rank, int number) { return fmt::format("end/{}/{}", node_rank, number); }
// By an agent: how a rank of its node ended last, for people.
inline std::string ended_key(int rank) { return fmt::format("ended/{}", rank); }

// A rank that does not answer: this process of it is to be ended, not one that has taken its place since.
struct RankToEnd {
  int rank = 0;
  int pid = 0;  // as it said itself
};
std::string write_rank_to_end(const RankToEnd& end);
// Errors: kCorrupt.
Expected<RankToEnd> parse_rank_to_end(const std::string& text);

struct RankReport {
  std::string nonce;  // new with every process
  std::string error;  // why it cannot take part; then it has ended
  int pid = 0;
  std::string host;
  int num_threads = 0;
  uint64_t memory_bytes = 0;  // resident
};
std::string write_rank_report(const RankReport& report);
// Errors: kCorrupt.
Expected<RankReport> parse_rank_report(const std::string& text);

}  // namespace hadal
