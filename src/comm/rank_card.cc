#include "comm/rank_card.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>

namespace hadal {
namespace {

constexpr size_t kMostFieldBytes = 256;

std::string machine_name() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::array<char, 64> space{};
  const ssize_t length = readlink("/proc/self/ns/pid", space.data(), space.size());
  return boot + "/" + std::string(space.data(), static_cast<size_t>(std::max<ssize_t>(0, length)));
}

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace

std::string RankCard::to_text() const {
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}", node_rank, nnodes, local_rank, local_world_size, pid, host,
                     machine, address, nonce);
}

Expected<RankCard> RankCard::from_text(std::string_view text) {
  RankCard card;
  const std::array<int*, 5> numbers = {&card.node_rank, &card.nnodes, &card.local_rank, &card.local_world_size,
                                       &card.pid};
  const std::array<std::string*, 4> strings = {&card.host, &card.machine, &card.address, &card.nonce};
  const auto corrupt = [] { return make_error(ErrorCode::kCorrupt, "a rank's card is damaged: other versions?"); };
  std::vector<std::string_view> fields;
  for (size_t at = 0; at <= text.size() && fields.size() <= numbers.size() + strings.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    fields.push_back(text.substr(at, end - at));
    if (fields.back().size() > kMostFieldBytes) return corrupt();
    at = end + 1;
  }
  if (fields.size() != numbers.size() + strings.size()) return corrupt();
  for (size_t i = 0; i < numbers.size(); ++i) {
    const std::string_view field = fields[i];
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), *numbers[i]);
    if (error != std::errc() || end != field.data() + field.size() || *numbers[i] < 0) return corrupt();
  }
  for (size_t i = 0; i < strings.size(); ++i) *strings[i] = fields[numbers.size() + i];
  return card;
}

RankCard own_card(const RankIdentity& identity, std::string address) {
  return {.node_rank = identity.node_rank,
          .nnodes = identity.nnodes,
          .local_rank = identity.local_rank,
          .local_world_size = identity.local_world_size,
          .pid = getpid(),
          .host = host_name(),
          .machine = machine_name(),
          .address = std::move(address),
          .nonce = make_rank_token()};
}

Status check_cards(const std::vector<RankCard>& cards) {
  const auto shown = [&](size_t rank) {
    const RankCard& card = cards[rank];
    return fmt::format("rank {} ({}, process {}): local rank {} of {} on node {} of {}", rank, card.host, card.pid,
                       card.local_rank, card.local_world_size, card.node_rank, card.nnodes);
  };
  for (size_t rank = 0; rank < cards.size(); ++rank) {
    const RankCard& card = cards[rank];
    const RankCard& before = cards[rank == 0 ? 0 : rank - 1];
    const bool opens_node = rank == 0 || before.local_rank + 1 == before.local_world_size;
    const bool fits = card.nnodes == cards[0].nnodes &&
                      (opens_node ? card.node_rank == (rank == 0 ? 0 : before.node_rank + 1) && card.local_rank == 0
                                  : card.node_rank == before.node_rank && card.local_rank == before.local_rank + 1 &&
                                        card.local_world_size == before.local_world_size);
    if (fits && card.local_world_size > card.local_rank) continue;
    return make_error(ErrorCode::kInvalidArgument,
                      "the ranks' places do not fit together: {}; {}. Ranks of a node must be consecutive, and every "
                      "process must be told the same layout",
                      shown(rank == 0 ? 0 : rank - 1), shown(rank));
  }
  const RankCard& last = cards.back();
  if (last.local_rank + 1 == last.local_world_size && last.node_rank + 1 == last.nnodes) return {};
  return make_error(ErrorCode::kInvalidArgument, "the last of {} ranks is not the last of its node: {}", cards.size(),
                    shown(cards.size() - 1));
}

}  // namespace hadal
