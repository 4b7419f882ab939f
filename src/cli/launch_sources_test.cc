// What each launcher's variables mean, and what is said when they are damaged or contradict each other.
#include "cli/launch_sources.h"

#include <gmock/gmock.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>

#include "cli/launch_environment.h"
#include "cli/rank_contract.h"

namespace hadal {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Environment open_mpi(const char* rank, const char* size, const char* local_rank, const char* local_size) {
  return {{"OMPI_COMM_WORLD_RANK", rank},
          {"OMPI_COMM_WORLD_SIZE", size},
          {"OMPI_COMM_WORLD_LOCAL_RANK", local_rank},
          {"OMPI_COMM_WORLD_LOCAL_SIZE", local_size}};
}

Environment mpich(const char* rank, const char* size, const char* local_rank, const char* local_size) {
  return {{"PMI_RANK", rank}, {"PMI_SIZE", size}, {"MPI_LOCALRANKID", local_rank}, {"MPI_LOCALNRANKS", local_size}};
}

Environment slurm(const char* rank, const char* size, const char* local_rank, const char* node, const char* nnodes) {
  return {{"SLURM_STEP_ID", "0"},        {"SLURM_PROCID", rank}, {"SLURM_NTASKS", size},
          {"SLURM_LOCALID", local_rank}, {"SLURM_NODEID", node}, {"SLURM_NNODES", nnodes}};
}

Environment lws(const char* index, const char* size, const char* leader) {
  return {{"LWS_WORKER_INDEX", index}, {"LWS_GROUP_SIZE", size}, {"LWS_LEADER_ADDRESS", leader}};
}

Environment joined(Environment one, const Environment& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

LaunchFlags at(const char* master_addr) {
  LaunchFlags flags;
  flags.master_addr = master_addr;
  return flags;
}

LaunchFlags nodes(int nnodes, std::optional<int> node_rank, const char* master_addr = "") {
  LaunchFlags flags;
  flags.nnodes = nnodes;
  flags.node_rank = node_rank;
  flags.master_addr = master_addr;
  return flags;
}

// "rank 9/16 local 1/8 node 1/2 at head:29501", or the error.
std::string place(const Environment& environment, const LaunchFlags& flags, int num_ranks) {
  const auto found = read_launch_place(environment, flags, num_ranks);
  if (!found) return found.error().message;
  const char* scopes[] = {"alone", "node", "rank"};
  const RankIdentity& id = found->identity;
  return fmt::format("{} {}/{} local {}/{} node {}/{} at {}:{}{}", scopes[static_cast<int>(found->scope)], id.rank,
                     id.world_size, id.local_rank, id.local_world_size, id.node_rank, id.nnodes, id.master_addr,
                     id.master_port, found->source.empty() ? "" : " by " + found->source);
}

TEST(LaunchSources, NobodyStartedUs) {
  EXPECT_EQ(place({}, {}, 4), "alone 0/4 local 0/4 node 0/1 at 127.0.0.1:0");
  EXPECT_EQ(place({{"PATH", "/bin"}, {"SLURM_PROCID", ""}}, {}, 1), "alone 0/1 local 0/1 node 0/1 at 127.0.0.1:0");
  EXPECT_EQ(place({}, nodes(1, 0), 2), "alone 0/2 local 0/2 node 0/1 at 127.0.0.1:0");
}

TEST(LaunchSources, MpiStartsEveryRank) {
  EXPECT_EQ(place(open_mpi("1", "2", "1", "2"), {}, 2), "rank 1/2 local 1/2 node 0/1 at 127.0.0.1:29501 by Open MPI");
  EXPECT_EQ(place(open_mpi("1", "2", "1", "2"), {}, 0), "rank 1/2 local 1/2 node 0/1 at 127.0.0.1:29501 by Open MPI");
  EXPECT_EQ(place(open_mpi("9", "16", "1", "8"), at("head"), 16),
            "rank 9/16 local 1/8 node 1/2 at head:29501 by Open MPI");
  EXPECT_EQ(place(mpich("5", "6", "1", "2"), at("10.0.0.1"), 6),
            "rank 5/6 local 1/2 node 2/3 at 10.0.0.1:29501 by MPICH or Intel MPI");
}

TEST(LaunchSources, OneProcessPerNodeMakesItsRanks) {
  EXPECT_EQ(place(open_mpi("1", "2", "0", "1"), at("head"), 16),
            "node 8/16 local 0/8 node 1/2 at head:29501 by Open MPI");
  EXPECT_EQ(place(slurm("1", "2", "0", "1", "2"), at("head"), 16),
            "node 8/16 local 0/8 node 1/2 at head:29501 by Slurm");
  EXPECT_EQ(place(lws("1", "2", "hadal-0.hadal.default"), {}, 16),
            "node 8/16 local 0/8 node 1/2 at hadal-0.hadal.default:29501 by LeaderWorkerSet");
  EXPECT_EQ(place({}, nodes(2, 1, "head"), 16), "node 8/16 local 0/8 node 1/2 at head:29501 by flags");
  // As many ranks as nodes.
  EXPECT_EQ(place(lws("1", "2", "leader"), {}, 2), "node 1/2 local 0/1 node 1/2 at leader:29501 by LeaderWorkerSet");
}

TEST(LaunchSources, AWorkerNeedNotKnowTheNumberOfRanks) {
  EXPECT_EQ(place(lws("1", "2", "leader"), {}, 0), "node 0/0 local 0/0 node 1/2 at leader:29501 by LeaderWorkerSet");
  EXPECT_EQ(place({}, nodes(2, 1, "head"), 0), "node 0/0 local 0/0 node 1/2 at head:29501 by flags");
}

TEST(LaunchSources, SlurmCountsNodesAndTasks) {
  EXPECT_EQ(place(slurm("3", "4", "1", "1", "2"), at("head"), 4), "rank 3/4 local 1/2 node 1/2 at head:29501 by Slurm");
  EXPECT_EQ(place(slurm("1", "2", "1", "0", "1"), {}, 2), "rank 1/2 local 1/2 node 0/1 at 127.0.0.1:29501 by Slurm");
}

TEST(LaunchSources, TheInnerLauncherCounts) {
  const Environment job = slurm("0", "1", "0", "0", "1");  // mpirun's own place in the job
  EXPECT_EQ(place(joined(job, open_mpi("1", "2", "1", "2")), {}, 2),
            "rank 1/2 local 1/2 node 0/1 at 127.0.0.1:29501 by Open MPI");
  // srun --mpi=pmi2: Slurm's are complete, PMI's are not.
  EXPECT_EQ(place(joined(slurm("1", "2", "1", "0", "1"), {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}), {}, 2),
            "rank 1/2 local 1/2 node 0/1 at 127.0.0.1:29501 by Slurm");
}

TEST(LaunchSources, AJobWithoutStepIsOnlyNoted) {
  const Environment batch_script = {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_NNODES", "2"}};
  const auto found = read_launch_place(batch_script, {}, 4);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->scope, LaunchScope::kAlone);
  EXPECT_THAT(found->notes, testing::ElementsAre(AllOf(HasSubstr("SLURM_NTASKS=4"), HasSubstr("srun"))));
}

TEST(LaunchSources, FlagsMayRepeatButNotContradict) {
  const Environment pod = lws("1", "2", "leader");
  EXPECT_THAT(place(pod, nodes(2, 1), 16), HasSubstr("node 8/16"));
  EXPECT_THAT(place(pod, nodes(3, 1), 16), HasSubstr("--nnodes 3 contradicts LWS_GROUP_SIZE (LeaderWorkerSet says 2)"));
  EXPECT_THAT(place(pod, nodes(2, 0), 16), HasSubstr("--node-rank 0 contradicts LWS_WORKER_INDEX"));
  EXPECT_THAT(place(open_mpi("0", "2", "0", "2"), nodes(2, 0), 2),
              HasSubstr("--nnodes 2 contradicts the launcher (Open MPI says 1): leave the flag out"));
  EXPECT_THAT(place(pod, at("10.1.2.3"), 16), HasSubstr("at 10.1.2.3:29501"));  // another network's address
}

TEST(LaunchSources, TwoLaunchersMustAgree) {
  EXPECT_THAT(place(joined(open_mpi("1", "2", "1", "2"), mpich("1", "2", "1", "2")), {}, 2), HasSubstr("rank 1/2"));
  EXPECT_THAT(place(joined(open_mpi("1", "2", "1", "2"), mpich("0", "2", "0", "2")), {}, 2),
              AllOf(HasSubstr("OMPI_COMM_WORLD_RANK=1"), HasSubstr("PMI_RANK=0"), HasSubstr("unset")));
  EXPECT_THAT(place(joined(slurm("0", "2", "0", "0", "2"), lws("1", "2", "leader")), {}, 2),
              AllOf(HasSubstr("SLURM_PROCID=0"), HasSubstr("LWS_WORKER_INDEX=1")));
}

TEST(LaunchSources, DamagedNumbersAreNamed) {
  for (const char* damaged : {"-1", "x", "1x", " 1", "+1", "0x1", "1.0", "4096", "99999999999999999999", "1\n"}) {
    EXPECT_THAT(place(open_mpi(damaged, "2", "1", "2"), {}, 2), HasSubstr("OMPI_COMM_WORLD_RANK=")) << damaged;
    EXPECT_THAT(place(lws(damaged, "2", "leader"), {}, 2), HasSubstr("LWS_WORKER_INDEX=")) << damaged;
    EXPECT_THAT(place(slurm("0", "1", "0", damaged, "1"), {}, 1), HasSubstr("SLURM_NODEID=")) << damaged;
  }
  for (const char* damaged : {"0", "-2", "", "4097", "two"}) {
    EXPECT_THAT(place(open_mpi("0", damaged, "0", "1"), {}, 2), HasSubstr("OMPI_COMM_WORLD_SIZE")) << damaged;
    EXPECT_THAT(place(mpich("0", "1", "0", damaged), {}, 2), HasSubstr("MPI_LOCALNRANKS")) << damaged;
    EXPECT_THAT(place(lws("0", damaged, "leader"), {}, 2), HasSubstr("LWS_GROUP_SIZE")) << damaged;
  }
  EXPECT_LT(place(open_mpi(std::string(100'000, '9').c_str(), "2", "1", "2"), {}, 2).size(), 300u);
}

TEST(LaunchSources, IncompleteSourcesAreNamed) {
  EXPECT_THAT(place({{"OMPI_COMM_WORLD_RANK", "0"}}, {}, 2),
              AllOf(HasSubstr("OMPI_COMM_WORLD_SIZE is missing"), HasSubstr("OMPI_COMM_WORLD_RANK=0")));
  EXPECT_THAT(place({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}}, {}, 2), HasSubstr("MPI_LOCALRANKID is missing"));
  EXPECT_THAT(place({{"LWS_WORKER_INDEX", "0"}}, {}, 2), HasSubstr("LWS_GROUP_SIZE is missing"));
  EXPECT_THAT(place({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "0"}}, {}, 2), HasSubstr("SLURM_NTASKS is missing"));
}

TEST(LaunchSources, RanksAreBelowTheirNumberAndConsecutiveOnANode) {
  EXPECT_THAT(place(open_mpi("2", "2", "0", "2"), {}, 2),
              HasSubstr("OMPI_COMM_WORLD_RANK=2 must be below OMPI_COMM_WORLD_SIZE=2"));
  EXPECT_THAT(place(lws("2", "2", "leader"), {}, 2), HasSubstr("LWS_WORKER_INDEX=2 must be below LWS_GROUP_SIZE=2"));
  EXPECT_THAT(place(slurm("1", "4", "0", "1", "2"), at("head"), 4), HasSubstr("srun --distribution=block"));
  EXPECT_THAT(place(slurm("2", "3", "1", "1", "2"), at("head"), 3), HasSubstr("every node must have as many"));
  EXPECT_THAT(place(open_mpi("1", "4", "0", "2"), at("head"), 4), HasSubstr("mpirun --map-by slot"));
  EXPECT_THAT(place(open_mpi("0", "2", "0", "5"), at("head"), 2), HasSubstr("every node must have as many"));
}

TEST(LaunchSources, NumbersOfRanksThatFitNeitherWay) {
  EXPECT_THAT(place(open_mpi("0", "3", "0", "3"), {}, 4),
              AllOf(HasSubstr("OMPI_COMM_WORLD_SIZE=3"), HasSubstr("asks for 4 ranks"), HasSubstr("mpirun -n 4")));
  EXPECT_THAT(place(slurm("0", "4", "0", "0", "2"), at("head"), 16), HasSubstr("srun --ntasks 16"));
  EXPECT_THAT(place({}, nodes(3, 0, "head"), 16),
              AllOf(HasSubstr("16 ranks cannot be shared evenly by 3 nodes"), HasSubstr("--nnodes")));
  EXPECT_THAT(place(lws("0", "3", "leader"), {}, 16), HasSubstr("LWS_GROUP_SIZE"));
}

TEST(LaunchSources, SeveralNodesNeedAnAddress) {
  EXPECT_THAT(place(slurm("0", "2", "0", "0", "2"), {}, 2), HasSubstr("scontrol show hostnames"));
  EXPECT_THAT(place(open_mpi("0", "4", "0", "2"), {}, 4), HasSubstr("--master-addr with the address of rank 0's node"));
  EXPECT_THAT(place({}, nodes(2, 0), 2), HasSubstr("--master-addr"));
  EXPECT_THAT(place(lws("0", "2", ""), {}, 2), HasSubstr("master address is missing"));
  EXPECT_THAT(place({}, nodes(2, 0, "two words"), 2), HasSubstr("without spaces"));
  EXPECT_THAT(place(lws("0", "2", std::string(256, 'a').c_str()), {}, 2), HasSubstr("LWS_LEADER_ADDRESS"));
}

TEST(LaunchSources, OnlyTheNodeWithTheServerIsNodeZeroUnasked) {
  LaunchFlags flags = nodes(2, std::nullopt, "head");
  EXPECT_EQ(place({}, flags, 4), "node 0/4 local 0/2 node 0/2 at head:29501 by flags");
  flags.is_other_node = true;
  EXPECT_THAT(place({}, flags, 4), HasSubstr("--nnodes 2 needs --node-rank on every node but the head's, 1..1"));
  flags.node_rank = 1;
  EXPECT_EQ(place({}, flags, 4), "node 2/4 local 0/2 node 1/2 at head:29501 by flags");
  // A launcher knows the node, also of a pod whose number of nodes is repeated as a flag.
  flags.node_rank = std::nullopt;
  EXPECT_THAT(place(lws("1", "2", "leader"), flags, 4), HasSubstr("node 1/2"));
  EXPECT_THAT(place(lws("1", "2", "leader"), nodes(2, std::nullopt), 4), HasSubstr("node 1/2"));
}

TEST(LaunchSources, FlagsAreChecked) {
  EXPECT_THAT(place({}, nodes(0, 0), 2), HasSubstr("--nnodes 0 must be of 1..4096"));
  EXPECT_THAT(place({}, nodes(2, 2, "head"), 2), HasSubstr("--node-rank 2 must be of 0..1"));
  EXPECT_THAT(place({}, nodes(2, -1, "head"), 2), HasSubstr("--node-rank -1"));
  LaunchFlags flags = nodes(2, 0, "head");
  for (const int port : {0, -1, 65536}) {
    flags.master_port = port;
    EXPECT_THAT(place({}, flags, 2), HasSubstr("--master-port")) << port;
  }
  flags.master_port = 6000;
  EXPECT_THAT(place({}, flags, 2), HasSubstr("at head:6000"));
}

// The rank options of a command, and what a launcher makes of them.
class Adopted {
 public:
  explicit Adopted(std::vector<std::string> arguments = {}) {
    add_rank_options(registry_, options);
    std::reverse(arguments.begin(), arguments.end());
    app_.parse(std::move(arguments));
    std::vector<std::string> warnings;
    EXPECT_TRUE(apply_sources(registry_, {}, warnings));
  }
  ~Adopted() {
    for (const auto& [name, value] : rank_environment({})) ::unsetenv(name.c_str());
  }
  // The error's message, or "".
  std::string adopt(const Environment& environment) {
    const Status status = adopt_launcher(registry_, environment, options);
    return status ? "" : status.error().message;
  }
  static std::optional<RankContract> contract() { return read_rank_contract(current_environment()).value(); }

 private:
  CLI::App app_;
  OptionRegistry registry_{app_};

 public:
  RankOptions options;
};

TEST(AdoptLauncher, OneProcessPerNodeBecomesFlags) {
  Adopted pod({"--tensor-parallel-size=4"});
  EXPECT_EQ(pod.adopt(lws("1", "2", "leader")), "");
  EXPECT_EQ(pod.options.nnodes, 2);
  EXPECT_EQ(pod.options.node_rank, 1);
  EXPECT_EQ(pod.options.master_addr, "leader");
  EXPECT_EQ(pod.options.master_port, 29501);
  EXPECT_FALSE(Adopted::contract());
}

TEST(AdoptLauncher, OneProcessPerRankBecomesTheContract) {
  Adopted rank;
  const Environment key = {{"OMPI_MCA_orte_precondition_transports", "0123-4567"}};
  EXPECT_EQ(rank.adopt(joined(open_mpi("1", "2", "1", "2"), key)), "");
  EXPECT_EQ(rank.options.tensor_parallel_size, 2);
  const auto contract = Adopted::contract();
  ASSERT_TRUE(contract);
  EXPECT_FALSE(contract->is_agent);
  EXPECT_EQ(contract->identity.rank, 1);
  EXPECT_EQ(contract->identity.local_world_size, 2);
  EXPECT_EQ(contract->identity.master_port, 29501);
  EXPECT_EQ(contract->identity.token, "0123-4567");
}

TEST(AdoptLauncher, RanksThatAreStartedOneByOneNeedASecret) {
  Adopted rank({"--tensor-parallel-size=2"});
  EXPECT_THAT(rank.adopt(slurm("0", "2", "0", "0", "1")),
              AllOf(HasSubstr("HADAL_AUTH_TOKEN"), HasSubstr("--rank-token-file")));
  EXPECT_FALSE(Adopted::contract());
}

TEST(AdoptLauncher, NothingChangesWithRayOrAContractOrAlone) {
  for (const char* backend : {"--distributed-executor-backend=ray", "--distributed-executor-backend=mp"}) {
    Adopted alone({backend, "--tensor-parallel-size=2"});
    const Environment others = std::string(backend).ends_with("ray") ? lws("1", "2", "leader") : Environment{};
    EXPECT_EQ(alone.adopt(others), "");
    EXPECT_EQ(alone.options.nnodes, 1);
  }
  Adopted told;
  const Environment place = {{"HADAL_RANK", "0"}, {"HADAL_WORLD_SIZE", "4"}};
  EXPECT_EQ(told.adopt(joined(lws("1", "2", "leader"), place)), "");
  EXPECT_EQ(told.options.nnodes, 1);
  EXPECT_EQ(told.options.tensor_parallel_size, 4) << "as many ranks as the contract says";
  Adopted flag({"--tensor-parallel-size=2"});
  EXPECT_EQ(flag.adopt(place), "");
  EXPECT_EQ(flag.options.tensor_parallel_size, 2) << "the server refuses it, naming both";
}

TEST(AdoptLauncher, TheNodeRankIsZeroUnlessHeadless) {
  Adopted head({"--tensor-parallel-size=2", "--nnodes=2", "--master-addr=h"});
  EXPECT_EQ(head.adopt({}), "");
  EXPECT_EQ(head.options.node_rank, 0);
  EXPECT_TRUE(check_rank_options(head.options));
  Adopted other({"--tensor-parallel-size=2", "--nnodes=2", "--master-addr=h", "--headless"});
  EXPECT_THAT(other.adopt({}), HasSubstr("--nnodes 2 needs --node-rank"));
  Adopted second({"--tensor-parallel-size=2", "--nnodes=2", "--master-addr=h", "--headless", "--node-rank=1"});
  EXPECT_EQ(second.adopt({}), "");
  EXPECT_EQ(second.options.node_rank, 1);
}

TEST(AdoptLauncher, ContradictionsAreErrors) {
  Adopted pod({"--tensor-parallel-size=4", "--nnodes=3", "--node-rank=1"});
  EXPECT_THAT(pod.adopt(lws("1", "2", "leader")), HasSubstr("--nnodes 3 contradicts LWS_GROUP_SIZE"));
  Adopted headless({"--tensor-parallel-size=2", "--nnodes=2", "--node-rank=0", "--master-addr=h", "--headless"});
  EXPECT_EQ(headless.adopt({}), "");
  EXPECT_THAT(check_rank_options(headless.options).error().message, HasSubstr("--headless on node 0"));
}

}  // namespace
}  // namespace hadal
