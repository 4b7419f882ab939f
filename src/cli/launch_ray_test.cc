// The server's side of the Ray adapter: lines of any kind, a helper that a shell plays, the interpreter of a command.
#include "cli/launch_ray.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <condition_variable>
#include <fstream>
#include <mutex>

#include "cli/launch_nodes.h"
#include "cli/launch_ray_lines.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using Kind = LaunchEvent::Kind;

TEST(RayLines, EventsAreRead) {
  const auto layout =
      parse_ray_event(R"({"event": "layout", "ranks_per_node": [8, 8], "address": "10.0.0.1", "x": 1})");
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_EQ(layout->kind, RayEvent::Kind::kLayout);
  EXPECT_THAT(layout->layout.ranks_per_node, ElementsAre(8, 8));
  EXPECT_EQ(layout->layout.master_addr, "10.0.0.1");
  const auto exited = parse_ray_event(R"x({"event": "exited", "node": 3, "what": "signal 9 (Killed)"})x");
  ASSERT_TRUE(exited);
  EXPECT_EQ(exited->of_node.kind, Kind::kExited);
  EXPECT_EQ(exited->of_node.node_rank, 3);
  EXPECT_EQ(exited->of_node.what, "signal 9 (Killed)");
  const auto error = parse_ray_event(R"({"event": "error", "code": "resource_exhausted", "what": "few"})");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind, RayEvent::Kind::kError);
  EXPECT_EQ(error->code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(parse_ray_event(R"({"event": "error", "code": "new", "what": ""})")->code, ErrorCode::kInternal);
  EXPECT_EQ(parse_ray_event(R"({"event": "of a later helper"})")->kind, RayEvent::Kind::kOther);
}

TEST(RayLines, DamagedEventsAreRefused) {
  const std::string damaged[] = {
      "",
      "Traceback (most recent call last):",
      "[]",
      "{}",
      R"({"event": 1})",
      R"({"event": "log", "event": "log", "node": 1, "what": ""})",
      R"({"event": "log", "what": ""})",
      R"({"event": "log", "node": 0, "what": ""})",
      R"({"event": "log", "node": -1, "what": ""})",
      R"({"event": "log", "node": 4096, "what": ""})",
      R"({"event": "log", "node": 18446744073709551617, "what": ""})",
      R"({"event": "log", "node": 1.5, "what": ""})",
      R"({"event": "log", "node": "1", "what": ""})",
      R"({"event": "log", "node": 1, "what": 2})",
      R"({"event": "layout", "address": "a"})",
      R"({"event": "layout", "address": "a", "ranks_per_node": []})",
      R"({"event": "layout", "address": "a", "ranks_per_node": [0]})",
      R"({"event": "layout", "address": "a", "ranks_per_node": [1, "1"]})",
      R"({"event": "layout", "address": "a", "ranks_per_node": [99999999999]})",
      R"({"event": "layout", "address": "", "ranks_per_node": [1]})",
      R"({"event": "layout", "address": "a b", "ranks_per_node": [1]})",
      R"({"event": "layout", "address": ")" + std::string(256, 'a') + R"(", "ranks_per_node": [1]})",
      R"({"event": "log", "node": 1, "what": ")" + std::string(kMostRayLineBytes, 'x') + R"("})",
      R"({"event": "log", "node": 1, "what": [[[[[[]]]]]]})",
  };
  for (const std::string& line : damaged) {
    const auto event = parse_ray_event(line);
    EXPECT_FALSE(event) << line.substr(0, 200);
    if (!event) {
      EXPECT_EQ(event.error().code, ErrorCode::kCorrupt);
      EXPECT_THAT(event.error().message, HasSubstr("Ray helper"));
    }
  }
}

TEST(RayLines, BytesBecomeLines) {
  RayLines lines;
  EXPECT_THAT(*lines.take("one\ntw"), ElementsAre("one"));
  EXPECT_THAT(*lines.take(""), ElementsAre());
  EXPECT_THAT(*lines.take("o\n\nthree\nfour"), ElementsAre("two", "", "three"));
  EXPECT_THAT(*lines.take("\n"), ElementsAre("four"));
  ASSERT_TRUE(lines.take(std::string(kMostRayLineBytes, 'x')));
  EXPECT_FALSE(lines.take("x"));
  RayLines other;
  EXPECT_FALSE(other.take(std::string(kMostRayLineBytes + 1, 'x') + "\n"));
}

TEST(RayLines, OrdersAreLines) {
  EXPECT_EQ(ray_prepare_line({.world_size = 16, .nnodes = 2, .master_addr = "", .command = {"/bin/hadal", "worker"}}),
            "{\"op\":\"prepare\",\"world_size\":16,\"nnodes\":2,\"program\":\"/bin/hadal\"}\n");
  EXPECT_EQ(
      ray_start_line({.node_rank = 1, .first_rank = 8, .num_ranks = 8, .command = {"a", "b\n"}, .env = {{"N", "v"}}}),
      "{\"op\":\"start\",\"node\":1,\"argv\":[\"a\",\"b\\n\"],\"env\":{\"N\":\"v\"}}\n");
  EXPECT_EQ(ray_kill_line(2), "{\"op\":\"kill\",\"node\":2}\n");
}

