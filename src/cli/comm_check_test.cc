#include "cli/comm_check.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <thread>

#include "cli/comm_check_probe.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

NodeCard card_of(int node) {
  return {.node_rank = node,
          .nnodes = 2,
          .host = fmt::format("host{}", node),
          .interface_name = "eth0",
          .address = fmt::format("10.0.0.{}", node + 1),
          .mtu = 1500,
          .probe_port = 4000,
          .version = "0.1.0",
          .binary_hash = "aaaaaaaa",
          .model_hash = "bbbbbbbb",
          .config = "VLLM_X=1",
          .nonce = "n"};
}

const PairResult kGoodPair{.from = 1, .to = 0, .latency_us = 20, .bandwidth = 2e9, .clock_difference = 0.01};

std::vector<std::string> names_of(const std::vector<Fault>& faults) {
  std::vector<std::string> names;
  for (const Fault& fault : faults) names.push_back(fault.name);
  return names;
}

TEST(CommCheckCards, NameEveryDifference) {
  EXPECT_TRUE(compare_cards({}).empty());
  EXPECT_TRUE(compare_cards({card_of(0), card_of(1)}).empty());
  const struct {
    const char* name;
    std::function<void(NodeCard&)> change;
    const char* found;
    const char* fix;
  } cases[] = {
      {"world-size-differs", [](NodeCard& card) { card.nnodes = 3; }, "node 1 (host1) --nnodes 3", "the same --nnodes"},
      {"version-differs", [](NodeCard& card) { card.version = "0.2.0"; }, "node 1 (host1): 0.2.0", "the same version"},
      {"binary-differs", [](NodeCard& card) { card.binary_hash = "cccc"; }, "node 1 (host1): cccc", "copy one node's"},
      {"model-differs", [](NodeCard& card) { card.model_hash = ""; }, "node 1 (host1): none", "copy the model folder"},
      {"config-differs", [](NodeCard& card) { card.config = "VLLM_X=2"; }, "VLLM_X=2", "same flags and environment"},
      {"mtu-differs", [](NodeCard& card) { card.mtu = 9000; }, "eth0 has 9000", "ip link set eth0 mtu 9000"},
  };
  for (const auto& test : cases) {
    NodeCard other = card_of(1);
    test.change(other);
    const auto faults = compare_cards({card_of(0), other});
    ASSERT_THAT(names_of(faults), ElementsAre(test.name));
    EXPECT_THAT(faults[0].found, HasSubstr(test.found));
    EXPECT_THAT(faults[0].fix, HasSubstr(test.fix));
  }
}

TEST(CommCheckPairs, AreJudgedByThresholds) {
  const std::vector<NodeCard> cards = {card_of(0), card_of(1)};
  const CheckThresholds strict{.min_bandwidth = 1e9, .max_latency_us = 50, .max_clock_seconds = 1};
  EXPECT_TRUE(judge_pairs(cards, {kGoodPair}, strict).empty());
  PairResult pair = kGoodPair;
  pair.bandwidth = 0.1e9;
  EXPECT_THAT(names_of(judge_pairs(cards, {pair}, strict)), ElementsAre("low-bandwidth"));
  EXPECT_TRUE(judge_pairs(cards, {pair}, {}).empty()) << "without a threshold everything is fast enough";
  pair = kGoodPair;
  pair.latency_us = 51;
  EXPECT_THAT(names_of(judge_pairs(cards, {pair}, strict)), ElementsAre("high-latency"));
  pair = kGoodPair;
  pair.clock_difference = -3600;
  const auto clock = judge_pairs(cards, {pair}, {});
  ASSERT_THAT(names_of(clock), ElementsAre("clock-differs"));
  EXPECT_THAT(clock[0].found, HasSubstr("the clock of node 0 is -3600.000 s from that of node 1"));
  pair.fault = Fault{"mtu-black-hole", {1, 0}, "f", "x"};
  EXPECT_THAT(names_of(judge_pairs(cards, {pair}, strict)), ElementsAre("mtu-black-hole")) << "figures are not valid";
}

