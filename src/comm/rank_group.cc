#include "comm/rank_group.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <vector>

#include <fmt/ranges.h>

#include "comm/gloo_communicator.h"
#include "comm/hierarchical_communicator.h"
#include "comm/local_communicator.h"
#include "comm/net_address.h"
#include "comm/rank_card.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Of one of the two groups.
struct GroupKind {
  const char* name;
  milliseconds timeout;
  bool spins;
  int64_t slot_bytes;   // shared memory of a rank and round
  int64_t chunk_bytes;  // of a message between nodes
};
constexpr std::chrono::microseconds kNetworkSpin{100};  // some times the longest exchange of a decode step

Status check_identity(const RankIdentity& id) {
  const bool fits = id.world_size >= 1 && id.rank >= 0 && id.rank < id.world_size && id.local_world_size >= 1 &&
                    id.local_rank >= 0 && id.local_rank < id.local_world_size && id.local_world_size <= id.world_size &&
                    id.nnodes >= 1 && id.nnodes <= id.world_size && id.node_rank >= 0 && id.node_rank < id.nnodes &&
                    (id.nnodes > 1 || (id.local_world_size == id.world_size && id.local_rank == id.rank));
  if (fits) return {};
  return make_error(ErrorCode::kInvalidArgument,
                    "rank {} of {}, local rank {} of {}, node {} of {}: these contradict each other", id.rank,
                    id.world_size, id.local_rank, id.local_world_size, id.node_rank, id.nnodes);
}

class Joining {
 public:
  Joining(KeyValueStore& store, const RankIdentity& identity, const RankGroupOptions& options)
      : store_(store), id_(identity), options_(options), deadline_(Clock::now() + options.join_timeout) {}

  Expected<RankGroups> run();

 private:
  Status meet();
  Status check_one_machine() const;
  Expected<std::unique_ptr<Communicator>> join(const GroupKind& kind);
  Expected<std::unique_ptr<LocalGroup>> join_local(const GroupKind& kind);
  Expected<int> open_segment(const std::string& key) const;
  Expected<std::shared_ptr<GlooMesh>> connect(const GroupKind& kind);

  std::string key(std::string_view name) const { return fmt::format("group/{}/{}", id_.generation, name); }
  std::string node_key(std::string_view name) const { return key(fmt::format("node/{}/{}", id_.node_rank, name)); }
  int first_local() const { return id_.rank - id_.local_rank; }
  milliseconds left() const {
    return std::max(milliseconds(1), std::chrono::duration_cast<milliseconds>(deadline_ - Clock::now()));
  }
  // Shared memory inside nodes, if there is something to gain and all nodes are equal subtrees.
  bool has_local_groups() const {
    return id_.nnodes == 1 || (id_.local_world_size > 1 && can_be_hierarchical(id_.local_world_size) &&
                               std::all_of(cards_.begin(), cards_.end(), [&](const RankCard& card) {
                                 return card.local_world_size == id_.local_world_size;
                               }));
  }

  KeyValueStore& store_;
  const RankIdentity& id_;
  const RankGroupOptions& options_;
  const Clock::time_point deadline_;
  InterfaceAddress own_;
  std::vector<RankCard> cards_;
};

// Everybody shows a card, and reads everybody's.
Status Joining::meet() {
  const RankCard mine = own_card(id_, own_.address);
  HADAL_RETURN_IF_ERROR(store_.set(key(fmt::format("rank/{}", id_.rank)), mine.to_text()));
  std::vector<int> missing;
  for (int rank = 0; rank < id_.world_size; ++rank) {
    // One that never comes is waited for once; whether others lack too is only looked up then.
    const auto text =
        store_.get(key(fmt::format("rank/{}", rank)), missing.empty() ? left() : std::min(left(), milliseconds(50)));
    if (!text) {
      const bool store_works = store_.get(key(fmt::format("rank/{}", id_.rank)), milliseconds(1'000)).has_value();
      if (!store_works) return make_error(text.error().code, "{}", text.error().message);
      missing.push_back(rank);
      continue;
    }
    HADAL_ASSIGN_OR_RETURN(RankCard card, RankCard::from_text(*text));
    cards_.push_back(std::move(card));
  }
  if (!missing.empty()) {
    return make_error(ErrorCode::kUnavailable,
                      "rank {} of {} waited {} ms for rank(s) {}: not started, ended (see their logs), or without a "
                      "way to {}:{}",
                      id_.rank, id_.world_size, options_.join_timeout.count(), fmt::join(missing, ", "),
                      id_.master_addr, id_.master_port);
  }
  if (cards_[id_.rank].nonce != mine.nonce) {
    return make_error(ErrorCode::kInvalidArgument,
                      "two processes are rank {}: {} process {}, and {} process {}: give every process its own rank",
                      id_.rank, mine.host, mine.pid, cards_[id_.rank].host, cards_[id_.rank].pid);
  }
  return check_cards(cards_);
}

// Of those who say that they share a node; and of all, where the nodes talk through a loopback interface.
Status Joining::check_one_machine() const {
  const RankCard& mine = cards_[id_.rank];
  for (int rank = 0; rank < id_.world_size; ++rank) {
    const RankCard& card = cards_[rank];
    if (card.machine == mine.machine) continue;
    const std::string both = fmt::format("rank {} ({}) and rank {} ({})", id_.rank, mine.host, rank, card.host);
    if (card.node_rank == mine.node_rank && has_local_groups()) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{} are both told to be on node {}, but run on different machines or in containers that do not "
                        "see each other's processes: give each its own node rank",
                        both, mine.node_rank);
    }
    const auto boot = [](const std::string& machine) { return machine.substr(0, machine.find('/')); };
    if (own_.is_loopback && boot(card.machine) != boot(mine.machine)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{} are on different machines, but {} is a loopback address: name the interface between them",
                        both, own_.address);
    }
  }
  return {};
}

