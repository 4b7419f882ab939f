#include "cli/rank_contract.h"

#include <algorithm>
#include <charconv>

#include "cli/rank_options.h"

namespace hadal {
namespace {

constexpr int kMostRanks = 65536;

const std::string* find_variable(const Environment& environment, const std::string& name) {
  for (const auto& [key, value] : environment) {
    if (key == name && !value.empty()) return &value;
  }
  return nullptr;
}

// Leaves `value` alone when the variable is not set.
Status read_number(const Environment& environment, const char* name, int least, int most, int& value) {
  const std::string* text = find_variable(environment, name);
  if (text == nullptr) return {};
  const char* end = text->data() + text->size();
  const auto [rest, error] = std::from_chars(text->data(), end, value);
  if (error == std::errc() && rest == end && value >= least && value <= most) return {};
  return make_error(ErrorCode::kInvalidArgument, "{}={} must be a number from {} to {}", name, *text, least, most);
}

Status contradiction(const char* name, int value, const char* other, int limit) {
  return make_error(ErrorCode::kInvalidArgument, "{}={} contradicts {}={}: ranks and nodes are counted from 0", name,
                    value, other, limit);
}

Status check(const RankIdentity& identity) {
  if (identity.rank >= identity.world_size) {
    return contradiction("HADAL_RANK", identity.rank, "HADAL_WORLD_SIZE", identity.world_size);
  }
  if (identity.local_rank >= identity.local_world_size) {
    return contradiction("HADAL_LOCAL_RANK", identity.local_rank, "HADAL_LOCAL_WORLD_SIZE", identity.local_world_size);
  }
  if (identity.node_rank >= identity.nnodes) {
    return contradiction("HADAL_NODE_RANK", identity.node_rank, "HADAL_NNODES", identity.nnodes);
  }
  if (identity.local_world_size * identity.nnodes != identity.world_size) {
    return make_error(ErrorCode::kInvalidArgument,
                      "HADAL_LOCAL_WORLD_SIZE={} times HADAL_NNODES={} is not HADAL_WORLD_SIZE={}: every node has the "
                      "same number of ranks",
                      identity.local_world_size, identity.nnodes, identity.world_size);
  }
  const int rank = identity.node_rank * identity.local_world_size + identity.local_rank;
  if (identity.rank == rank) return {};
  return make_error(ErrorCode::kInvalidArgument,
                    "HADAL_RANK={} contradicts HADAL_NODE_RANK={} of HADAL_NNODES={} with {} ranks each and "
                    "HADAL_LOCAL_RANK={}: that is rank {}",
                    identity.rank, identity.node_rank, identity.nnodes, identity.local_world_size, identity.local_rank,
                    rank);
}

// Without HADAL_RANK, the others that only a place can mean were meant for one.
Status check_no_place(const Environment& environment) {
  for (const char* name : {"HADAL_WORLD_SIZE", "HADAL_LOCAL_RANK", "HADAL_LOCAL_WORLD_SIZE"}) {
    if (const std::string* value = find_variable(environment, name)) {
      return make_error(ErrorCode::kInvalidArgument, "{}={} without HADAL_RANK: set HADAL_RANK too, or unset it", name,
                        *value);
    }
  }
  return {};
}

Status need(const Environment& environment, const char* name, const char* what) {
  if (find_variable(environment, name) != nullptr) return {};
  return make_error(ErrorCode::kInvalidArgument, "HADAL_RANK={} without {}: set it to {}",
                    *find_variable(environment, "HADAL_RANK"), name, what);
}

// What somebody else who starts the other ranks must have told all of them.
Status complete(const Environment& environment, RankIdentity& identity) {
  if (identity.nnodes > 1) {
    HADAL_RETURN_IF_ERROR(need(environment, "HADAL_MASTER_ADDR", "the address of node 0 that the other nodes reach"));
  }
  if (identity.master_port == 0) identity.master_port = kRankMasterPort;
  return need(environment, kTokenVariable, "the secret that all ranks share");
}

}  // namespace

Expected<std::optional<RankContract>> read_rank_contract(const Environment& environment) {
  if (find_variable(environment, "HADAL_RANK") == nullptr) {
    HADAL_RETURN_IF_ERROR(check_no_place(environment));
    return std::nullopt;
  }
  RankContract contract;
  RankIdentity& identity = contract.identity;
  int port = 0;
  HADAL_RETURN_IF_ERROR(read_number(environment, "HADAL_RANK", 0, kMostRanks, identity.rank));
  HADAL_RETURN_IF_ERROR(need(environment, "HADAL_WORLD_SIZE", "the number of ranks"));
  HADAL_RETURN_IF_ERROR(read_number(environment, "HADAL_WORLD_SIZE", 1, kMostRanks, identity.world_size));
  HADAL_RETURN_IF_ERROR(read_number(environment, "HADAL_LOCAL_RANK", 0, kMostRanks, identity.local_rank));
  HADAL_RETURN_IF_ERROR(read_number(environment, "HADAL_NODE_RANK", 0, kMostRanks, identity.node_rank));
  HADAL_RETURN_IF_ERROR(read_number(environment, "HADAL_NNODES", 1, kMostRanks, identity.nnodes));
  identity.local_world_size = std::max(1, identity.world_size / identity.nnodes);
  HADAL_RETURN_IF_ERROR(read_number(environment, "HADAL_LOCAL_WORLD_SIZE", 1, kMostRanks, identity.local_world_size));
  HADAL_RETURN_IF_ERROR(read_number(environment, "HADAL_MASTER_PORT", 1, 65535, port));
  HADAL_RETURN_IF_ERROR(read_number(environment, "HADAL_GENERATION", 0, 1 << 30, identity.generation));
  identity.master_port = static_cast<uint16_t>(port);
  const std::pair<const char*, std::string*> texts[] = {{"HADAL_MASTER_ADDR", &identity.master_addr},
                                                        {"HADAL_IFACE", &identity.interface_name},
                                                        {"HADAL_AUTH_TOKEN", &identity.token}};
  for (const auto& [name, text] : texts) {
    if (const std::string* value = find_variable(environment, name)) *text = *value;
  }
  contract.is_agent = find_variable(environment, "HADAL_LOCAL_RANK") == nullptr;
  HADAL_RETURN_IF_ERROR(check(identity));
  const bool has_others = identity.nnodes > 1 || (!contract.is_agent && identity.world_size > 1);
  if (has_others) HADAL_RETURN_IF_ERROR(complete(environment, identity));
  return contract;
}

std::vector<std::pair<std::string, std::string>> rank_environment(const RankContract& contract) {
  const RankIdentity& identity = contract.identity;
  std::vector<std::pair<std::string, std::string>> variables = {
      {"HADAL_RANK", std::to_string(identity.rank)},
      {"HADAL_WORLD_SIZE", std::to_string(identity.world_size)},
      {"HADAL_LOCAL_RANK", contract.is_agent ? "" : std::to_string(identity.local_rank)},
      {"HADAL_LOCAL_WORLD_SIZE", std::to_string(identity.local_world_size)},
      {"HADAL_NODE_RANK", std::to_string(identity.node_rank)},
      {"HADAL_NNODES", std::to_string(identity.nnodes)},
      {"HADAL_MASTER_ADDR", identity.master_addr},
      {"HADAL_MASTER_PORT", std::to_string(identity.master_port)},
      {"HADAL_GENERATION", std::to_string(identity.generation)},
      {"HADAL_IFACE", identity.interface_name},
      {"HADAL_AUTH_TOKEN", identity.token}};
  return variables;
}

}  // namespace hadal