TEST(CommCheckConnections, AreToldApart) {
  const struct {
    int error;
    const char* name;
  } sockets[] = {{ECONNREFUSED, "port-refused"}, {ETIMEDOUT, "port-blocked"},  {EHOSTUNREACH, "no-route"},
                 {ENETUNREACH, "no-route"},      {EINVAL, "port-blocked"},     {EACCES, "port-blocked"},
                 {EPERM, "port-blocked"},        {EMFILE, "connection-failed"}};
  for (const auto& test : sockets) {
    const Fault fault = connect_fault(test.error, 1, 0, "the port", "10.0.0.1", 5);
    EXPECT_EQ(fault.name, test.name);
    EXPECT_THAT(fault.found, HasSubstr("10.0.0.1:5"));
    EXPECT_FALSE(fault.fix.empty());
  }
  const struct {
    const char* message;
    const char* name;
  } errors[] = {{"rendezvous a:1: wrong token: this rank belongs to another group", "wrong-token"},
                {"rendezvous a:1: check differs: rank 0 has \"1\", rank 1 has \"2\"", "version-differs"},
                {"host \"a\" is not known here (Name or service not known)", "name-unknown"},
                {"rendezvous a:1: no connection within 5 ms (Connection refused): x", "port-refused"},
                {"rendezvous a:1: no connection within 5 ms (Connection timed out): x", "port-blocked"},
                {"rendezvous a:1: no connection within 5 ms (No route to host): x", "no-route"},
                {"rendezvous a:1: no connection within 5 ms (Invalid argument): x", "port-blocked"},
                {"rendezvous a:1 does not answer: is it the rank-0 address", "not-hadal"},
                {"rendezvous a:1 closed the connection", "not-hadal"},
                {"something else", "rendezvous-failed"}};
  for (const auto& test : errors) {
    EXPECT_EQ(rendezvous_fault({ErrorCode::kUnavailable, test.message}, 1).name, test.name) << test.message;
  }
}

TEST(CommCheckJson, ReadsWhatItWritesAndRefusesDamage) {
  const NodeCard card = card_of(1);
  EXPECT_EQ(to_json(node_card_from_json(dump_json(to_json(card))).value()), to_json(card));
  PairResult pair = kGoodPair;
  pair.fault = Fault{"peer-dead", {1, 0}, "f", "x"};
  const PairResult read = pair_result_from_json(dump_json(to_json(pair))).value();
  EXPECT_EQ(to_json(read), to_json(pair));

  const Json whole = to_json(card);
  for (const auto& [key, value] : whole.items()) {
    Json damaged = to_json(card);
    damaged.erase(key);
    EXPECT_THAT(node_card_from_json(dump_json(damaged)).error().message, HasSubstr(key));
    damaged[key] = Json::array();
    EXPECT_FALSE(node_card_from_json(dump_json(damaged)));
  }
  for (const char* bad : {"", "[]", "{", "1", R"({"node_rank":-1})", R"({"node_rank":1e300})"}) {
    EXPECT_FALSE(node_card_from_json(bad)) << bad;
    EXPECT_FALSE(pair_result_from_json(bad)) << bad;
  }
  Json long_name = to_json(card);
  long_name["host"] = std::string(3000, 'h');
  EXPECT_FALSE(node_card_from_json(dump_json(long_name)));
  Json no_words = to_json(pair);
  no_words["fault"] = 7;
  EXPECT_FALSE(pair_result_from_json(dump_json(no_words)));
}