// The memory of the node's first rank, through its process: nothing has a name in a file system, and nothing is left
// when the ranks have ended.
Expected<int> Joining::open_segment(const std::string& key) const {
  HADAL_ASSIGN_OR_RETURN(const std::string where, store_.get(key, left()));
  int pid = 0, fd = 0;
  unsigned long long inode = 0;
  if (std::sscanf(where.c_str(), "%d %d %llu", &pid, &fd, &inode) != 3) {
    return make_error(ErrorCode::kCorrupt, "the place of the shared memory, {}, is damaged: other versions?", where);
  }
  const std::string path = fmt::format("/proc/{}/fd/{}", pid, fd);
  const int opened = open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct stat status {};
  if (opened >= 0 && fstat(opened, &status) == 0 && status.st_ino == inode) return opened;
  const std::string why = opened < 0 ? std::strerror(errno) : "another file is there by now";
  if (opened >= 0) close(opened);
  return make_error(ErrorCode::kIo,
                    "rank {} cannot open the memory shared by rank {} ({}): {}. Ranks of a node must run as the same "
                    "user and see each other's processes",
                    id_.rank, first_local(), path, why);
}

Expected<std::unique_ptr<LocalGroup>> Joining::join_local(const GroupKind& kind) {
  const SegmentSizes sizes{id_.local_world_size, kind.slot_bytes, 1 << 16};
  const std::string place = node_key(fmt::format("{}/segment", kind.name));
  int fd = -1;
  if (id_.local_rank != 0) {
    HADAL_ASSIGN_OR_RETURN(fd, open_segment(place));
  } else {
    HADAL_ASSIGN_OR_RETURN(fd, SharedSegment::create(sizes));
  }
  if (id_.local_rank == 0 && id_.local_world_size > 1) {
    struct stat status {};
    fstat(fd, &status);
    const Status told =
        store_.set(place, fmt::format("{} {} {}", getpid(), fd, static_cast<unsigned long long>(status.st_ino)));
    if (!told) {
      close(fd);
      return forward_error(Status(told));
    }
  }
  auto joined = join_local_group(
      fd, {.rank = id_.local_rank, .sizes = sizes, .timeout = left(), .first_rank = first_local(), .spin = kind.spins});
  close(fd);  // all have it, or the group has failed
  if (joined) (*joined)->set_timeout(kind.timeout);
  return joined;
}

Expected<std::shared_ptr<GlooMesh>> Joining::connect(const GroupKind& kind) {
  return GlooMesh::connect(store_, {.rank = id_.rank,
                                    .world_size = id_.world_size,
                                    .address = own_.address,
                                    .prefix = key(fmt::format("{}/", kind.name)),
                                    .timeout = kind.timeout,
                                    .join_timeout = left(),
                                    .spin = kind.spins ? kNetworkSpin : std::chrono::microseconds(0),
                                    .chunk_bytes = kind.chunk_bytes});
}

Expected<std::unique_ptr<Communicator>> Joining::join(const GroupKind& kind) {
  if (id_.nnodes == 1) return join_local(kind);
  HADAL_ASSIGN_OR_RETURN(std::shared_ptr<GlooMesh> mesh, connect(kind));
  std::vector<int> everybody(id_.world_size);
  std::iota(everybody.begin(), everybody.end(), 0);
  auto all = make_gloo_group(mesh, std::move(everybody), kind.timeout);
  if (!has_local_groups()) return all;
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<LocalGroup> local, join_local(kind));
  std::vector<int> same_place;
  for (int node = 0; node < id_.nnodes; ++node) same_place.push_back(node * id_.local_world_size + id_.local_rank);
  auto across = make_gloo_group(std::move(mesh), std::move(same_place), kind.timeout);
  return make_hierarchical({std::move(local), std::move(across), std::move(all)}, kind.timeout);
}

Expected<RankGroups> Joining::run() {
  HADAL_RETURN_IF_ERROR(check_identity(id_));
  if (id_.nnodes > 1) {
    HADAL_ASSIGN_OR_RETURN(own_, choose_interface(id_.master_addr, id_.interface_name));
    HADAL_RETURN_IF_ERROR(check_not_loopback(id_.master_addr, own_, id_.interface_name));
  }
  HADAL_RETURN_IF_ERROR(meet());
  HADAL_RETURN_IF_ERROR(check_one_machine());
  const GroupKind control{"control", options_.control_timeout, false, 1 << 16, 1 << 15};
  const GroupKind data{"data", options_.data_timeout, true, 1 << 20, 1 << 17};
  RankGroups groups;
  HADAL_ASSIGN_OR_RETURN(groups.control, join(control));
  HADAL_ASSIGN_OR_RETURN(groups.data, join(data));
  const std::string network = fmt::format("TCP ({} {})", own_.interface_name, own_.address);
  groups.transport = id_.nnodes == 1 ? "shared memory" : has_local_groups() ? "shared memory + " + network : network;
  return groups;
}

}  // namespace

std::string make_rank_token() {
  std::array<unsigned char, 16> bytes{};
  size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t got = getrandom(bytes.data() + at, bytes.size() - at, 0);
    if (got > 0) at += static_cast<size_t>(got);
  }
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

Expected<RankGroups> join_rank_groups(KeyValueStore& store, const RankIdentity& identity,
                                      const RankGroupOptions& options) {
  return Joining(store, identity, options).run();
}

}  // namespace hadal
