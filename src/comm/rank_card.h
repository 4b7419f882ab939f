// What a rank tells the others about itself before they connect, through the store. Foreign bytes: from_text() bounds
// everything.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "comm/rank_group.h"

namespace hadal {

struct RankCard {
  int node_rank = 0, nnodes = 1;
  int local_rank = 0, local_world_size = 1;
  int pid = 0;
  std::string host;     // name, for messages
  std::string machine;  // equal exactly where shared memory is possible: boot and PID namespace
  std::string address;  // "" when all ranks are on one node
  std::string nonce;    // unique to this call of join_rank_groups

  std::string to_text() const;
  static Expected<RankCard> from_text(std::string_view text);
};

RankCard own_card(const RankIdentity& identity, std::string address);

// Whether the cards of all ranks, ascending, describe one group as rank_group.h says. Errors: kInvalidArgument naming
// the ranks that contradict each other.
Status check_cards(const std::vector<RankCard>& cards);

}  // namespace hadal
