#include "cli/launch_sources.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <limits>

namespace hadal {
namespace {

// The names under which a launcher tells a process its place; null: it does not say. One that gives no tasks starts one
// process per node.
struct LaunchSource {
  const char* name;
  const char* sign;  // the variable that shows that it started this process
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
  const char* node_rank;
  const char* nnodes;
  const char* master_addr;
  bool is_mpi;            // may run inside a job of the others, whose variables then say nothing
  const char* one_rank;   // how to start one process per rank
  const char* by_blocks;  // how to make a node's ranks consecutive
  const char* address;    // how to find the first node's address
};

constexpr const char* kMpiAddress = "MPI does not tell it: add --master-addr with the address of rank 0's node";

constexpr LaunchSource kSources[] = {
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", nullptr, nullptr, nullptr, true, "mpirun -n", "mpirun --map-by slot", kMpiAddress},
    {"MPICH or Intel MPI", "PMI_RANK", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", nullptr, nullptr,
     nullptr, true, "mpiexec -n", "mpiexec -ppn with the ranks per node", kMpiAddress},
    {"Slurm", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", nullptr, "SLURM_NODEID", "SLURM_NNODES",
     nullptr, false, "srun --ntasks", "srun --distribution=block",
     "add --master-addr \"$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n 1)\""},
    {"LeaderWorkerSet", "LWS_WORKER_INDEX", nullptr, nullptr, nullptr, nullptr, "LWS_WORKER_INDEX", "LWS_GROUP_SIZE",
     "LWS_LEADER_ADDRESS", false, "spec.leaderWorkerTemplate.size:", "", "the controller sets it in every pod"},
};

// Where the processes that a launcher started stand. Tasks are processes.
struct Tasks {
  std::string source;
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  int local_size = 1;
  int node_rank = 0;
  int nnodes = 1;
  std::string master_addr;
  const LaunchSource* row = nullptr;  // null: the flags
};

const std::string* find(const Environment& environment, std::string_view name) {
  for (const auto& [known, value] : environment) {
    if (known == name && !value.empty()) return &value;
  }
  return nullptr;
}

std::string shown(const std::string& value) { return value.size() <= 64 ? value : value.substr(0, 64) + ".."; }

// A decimal number without sign or spaces, of [least, most].
Expected<int> parse_number(const std::string& name, const std::string& value, int least, int most) {
  int number = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  if (error != std::errc() || stop != end || number < least || number > most) {
    return make_error(ErrorCode::kInvalidArgument, "{}={} is not a number of {}..{}: start through the launcher again",
                      name, shown(value), least, most);
  }
  return number;
}

Expected<int> read_number(const Environment& environment, const LaunchSource& source, const char* name, int least) {
  const std::string* value = find(environment, name);
  if (value == nullptr) {
    return make_error(ErrorCode::kInvalidArgument, "{} is missing beside {}={} ({}): start through the launcher again",
                      name, source.sign, shown(*find(environment, source.sign)), source.name);
  }
  return parse_number(name, *value, least, kMostLaunchedRanks - 1 + least);
}

Status check_below(const char* name, int value, const char* bound_name, int bound) {
  if (value < bound) return {};
  return make_error(ErrorCode::kInvalidArgument, "{}={} must be below {}={}: start through the launcher again", name,
                    value, bound_name, bound);
}

constexpr size_t kMostAddressBytes = 255;  // of a DNS name

Status check_address(const char* name, const std::string& value) {
  const bool printable =
      std::all_of(value.begin(), value.end(), [](unsigned char byte) { return byte > ' ' && byte < 127; });
  if (printable && value.size() <= kMostAddressBytes) return {};
  return make_error(ErrorCode::kInvalidArgument, "{}={} must be at most {} printable characters without spaces", name,
                    shown(printable ? value : "(unprintable)"), kMostAddressBytes);
}

// A node's tasks must be consecutive and as many on each node, because ranks are.
Status check_blocks(const LaunchSource& source, const Tasks& tasks) {
  if (tasks.size % tasks.nnodes == 0 && tasks.local_size * tasks.nnodes == tasks.size &&
      tasks.rank == tasks.node_rank * tasks.local_size + tasks.local_rank) {
    return {};
  }
  return make_error(
      ErrorCode::kInvalidArgument,
      "{}: process {} of {} is number {} on node {} of {}; every node must have as many, with consecutive "
      "numbers: use {}",
      source.name, tasks.rank, tasks.size, tasks.local_rank, tasks.node_rank, tasks.nnodes, source.by_blocks);
}

Expected<Tasks> read_tasks(const Environment& environment, const LaunchSource& source) {
  Tasks tasks;
  tasks.row = &source;
  tasks.source = source.name;
  if (source.rank == nullptr) {
    HADAL_ASSIGN_OR_RETURN(tasks.nnodes, read_number(environment, source, source.nnodes, 1));
    HADAL_ASSIGN_OR_RETURN(tasks.node_rank, read_number(environment, source, source.node_rank, 0));
    HADAL_RETURN_IF_ERROR(check_below(source.node_rank, tasks.node_rank, source.nnodes, tasks.nnodes));
    tasks.rank = tasks.node_rank;
    tasks.size = tasks.nnodes;
  } else {
    HADAL_ASSIGN_OR_RETURN(tasks.size, read_number(environment, source, source.size, 1));
    HADAL_ASSIGN_OR_RETURN(tasks.rank, read_number(environment, source, source.rank, 0));
    HADAL_ASSIGN_OR_RETURN(tasks.local_rank, read_number(environment, source, source.local_rank, 0));
    HADAL_RETURN_IF_ERROR(check_below(source.rank, tasks.rank, source.size, tasks.size));
    HADAL_RETURN_IF_ERROR(check_below(source.local_rank, tasks.local_rank, source.size, tasks.size));
    if (source.nnodes != nullptr) {
      HADAL_ASSIGN_OR_RETURN(tasks.nnodes, read_number(environment, source, source.nnodes, 1));
      HADAL_ASSIGN_OR_RETURN(tasks.node_rank, read_number(environment, source, source.node_rank, 0));
      HADAL_RETURN_IF_ERROR(check_below(source.node_rank, tasks.node_rank, source.nnodes, tasks.nnodes));
      tasks.local_size = tasks.size / tasks.nnodes;
    } else {
      HADAL_ASSIGN_OR_RETURN(tasks.local_size, read_number(environment, source, source.local_size, 1));
      HADAL_RETURN_IF_ERROR(check_below(source.local_rank, tasks.local_rank, source.local_size, tasks.local_size));
      tasks.nnodes = std::max(1, tasks.size / tasks.local_size);
      tasks.node_rank = tasks.rank / tasks.local_size;
    }
    HADAL_RETURN_IF_ERROR(check_blocks(source, tasks));
  }
  if (source.master_addr != nullptr && find(environment, source.master_addr) != nullptr) {
    tasks.master_addr = *find(environment, source.master_addr);
    HADAL_RETURN_IF_ERROR(check_address(source.master_addr, tasks.master_addr));
  }
  return tasks;
}

// Two launchers that are both there, neither inside the other, must say the same.
Status check_agreement(const Environment& environment, const Tasks& one, const Tasks& other) {
  if (one.nnodes == other.nnodes && one.node_rank == other.node_rank && one.rank == other.rank &&
      one.size == other.size) {
    return {};
  }
  const auto say = [&](const LaunchSource& row) {
    const char* rank = row.rank != nullptr ? row.rank : row.node_rank;
    const char* size = row.size != nullptr ? row.size : row.nnodes;
    return fmt::format("{} ({}={}, {}={})", row.name, rank, *find(environment, rank), size, *find(environment, size));
  };
  return make_error(ErrorCode::kInvalidArgument, "{} and {} contradict each other: unset the variables of one",
                    say(*one.row), say(*other.row));
}

// Slurm's job variables are also there in the batch script itself, outside of any srun.
void note_job_without_step(const Environment& environment, std::vector<std::string>& notes) {
  const std::string* tasks = find(environment, "SLURM_NTASKS");
  if (tasks == nullptr || *tasks == "1" || find(environment, "SLURM_STEP_ID") != nullptr) return;
  notes.push_back(fmt::format("SLURM_NTASKS={} has no effect: this process was not started by srun", shown(*tasks)));
}

// The launcher that started this process, if there is one.
Expected<std::optional<Tasks>> read_launcher(const Environment& environment, std::vector<std::string>& notes) {
  std::optional<Tasks> chosen;
  for (const LaunchSource& source : kSources) {
    if (find(environment, source.sign) == nullptr) continue;
    if (chosen && chosen->row->is_mpi && !source.is_mpi) continue;
    const bool pmi_of_slurm = source.is_mpi && find(environment, source.local_rank) == nullptr &&
                              find(environment, "SLURM_STEP_ID") != nullptr;
    if (pmi_of_slurm) continue;  // srun --mpi=pmi2 sets PMI_RANK beside its own
    HADAL_ASSIGN_OR_RETURN(Tasks tasks, read_tasks(environment, source));
    if (chosen) {
      HADAL_RETURN_IF_ERROR(check_agreement(environment, *chosen, tasks));
    } else {
      chosen = std::move(tasks);
    }
  }
  if (!chosen) note_job_without_step(environment, notes);
  return chosen;
}

Expected<Tasks> tasks_of_flags(const LaunchFlags& flags) {
  Tasks tasks;
  tasks.source = "flags";
  tasks.nnodes = flags.nnodes.value_or(1);
  if (tasks.nnodes < 1 || tasks.nnodes > kMostLaunchedRanks) {
    return make_error(ErrorCode::kInvalidArgument, "--nnodes {} must be of 1..{}", tasks.nnodes, kMostLaunchedRanks);
  }
  if (tasks.nnodes > 1 && !flags.node_rank && flags.is_other_node) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--nnodes {} needs --node-rank on every node but the head's, 1..{}: which one is this?",
                      tasks.nnodes, tasks.nnodes - 1);
  }
  tasks.node_rank = flags.node_rank.value_or(0);
  if (tasks.node_rank < 0 || tasks.node_rank >= tasks.nnodes) {
    return make_error(ErrorCode::kInvalidArgument, "--node-rank {} must be of 0..{} (--nnodes {})", tasks.node_rank,
                      tasks.nnodes - 1, tasks.nnodes);
  }
  tasks.rank = tasks.node_rank;
  tasks.size = tasks.nnodes;
  return tasks;
}