// What a launcher tells, to be waited for.
class Told {
 public:
  LaunchListener listener() {
    return [this](const LaunchEvent& event) {
      const std::lock_guard lock(mutex_);
      events_.push_back(event);
      changed_.notify_all();
    };
  }
  LaunchEvent next() {
    std::unique_lock lock(mutex_);
    const bool came = changed_.wait_for(lock, std::chrono::seconds(60), [&] { return num_read_ < events_.size(); });
    EXPECT_TRUE(came);
    return came ? events_[num_read_++] : LaunchEvent{};
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<LaunchEvent> events_;
  size_t num_read_ = 0;
};

// A helper whose lines a shell writes; the first order is in $order.
std::unique_ptr<Launcher> shell(const std::string& script) {
  return make_ray_launcher({"/bin/sh", "-c", "read -r order\n" + script});
}

constexpr const char* kTwoNodes = R"(echo '{"event": "layout", "ranks_per_node": [2, 2], "address": "10.0.0.1"}'
)";

LaunchRequest four_ranks() { return {.world_size = 4, .nnodes = 0, .master_addr = "", .command = {"/bin/hadal"}}; }

TEST(RayLauncher, StartsKillsAndFollows) {
  Told told;
  const auto launcher = shell(std::string(kTwoNodes) + R"(
    while read -r order; do
      case "$order" in
        *start*) echo '{"event": "started", "node": 1, "what": "pid 7"}';;
        *kill*) echo '{"event": "exited", "node": 1, "what": "signal 9"}';;
      esac
    done)");
  const auto layout = launcher->prepare(four_ranks(), told.listener());
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_THAT(layout->ranks_per_node, ElementsAre(2, 2));
  EXPECT_EQ(layout->master_addr, "10.0.0.1");
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(
        launcher->start({.node_rank = 1, .first_rank = 2, .num_ranks = 2, .command = {"/bin/hadal"}, .env = {}}));
    EXPECT_EQ(told.next().what, "pid 7");
    launcher->kill(1);
    const LaunchEvent exited = told.next();
    EXPECT_EQ(exited.kind, Kind::kExited);
    EXPECT_EQ(exited.node_rank, 1);
  }
}

