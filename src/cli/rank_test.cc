// Flags, contract and configuration of ranks, and their processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <future>
#include <mutex>

#include "base/json.h"
#include "cli/config_registry.h"
#include "cli/launch_plan.h"
#include "cli/rank_config.h"
#include "cli/rank_contract.h"
#include "cli/rank_keys.h"
#include "cli/rank_processes.h"

namespace hadal {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const Environment kSecondNode = {{"HADAL_RANK", "2"},        {"HADAL_WORLD_SIZE", "4"},
                                 {"HADAL_NODE_RANK", "1"},   {"HADAL_NNODES", "2"},
                                 {"HADAL_MASTER_ADDR", "h"}, {"HADAL_MASTER_PORT", "29501"},
                                 {"HADAL_GENERATION", "3"},  {"HADAL_LOCAL_WORLD_SIZE", "2"},
                                 {"HADAL_AUTH_TOKEN", "t"},  {"HADAL_IFACE", "eth1"}};

Environment with(Environment environment, const std::string& name, const std::string& value) {
  for (auto& [known, old] : environment) {
    if (known == name) {
      old = value;
      return environment;
    }
  }
  environment.emplace_back(name, value);
  return environment;
}

TEST(RankContract, IsReadAndGivenOn) {
  EXPECT_FALSE(read_rank_contract({{"PATH", "/bin"}, {"HADAL_RANK", ""}}).value()) << "nobody said a place";
  const auto agent = read_rank_contract(kSecondNode).value();
  ASSERT_TRUE(agent);
  EXPECT_TRUE(agent->is_agent) << "no HADAL_LOCAL_RANK";
  EXPECT_EQ(agent->identity.rank, 2);
  EXPECT_EQ(agent->identity.generation, 3);
  EXPECT_EQ(agent->identity.master_port, 29501);
  EXPECT_EQ(agent->identity.interface_name, "eth1");
  RankContract child = *agent;
  child.is_agent = false;
  child.identity.rank = 3;
  child.identity.local_rank = 1;
  const auto read = read_rank_contract(rank_environment(child)).value();
  ASSERT_TRUE(read);
  EXPECT_FALSE(read->is_agent);
  EXPECT_EQ(read->identity.local_rank, 1);
  EXPECT_EQ(rank_environment(*read), rank_environment(child));
  EXPECT_TRUE(read_rank_contract(rank_environment(*agent)).value()->is_agent);
}

TEST(RankContract, ContradictionsAreNamed) {
  const std::pair<const char*, const char*> table[] = {
      {"HADAL_RANK", "4"},        {"HADAL_RANK", "-1"},  {"HADAL_RANK", "two"},       {"HADAL_WORLD_SIZE", "0"},
      {"HADAL_NODE_RANK", "2"},   {"HADAL_NNODES", "1"}, {"HADAL_LOCAL_RANK", "2"},   {"HADAL_LOCAL_RANK", "1x"},
      {"HADAL_MASTER_PORT", "0"}, {"HADAL_RANK", "3"},   {"HADAL_MASTER_PORT", "1e9"}};
  for (const auto& [name, value] : table) {
    const auto read = read_rank_contract(with(kSecondNode, name, value));
    ASSERT_FALSE(read) << name << "=" << value;
    EXPECT_EQ(read.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(read.error().message, HasSubstr("HADAL_"));
  }
}

TEST(RankContract, WhatIsLeftOut) {
  const auto agent = read_rank_contract({{"HADAL_RANK", "0"}, {"HADAL_WORLD_SIZE", "2"}}).value();
  ASSERT_TRUE(agent);
  EXPECT_EQ(agent->identity.local_world_size, 2) << "all ranks of the only node";
  EXPECT_EQ(agent->identity.master_port, 0) << "its children are told what it chose";
  EXPECT_EQ(read_rank_contract(with(kSecondNode, "HADAL_LOCAL_WORLD_SIZE", "")).value()->identity.local_world_size, 2);
  EXPECT_EQ(read_rank_contract(with(kSecondNode, "HADAL_MASTER_PORT", "")).value()->identity.master_port, 29501);
}

TEST(RankContract, IncompleteOnesNameWhatIsMissing) {
  struct Case {
    Environment environment;
    const char* message;
  };
  const Case table[] = {
      {{{"HADAL_RANK", "0"}}, "without HADAL_WORLD_SIZE"},
      {{{"HADAL_WORLD_SIZE", "2"}}, "HADAL_WORLD_SIZE=2 without HADAL_RANK"},
      {{{"HADAL_LOCAL_RANK", "x"}}, "HADAL_LOCAL_RANK=x without HADAL_RANK"},
      {{{"HADAL_RANK", "1"}, {"HADAL_WORLD_SIZE", "2"}}, "HADAL_RANK=1 contradicts HADAL_NODE_RANK=0"},
      {{{"HADAL_RANK", "0"}, {"HADAL_WORLD_SIZE", "2"}, {"HADAL_LOCAL_WORLD_SIZE", "1"}}, "HADAL_LOCAL_WORLD_SIZE=1"},
      {{{"HADAL_RANK", "1"}, {"HADAL_WORLD_SIZE", "2"}, {"HADAL_LOCAL_RANK", "1"}}, "without HADAL_AUTH_TOKEN"},
      {with(kSecondNode, "HADAL_MASTER_ADDR", ""), "without HADAL_MASTER_ADDR"},
      {with(kSecondNode, "HADAL_AUTH_TOKEN", ""), "without HADAL_AUTH_TOKEN"},
  };
  for (const Case& c : table) {
    const auto read = read_rank_contract(c.environment);
    ASSERT_FALSE(read) << c.message;
    EXPECT_EQ(read.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(read.error().message, HasSubstr(c.message));
  }
}

TEST(RankOptions, ValuesThatCannotGoTogether) {
  struct Case {
    RankOptions options;
    const char* message;  // null: fine
  };
  const Case table[] = {
      {{}, nullptr},
      {{.tensor_parallel_size = 4, .nnodes = 2, .master_addr = "h"}, nullptr},
      {{.tensor_parallel_size = 4, .nnodes = 2, .node_rank = 1, .master_addr = "h", .headless = true}, nullptr},
      {{.tensor_parallel_size = 4, .nnodes = 2}, "--master-addr"},
      {{.tensor_parallel_size = 2, .nnodes = 2, .node_rank = 2, .master_addr = "h"}, "--node-rank 2"},
      {{.tensor_parallel_size = 2, .nnodes = 4, .master_addr = "h"}, "same number"},
      {{.headless = true}, "--headless on node 0"},
      {{.rank_timeout = std::chrono::milliseconds(1)}, "--rank-timeout"},
  };
  for (const Case& c : table) {
    const Status status = check_rank_options(c.options);
    EXPECT_EQ(status.has_value(), c.message == nullptr);
    if (c.message != nullptr) {
      EXPECT_THAT(status.error().message, HasSubstr(c.message));
    }
  }
}

TEST(RankOptions, FlagsHaveVllmsNames) {
  CLI::App app;
  OptionRegistry registry(app);
  RankOptions options;
  add_rank_options(registry, options);
  app.parse(
      "--tensor-parallel-size 16 --enable-expert-parallel --distributed-executor-backend ray --nnodes 2 "
      "--node-rank 1 --master-addr 10.0.0.1 --master-port 1234 --headless --rank-timeout 2.5");
  EXPECT_EQ(options.tensor_parallel_size, 16);
  EXPECT_TRUE(options.enable_expert_parallel && options.headless);
  EXPECT_EQ(options.backend, "ray");
  EXPECT_EQ(options.nnodes, 2);
  EXPECT_EQ(options.node_rank, 1);
  EXPECT_EQ(options.master_port, 1234);
  EXPECT_EQ(options.rank_timeout, std::chrono::milliseconds(2500));
  EXPECT_FALSE(make_launcher("mpii"));
  EXPECT_EQ(make_launcher("mp").value(), nullptr);
}

ServeOptions unusual_options() {
  ServeOptions options;
  options.model = "relative/folder";
  options.numerics = "gaudi2";
  options.num_blocks = 77;
  options.max_itl_ms = 12.5;
  options.num_threads = 3;
  options.ranks.tensor_parallel_size = 8;
  options.ranks.enable_expert_parallel = true;
  options.ranks.rank_timeout = std::chrono::milliseconds(1234);
  options.calibrated_world_sizes = {8, 16};
  return options;
}

TEST(RankConfig, ArrivesWhole) {
  const ServeOptions read = parse_rank_config(write_rank_config(unusual_options(), "avx512")).value();
  EXPECT_EQ(read.isa, "avx512");
  EXPECT_TRUE(read.model.starts_with("/") && read.model.ends_with("/relative/folder")) << read.model;
  EXPECT_EQ(read.numerics, "gaudi2");
  EXPECT_EQ(read.num_blocks, 77);
  EXPECT_EQ(read.max_itl_ms, 12.5);
  EXPECT_EQ(read.num_threads, 3);
  EXPECT_EQ(read.ranks.tensor_parallel_size, 8);
  EXPECT_TRUE(read.ranks.enable_expert_parallel);
  EXPECT_EQ(read.ranks.rank_timeout, std::chrono::milliseconds(1234));
  EXPECT_EQ(read.calibrated_world_sizes, (std::vector<int64_t>{8, 16}));
}

// A worker without the head's variables would compute other numbers.
TEST(RankConfig, VariablesThatDecideAboutNumbersAreRankZeros) {
  ASSERT_EQ(setenv("INC_FORCE_NAIVE_SCALING", "1", 1), 0);
  ASSERT_EQ(setenv("INC_MEASUREMENT_DUMP_PATH_PREFIX", "relative/measured", 1), 0);
  const std::string config = write_rank_config(unusual_options(), "avx512");
  ASSERT_EQ(unsetenv("INC_FORCE_NAIVE_SCALING"), 0);
  ASSERT_EQ(unsetenv("INC_MEASUREMENT_DUMP_PATH_PREFIX"), 0);
  ASSERT_EQ(setenv("VLLM_ENABLE_RUNTIME_DEQUANT", "1", 1), 0);  // of the worker alone
  const ServeOptions read = parse_rank_config(config).value();
  EXPECT_STREQ(read.numerics_variable("INC_FORCE_NAIVE_SCALING"), "1");
  EXPECT_TRUE(std::string_view(read.numerics_variable("INC_MEASUREMENT_DUMP_PATH_PREFIX")).starts_with("/"));
  EXPECT_EQ(read.numerics_variable("VLLM_ENABLE_RUNTIME_DEQUANT"), nullptr);
  EXPECT_STREQ(ServeOptions().numerics_variable("VLLM_ENABLE_RUNTIME_DEQUANT"), "1");
  ASSERT_EQ(unsetenv("VLLM_ENABLE_RUNTIME_DEQUANT"), 0);
}

TEST(RankConfig, DamageIsNamed) {
  const std::string whole = write_rank_config(unusual_options(), "avx512");
  EXPECT_FALSE(parse_rank_config(""));
  EXPECT_FALSE(parse_rank_config("[]"));
  EXPECT_FALSE(parse_rank_config(whole.substr(0, whole.size() / 2)));
  const Json json = parse_json(whole).value();
  for (const auto& [name, value] : json.items()) {
    Json damaged = json;
    damaged.erase(name);
    EXPECT_THAT(parse_rank_config(damaged.dump()).error().message, HasSubstr(name));
    damaged[name] = Json::array({"8"});
    EXPECT_THAT(parse_rank_config(damaged.dump()).error().message, HasSubstr(name));
  }
  Json more = json;
  more["from_the_future"] = 1;
  EXPECT_THAT(parse_rank_config(more.dump()).error().message, HasSubstr("from_the_future"));
}

TEST(RankReport, ArrivesWhole) {
  const RankReport report{
      .nonce = "n", .error = "e \"quoted\"", .pid = 12, .host = "h", .num_threads = 3, .memory_bytes = 1ull << 40};
  const RankReport read = parse_rank_report(write_rank_report(report)).value();
  EXPECT_EQ(read.nonce, "n");
  EXPECT_EQ(read.error, report.error);
  EXPECT_EQ(read.pid, 12);
  EXPECT_EQ(read.memory_bytes, 1ull << 40);
  for (const char* damaged : {"", "{}", "[1]", "{\"nonce\":1,\"error\":\"\",\"host\":\"\"}"}) {
    EXPECT_FALSE(parse_rank_report(damaged)) << damaged;
  }
}

TEST(RankToEnd, ArrivesWhole) {
  const RankToEnd read = parse_rank_to_end(write_rank_to_end({.rank = 3, .pid = 4711})).value();
  EXPECT_EQ(read.rank, 3);
  EXPECT_EQ(read.pid, 4711);
  for (const char* damaged : {"", "3 4711", "[3]", "{\"rank\":3}", "{\"rank\":3,\"pid\":\"4711\"}"}) {
    EXPECT_FALSE(parse_rank_to_end(damaged)) << damaged;
  }
}

// A child of RankProcesses is this test program; it runs one of these.
bool is_child(const char* what) {
  const char* variable = std::getenv("RANK_TEST_CHILD");
  return variable != nullptr && std::string(variable) == what;
}
TEST(RankChild, Talks) {
  if (!is_child("talks")) return;
  for (int i = 0; i < 300; ++i) std::fprintf(stderr, "line %d\n", i);
  std::fprintf(stderr, "%s\nno end", std::string(10'000, 'x').c_str());
  std::_Exit(7);
}
TEST(RankChild, Sleeps) {
  if (!is_child("sleeps")) return;
  std::fprintf(stderr, "up\n");
  pause();
}

class Exits {
 public:
  std::function<void(const RankExit&)> listener() {
    return [this](const RankExit& exit) {
      const std::lock_guard lock(mutex_);
      exits_.push_back(exit);
      changed_.notify_all();
    };
  }
  RankExit next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !exits_.empty(); });
    RankExit exit = exits_.back();
    exits_.pop_back();
    return exit;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RankExit> exits_;
};

RankCommand child(const char* what, int rank) {
  return {
      .rank = rank, .node_rank = 0, .arguments = {"--gtest_filter=RankChild.*"}, .env = {{"RANK_TEST_CHILD", what}}};
}

TEST(RankProcesses, LastLinesAreKeptAndBounded) {
  Exits exits;
  RankProcesses processes(exits.listener());
  ASSERT_TRUE(processes.start(child("talks", 5)));
  const RankExit exit = exits.next();
  EXPECT_EQ(exit.rank, 5);
  EXPECT_EQ(exit.what, "exit code 7");
  const auto lines = processes.last_lines(5);
  EXPECT_EQ(lines.size(), 200u);
  EXPECT_EQ(lines.back(), "no end");
  EXPECT_THAT(lines, Contains("line 299"));
  for (const std::string& line : lines) EXPECT_LE(line.size(), 4096u);
  EXPECT_EQ(processes.pid_of(5), 0);
}

TEST(RankProcesses, ADeathIsToldAndANewOneStarts) {
  Exits exits;
  RankProcesses processes(exits.listener());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(processes.start(child("sleeps", 1)));
    EXPECT_GT(processes.pid_of(1), 0);
    processes.kill(1);
    const RankExit exit = exits.next();
    EXPECT_TRUE(exit.by_signal);
    EXPECT_EQ(exit.code, SIGKILL);
    EXPECT_THAT(exit.what, HasSubstr("signal 9"));
  }
  processes.kill(1);
}

}  // namespace
}  // namespace hadal
