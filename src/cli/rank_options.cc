#include "cli/rank_options.h"

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "base/file.h"
#include "cli/config_registry.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxTokenBytes = 4096;

}  // namespace

void add_rank_options(OptionRegistry& registry, RankOptions& options, bool restarts) {
  registry.begin_group("Ranks");
  registry
      .add("--tensor-parallel-size", options.tensor_parallel_size,
           "Processes that share the work of each step; a power of two that the model's heads allow")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}).description(""))
      ->capture_default_str();
  registry.add("--enable-expert-parallel", options.enable_expert_parallel,
               "Give each rank whole experts instead of a slice of each");
  registry
      .add("--distributed-executor-backend", options.backend,
           "Who starts the ranks: mp (this program, on one machine), ray, mpi, external")
      ->check(CLI::IsMember({"mp", "ray", "mpi", "external"}))
      ->capture_default_str();
  registry.add("--nnodes", options.nnodes, "Machines; start this command on each")
      ->check(CLI::Range(1, 4096).description(""))
      ->capture_default_str();
  registry
      .add("--node-rank", options.node_rank,
           "Which of them this is; 0 has rank 0 and the HTTP server. To be given with --headless and to hadal worker")
      ->check(CLI::Range(0, 4095).description(""))
      ->capture_default_str();
  registry.add("--master-addr", options.master_addr, "Address of node 0 that the others reach");
  registry.add("--master-port", options.master_port, "Port of rank 0 for ranks; 0: 29501, or any on one machine")
      ->check(CLI::Range(0, 65535).description(""))
      ->capture_default_str();
  registry.add("--headless", options.headless, "No HTTP server here: for nodes other than 0");
  registry.add("--rank-interface", options.interface_name,
               "Network interface or own address for traffic between ranks [the one that leads to --master-addr]");
  registry.add("--rank-token-file", options.token_file,
               "File with the secret that ranks of different machines share [$HADAL_AUTH_TOKEN]");
  if (restarts) {
    registry
        .add("--restart-limit", options.restart_limit,
             "How often within 10 minutes lost ranks are started again before the server gives up")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 30).description(""))
        ->capture_default_str();
  } else {
    options.restart_limit = 0;
  }
  registry.add_seconds("--rank-timeout", options.rank_timeout,
                       "Seconds without an answer after which a rank is lost; more than a layer of a step takes");
  registry.add_seconds("--join-timeout", options.join_timeout, "Seconds that ranks have to start, load and join");
}

Status check_rank_options(const RankOptions& options) {
  if (options.node_rank >= options.nnodes) {
    return make_error(ErrorCode::kInvalidArgument, "--node-rank {} with --nnodes {}: nodes are counted from 0",
                      options.node_rank, options.nnodes);
  }
  if (options.nnodes > 1 && options.master_addr.empty() && options.backend != "ray") {
    return make_error(ErrorCode::kInvalidArgument,
                      "--nnodes {} needs --master-addr: the address of node 0 that the other nodes reach",
                      options.nnodes);
  }
  if (options.tensor_parallel_size % options.nnodes != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--tensor-parallel-size {} on --nnodes {}: every node has the same number of ranks",
                      options.tensor_parallel_size, options.nnodes);
  }
  if (options.headless && options.node_rank == 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--headless on node 0: rank 0 has the HTTP server; other nodes need --nnodes and --node-rank");
  }
  if (options.rank_timeout.count() < 100) {
    return make_error(ErrorCode::kInvalidArgument, "--rank-timeout must be at least 0.1 s");
  }
  return {};
}

Expected<std::string> read_rank_token(const std::string& token_file) {
  const char* variable = std::getenv(kTokenVariable);
  if (variable != nullptr && *variable != '\0') return std::string(variable);
  if (token_file.empty()) return std::string();
  auto text = read_file(token_file, kMaxTokenBytes);
  if (!text) return make_error(ErrorCode::kInvalidArgument, "--rank-token-file: {}", text.error().message);
  const size_t end = text->find_first_of("\r\n");
  std::string token = text->substr(0, end);
  if (token.empty()) return make_error(ErrorCode::kInvalidArgument, "--rank-token-file {} is empty", token_file);
  return token;
}

}  // namespace hadal