Status check_flag(const char* flag, const std::optional<int>& value, const char* variable, int found,
                  const Tasks& tasks) {
  if (!value || *value == found) return {};
  return make_error(ErrorCode::kInvalidArgument, "{} {} contradicts {} ({} says {}): leave the flag out", flag, *value,
                    variable == nullptr ? "the launcher" : variable, tasks.source, found);
}

// One process per rank, or per node, or neither.
Expected<LaunchScope> scope_of(const Tasks& tasks, int num_ranks) {
  if (tasks.size == 1) return LaunchScope::kAlone;
  // As many ranks as nodes are still made by one agent each, which starts them again.
  const bool one_per_node = tasks.size == tasks.nnodes;
  if (one_per_node && num_ranks % tasks.nnodes == 0) return LaunchScope::kNode;
  if (tasks.size == num_ranks || num_ranks == 0) return LaunchScope::kRank;
  if (tasks.row == nullptr || tasks.row->rank == nullptr) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{} ranks cannot be shared evenly by {} nodes ({}): change "
                      "--tensor-parallel-size or {}",
                      num_ranks, tasks.nnodes, tasks.source, tasks.row == nullptr ? "--nnodes" : tasks.row->nnodes);
  }
  return make_error(ErrorCode::kInvalidArgument,
                    "{}={} processes on {} nodes are neither one per rank nor one per node, and --tensor-parallel-size "
                    "asks for {} ranks: use {} {}",
                    tasks.row->size, tasks.size, tasks.nnodes, num_ranks, tasks.row->one_rank, num_ranks);
}