TEST(CommCheckText, ShowsMatricesAndFaults) {
  CheckReport report{.nnodes = 2, .cards = {card_of(0), card_of(1)}, .pairs = {kGoodPair}};
  EXPECT_THAT(check_text(report), HasSubstr("  node 0           -        20.0\n"));
  EXPECT_THAT(check_text(report), HasSubstr("  node 1       2.000           -\n"));
  EXPECT_THAT(check_text(report), HasSubstr("PASS"));
  EXPECT_TRUE(check_json(report)["pass"]);
  report.faults = {{"node-missing", {1}, "node 1 did not come", "start it"}};
  EXPECT_THAT(check_text(report), HasSubstr("FAULT node-missing: node 1 did not come\n      to do: start it\nFAIL: 1"));
  EXPECT_FALSE(check_json(report)["pass"]);
  EXPECT_EQ(check_json(report)["faults"][0]["name"], "node-missing");
  EXPECT_FALSE(check_json(report)["nodes"][0].contains("nonce"));
}

const ProbeLimits kQuick{.step = milliseconds(300), .bandwidth = milliseconds(20'000), .bandwidth_bytes = 1 << 20};

NodeCard loopback_card(int node, int port) {
  NodeCard card = card_of(node);
  card.address = "127.0.0.1";
  card.probe_port = port;
  return card;
}

TEST(CommCheckProbe, MeasuresAPair) {
  const ProbeLimits patient{.step = milliseconds(20'000), .bandwidth_bytes = 1 << 20};
  const auto listener = ProbeListener::open("127.0.0.1", 0, "n").value();
  std::optional<Fault> fault;
  std::thread server([&] { fault = listener->serve(1, 0, patient); });
  const PairResult result = probe_pair(card_of(1), loopback_card(0, listener->port()), patient);
  server.join();
  EXPECT_FALSE(result.fault) << result.fault->found;
  EXPECT_FALSE(fault) << fault->found;
  EXPECT_GT(result.latency_us, 0);
  EXPECT_GT(result.bandwidth, 0);
  EXPECT_LT(std::abs(result.clock_difference), 1) << "it is the same clock";
  EXPECT_FALSE(ProbeListener::open("127.0.0.1", listener->port(), "n")) << "the port is taken";
}

TEST(CommCheckProbe, TellsDeadFromFrozenAndStrangersFromPeers) {
  // Nobody answers: the system has taken the connection, the process stands still.
  const auto frozen = ProbeListener::open("127.0.0.1", 0, "n").value();
  PairResult result = probe_pair(card_of(1), loopback_card(0, frozen->port()), kQuick);
  ASSERT_TRUE(result.fault);
  EXPECT_EQ(result.fault->name, "peer-frozen");

  auto listener = ProbeListener::open("127.0.0.1", 0, "n").value();
  const int port = listener->port();
  NodeCard stranger = loopback_card(0, port);
  stranger.nonce = "other";
  std::thread server([&] { EXPECT_FALSE(listener->serve(1, 0, kQuick)) << "nobody came whom it waited for"; });
  result = probe_pair(card_of(1), stranger, kQuick);
  server.join();
  ASSERT_TRUE(result.fault);

  listener.reset();
  result = probe_pair(card_of(1), loopback_card(0, port), kQuick);
  ASSERT_TRUE(result.fault);
  EXPECT_EQ(result.fault->name, "peer-dead");
  EXPECT_THAT(result.fault->found, HasSubstr("refuses"));
}

TEST(CommCheckProbe, SeesThePeerEndInBetween) {
  const auto listener = ProbeListener::open("127.0.0.1", 0, "n").value();
  std::optional<Fault> fault;
  std::thread server([&] { fault = listener->serve(1, 0, {}); });
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{.sin_family = AF_INET,
                    .sin_port = htons(static_cast<uint16_t>(listener->port())),
                    .sin_addr = {htonl(INADDR_LOOPBACK)}};
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
  char hello[64] = {'H', 'n'};
  ASSERT_EQ(send(fd, hello, sizeof hello, 0), 64);
  ASSERT_EQ(recv(fd, hello, sizeof hello, MSG_WAITALL), 64);
  close(fd);
  server.join();
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->name, "peer-dead");
}

}  // namespace
}  // namespace hadal
