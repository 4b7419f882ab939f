#include "cli/launch_environment.h"

#include <sys/prctl.h>

#include <csignal>
#include <cstdlib>

#include "base/log.h"
#include "cli/config_registry.h"
#include "cli/launch_sources.h"
#include "cli/rank_contract.h"

namespace hadal {
namespace {

const std::string* find_variable(const Environment& environment, const std::string& name) {
  for (const auto& [known, value] : environment) {
    if (known == name && !value.empty()) return &value;
  }
  return nullptr;
}

// The user's, or else the 128 random bits that Open MPI gives all processes of a job and nobody else.
Expected<std::string> token_of_job(const Environment& environment, const RankOptions& options) {
  HADAL_ASSIGN_OR_RETURN(std::string token, read_rank_token(options.token_file));
  const std::string* key = find_variable(environment, "OMPI_MCA_orte_precondition_transports");
  return token.empty() && key != nullptr ? *key : token;
}

Status need_token(const std::string& token) {
  if (!token.empty()) return {};
  return make_error(
      ErrorCode::kInvalidArgument,
      "ranks that were started one by one need a secret: export {}=$(openssl rand -hex 16) before srun or "
      "mpiexec, or give --rank-token-file",
      kTokenVariable);
}

}  // namespace

Status adopt_launcher(const OptionRegistry& registry, const Environment& environment, RankOptions& options) {
  const auto is_set = [&](const char* name) {
    for (const RegisteredOption& option : registry.options()) {
      if (option.name() == name) return option.is_set();
    }
    return false;
  };
  const bool knows_size = is_set("tensor-parallel-size");
  HADAL_ASSIGN_OR_RETURN(const auto told, read_rank_contract(environment));
  if (told && !knows_size) options.tensor_parallel_size = told->identity.world_size;
  if (told || options.backend == "ray") return {};
  LaunchFlags flags{.is_other_node = options.headless, .master_addr = options.master_addr};
  if (is_set("nnodes")) flags.nnodes = options.nnodes;
  if (is_set("node-rank")) flags.node_rank = options.node_rank;
  if (options.master_port != 0) flags.master_port = options.master_port;
  HADAL_ASSIGN_OR_RETURN(const LaunchPlace place,
                         read_launch_place(environment, flags, knows_size ? options.world_size() : 0));
  for (const std::string& note : place.notes) log_warning("{}", note);
  if (place.scope == LaunchScope::kAlone) return {};
  if (place.ends_with_parent) prctl(PR_SET_PDEATHSIG, SIGTERM);

  const RankIdentity& identity = place.identity;
  const bool is_rank = place.scope == LaunchScope::kRank;
  if (!knows_size) options.tensor_parallel_size = is_rank ? identity.world_size : identity.nnodes;
  options.nnodes = identity.nnodes;
  options.node_rank = identity.node_rank;
  options.master_addr = identity.master_addr;
  options.master_port = identity.master_port;
  HADAL_ASSIGN_OR_RETURN(const std::string token, token_of_job(environment, options));
  if (!is_rank) {
    if (!token.empty()) ::setenv(kTokenVariable, token.c_str(), 1);
    log_info("started by {}: node {} of {}", place.source, identity.node_rank, identity.nnodes);
    return {};
  }
  RankContract contract{.identity = identity};
  contract.identity.interface_name = options.interface_name;
  HADAL_RETURN_IF_ERROR(need_token(token));
  contract.identity.token = token;
  for (const auto& [name, value] : rank_environment(contract)) ::setenv(name.c_str(), value.c_str(), 1);
  log_info("started by {}: rank {} of {}, node {} of {}", place.source, identity.rank, identity.world_size,
           identity.node_rank, identity.nnodes);
  return {};
}

}  // namespace hadal