Status fill_master(const LaunchFlags& flags, const Tasks& tasks, LaunchPlace& place) {
  RankIdentity& identity = place.identity;
  const std::string& address = flags.master_addr.empty() ? tasks.master_addr : flags.master_addr;
  HADAL_RETURN_IF_ERROR(check_address("--master-addr", address));
  if (address.empty() && identity.nnodes > 1) {
    return make_error(ErrorCode::kInvalidArgument, "the master address is missing, and there are {} nodes ({}): {}",
                      identity.nnodes, tasks.source,
                      tasks.row == nullptr ? "add --master-addr with the address of node 0" : tasks.row->address);
  }
  if (!address.empty()) identity.master_addr = address;
  const int port = flags.master_port.value_or(place.scope == LaunchScope::kAlone ? 0 : kRankMasterPort);
  const bool may_choose = place.scope == LaunchScope::kAlone;
  if (port < (may_choose ? 0 : 1) || port > std::numeric_limits<uint16_t>::max()) {
    return make_error(ErrorCode::kInvalidArgument, "--master-port {} must be of 1..65535", port);
  }
  identity.master_port = static_cast<uint16_t>(port);
  return {};
}

// The tasks that count: the launcher's, which flags may repeat but not contradict, or the flags'.
Expected<Tasks> choose_tasks(const Environment& environment, const LaunchFlags& flags,
                             std::vector<std::string>& notes) {
  HADAL_ASSIGN_OR_RETURN(std::optional<Tasks> launcher, read_launcher(environment, notes));
  if (!launcher) return tasks_of_flags(flags);
  const LaunchSource& row = *launcher->row;
  HADAL_RETURN_IF_ERROR(check_flag("--nnodes", flags.nnodes, row.nnodes, launcher->nnodes, *launcher));
  HADAL_RETURN_IF_ERROR(check_flag("--node-rank", flags.node_rank, row.node_rank, launcher->node_rank, *launcher));
  return *std::move(launcher);
}

}  // namespace

Expected<LaunchPlace> read_launch_place(const Environment& environment, const LaunchFlags& flags, int num_ranks) {
  LaunchPlace place;
  HADAL_ASSIGN_OR_RETURN(const Tasks tasks, choose_tasks(environment, flags, place.notes));
  HADAL_ASSIGN_OR_RETURN(place.scope, scope_of(tasks, num_ranks));
  RankIdentity& identity = place.identity;
  identity.nnodes = tasks.nnodes;
  identity.node_rank = tasks.node_rank;
  if (place.scope == LaunchScope::kRank) {
    identity.rank = tasks.rank;
    identity.world_size = tasks.size;
    identity.local_rank = tasks.local_rank;
    identity.local_world_size = tasks.local_size;
  } else {
    identity.world_size = num_ranks;
    identity.local_world_size = num_ranks / tasks.nnodes;
    identity.rank = tasks.node_rank * identity.local_world_size;
  }
  if (place.scope != LaunchScope::kAlone) place.source = tasks.source;
  place.ends_with_parent = tasks.row != nullptr && tasks.row->is_mpi;
  HADAL_RETURN_IF_ERROR(fill_master(flags, tasks, place));
  return place;
}

}  // namespace hadal