TEST(RayLauncher, TheOrderNamesWhatIsNeeded) {
  Told told;
  const auto launcher = shell(R"(echo "$order" >&2; exit 4)");
  const auto layout = launcher->prepare(four_ranks(), told.listener());
  ASSERT_FALSE(layout);
  EXPECT_EQ(layout.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(layout.error().message, AllOf(HasSubstr("/bin/sh"), HasSubstr("exit code 4"),
                                            HasSubstr(R"("world_size":4,"nnodes":0,"program":"/bin/hadal")")));
  EXPECT_FALSE(launcher->start({}));
}

TEST(RayLauncher, RefusalsKeepCodeAndText) {
  Told told;
  const auto launcher =
      shell(R"(printf '%s\n' '{"event": "error", "code": "resource_exhausted", "what": "too few\nnodes"}')");
  const auto layout = launcher->prepare(four_ranks(), told.listener());
  ASSERT_FALSE(layout);
  EXPECT_EQ(layout.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(layout.error().message, "too few\nnodes");
}

TEST(RayLauncher, AnotherNumberOfRanksOrAnotherAddress) {
  Told told;
  const auto wrong = shell(std::string(kTwoNodes) + "read -r order");
  LaunchRequest request = four_ranks();
  request.world_size = 5;
  EXPECT_FALSE(wrong->prepare(request, told.listener()));
  const auto right = shell(std::string(kTwoNodes) + "read -r order");
  request.world_size = 4;
  request.master_addr = "192.168.0.1";
  EXPECT_EQ(right->prepare(request, told.listener())->master_addr, "192.168.0.1");
}

TEST(RayLauncher, AHelperThatDiesLosesAllNodes) {
  Told told;
  // The child holds the pipes' ends beyond the helper's own end.
  const auto launcher = shell(std::string(kTwoNodes) + "sleep 5 & echo last words >&2; read -r order; kill -9 $$");
  ASSERT_TRUE(launcher->prepare(four_ranks(), told.listener()));
  launcher->kill(1);
  const LaunchEvent lost = told.next();
  EXPECT_EQ(lost.kind, Kind::kLost);
  EXPECT_EQ(lost.node_rank, 1);
  EXPECT_THAT(lost.what, AllOf(HasSubstr("signal 9"), HasSubstr("last words")));
  EXPECT_FALSE(launcher->start({}));
}

TEST(RayLauncher, AHelperThatTalksNonsenseIsEnded) {
  for (const char* nonsense : {"echo nonsense", "head -c 100000 /dev/zero", "yes '' | tr '\\n' ' '"}) {
    Told told;
    const auto launcher = shell(std::string(kTwoNodes) + nonsense + "; sleep 1000");
    (void)launcher->prepare(four_ranks(), told.listener());
    EXPECT_THAT(told.next().what, HasSubstr("Ray helper:")) << nonsense;
  }
}

TEST(RayLauncher, EventsOfNodesThatAreNotAreIgnored) {
  Told told;
  const auto launcher = shell(std::string(kTwoNodes) + R"(
    read -r order
    echo '{"event": "log", "node": 2, "what": "nobody"}'
    echo '{"event": "log", "node": 1, "what": "somebody"}'
    read -r order)");
  ASSERT_TRUE(launcher->prepare(four_ranks(), told.listener()));
  ASSERT_TRUE(launcher->start({}));
  EXPECT_EQ(told.next().what, "somebody");
}

TEST(RayLauncher, NoSuchHelper) {
  Told told;
  const auto launcher = make_ray_launcher({"/nowhere/python3"});
  const auto layout = launcher->prepare(four_ranks(), told.listener());
  ASSERT_FALSE(layout);
  EXPECT_THAT(layout.error().message, HasSubstr("/nowhere/python3 cannot be started"));
}

TEST(RayLauncher, TheHelperIsAPartOfTheProgram) {
  EXPECT_TRUE(kRayHelper.starts_with("\"\"\"Starts and watches"));
  EXPECT_TRUE(kRayHelper.ends_with("os._exit(code)\n"));
}

TEST(LaunchedNodes, WhatHappensBeforeAnybodyListensIsKept) {
  const std::string script = std::string(kTwoNodes) + R"(
    echo '{"event": "log", "node": 1, "what": "early"}'
    read -r order
    echo '{"event": "log", "node": 1, "what": "late"}'
    read -r order)";
  const auto nodes = LaunchedNodes::prepare(shell(script), four_ranks());
  ASSERT_TRUE(nodes) << nodes.error().message;
  EXPECT_THAT((*nodes)->layout().ranks_per_node, ElementsAre(2, 2));
  ASSERT_TRUE((*nodes)->start({}));
  Told told;
  (*nodes)->listen(told.listener());
  EXPECT_EQ(told.next().what, "early");
  EXPECT_EQ(told.next().what, "late");
  (*nodes)->close();
  EXPECT_FALSE((*nodes)->start({}));
}

TEST(LaunchedNodes, BackendsWithoutALauncherHaveNone) {
  for (const char* backend : {"mp", "mpi", "external"})
    EXPECT_EQ(*LaunchedNodes::prepare(backend, four_ranks()), nullptr);
  EXPECT_FALSE(LaunchedNodes::prepare("slurm", four_ranks()));
}

class Commands {
 public:
  void add(const std::string& name, const std::string& text, mode_t mode = 0755) {
    const std::filesystem::path path = folder_.path() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
    ::chmod(path.c_str(), mode);
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  // Of `ray` in bin/, or the error.
  std::string interpreter() const {
    const auto found = find_ray_interpreter("/nowhere:" + path("bin") + "::" + path("other"));
    return found ? *found : found.error().message;
  }

 private:
  TempDir folder_;
};

TEST(RayInterpreter, OfTheCommand) {
  Commands commands;
  EXPECT_THAT(commands.interpreter(), AllOf(HasSubstr("pip install ray"), HasSubstr("/nowhere:")));
  commands.add("bin/ray", "", 0644);
  EXPECT_THAT(commands.interpreter(), HasSubstr("pip install ray"));
  commands.add("venv/python3.11", "");
  commands.add("other/python3", "");
  const std::string python = commands.path("venv/python3.11");
  commands.add("bin/ray", "#!" + python + "\n");
  EXPECT_EQ(commands.interpreter(), python);
  commands.add("bin/ray", "#! " + python + " -s\nimport re\n");
  EXPECT_EQ(commands.interpreter(), python);
  commands.add("bin/ray", "#!/bin/sh\n'''exec' \"" + python + "\" \"$0\" \"$@\"\n' '''\n");
  EXPECT_EQ(commands.interpreter(), python);
  commands.add("bin/ray", "#!/bin/sh\n'''exec' " + python + " \"$0\" \"$@\"\n' '''\n");
  EXPECT_EQ(commands.interpreter(), python);
  commands.add("bin/ray", "#!/usr/bin/env python3\n");
  EXPECT_EQ(commands.interpreter(), commands.path("other/python3"));
}

TEST(RayInterpreter, OfAScriptThatIsNoPython) {
  Commands commands;
  for (const char* head : {"#!/usr/bin/env bash\n", "#!/bin/sh\nexec ray\n", "",
                           "\x7f"
                           "ELF",
                           "#!", "#!\n", "#!/usr/bin/env"}) {
    commands.add("bin/ray", head);
    EXPECT_THAT(commands.interpreter(), AllOf(HasSubstr(commands.path("bin/ray")), HasSubstr("install Ray again")))
        << head;
  }
  commands.add("bin/python3", "");
  EXPECT_EQ(commands.interpreter(), commands.path("bin/python3"));
  commands.add("bin/ray", "#!/nowhere/python3\n");
  EXPECT_THAT(commands.interpreter(), HasSubstr("/nowhere/python3, which is not there"));
}

}  // namespace
}  // namespace hadal
