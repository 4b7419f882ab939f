#include "cli/comm_check.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/ranges.h>

namespace hadal {
namespace {

constexpr size_t kMostCardBytes = 8192;
constexpr size_t kMostTextBytes = 2048;

// Reads fields; the first that is missing or of another kind is kept as the error.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}
  std::string text(const char* key) {
    const auto found = json_.is_object() ? json_.find(key) : json_.end();
    if (found == json_.end() || !found->is_string() || found->get_ref<const std::string&>().size() > kMostTextBytes) {
      return bad(key), "";
    }
    return found->get<std::string>();
  }
  double number(const char* key, double least, double most) {
    const auto found = json_.is_object() ? json_.find(key) : json_.end();
    if (found == json_.end() || !found->is_number()) return bad(key), least;
    const double value = found->get<double>();
    if (!(value >= least && value <= most)) return bad(key), least;
    return value;
  }
  int integer(const char* key, int least, int most) { return static_cast<int>(number(key, least, most)); }
  Status status() const { return status_; }

 private:
  void bad(const char* key) {
    if (status_) status_ = make_error(ErrorCode::kCorrupt, "a node's answer: field \"{}\" is damaged", key);
  }
  const Json& json_;
  Status status_;
};

Expected<Json> parse(std::string_view text) {
  return parse_json(text, {.max_bytes = kMostCardBytes, .max_depth = 4, .max_values = 64});
}

Json to_json(const Fault& fault) {
  return {{"name", fault.name}, {"nodes", fault.nodes}, {"found", fault.found}, {"fix", fault.fix}};
}

std::string shown(const NodeCard& card) { return fmt::format("node {} ({})", card.node_rank, card.host); }

// "node 0 (a): x; node 1 (b): y", of every distinct value the first node.
std::string values_of(const std::vector<NodeCard>& cards, std::string NodeCard::*field) {
  std::vector<std::string> parts, seen;
  for (const NodeCard& card : cards) {
    if (std::find(seen.begin(), seen.end(), card.*field) != seen.end()) continue;
    seen.push_back(card.*field);
    parts.push_back(fmt::format("{}: {}", shown(card), (card.*field).empty() ? "none" : card.*field));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

bool differs(const std::vector<NodeCard>& cards, std::string NodeCard::*field) {
  return std::any_of(cards.begin(), cards.end(), [&](const NodeCard& card) { return card.*field != cards[0].*field; });
}

std::vector<int> numbers_of(const std::vector<NodeCard>& cards) {
  std::vector<int> nodes;
  for (const NodeCard& card : cards) nodes.push_back(card.node_rank);
  return nodes;
}

// The system refused to send at all.
std::string own_rules_fix(int node, const std::string& to) {
  return fmt::format("node {}'s own firewall or routes are in the way to {}: see its `ip rule`, `ip route get` and nft",
                     node, to);
}

const PairResult* find_pair(const CheckReport& report, int a, int b) {
  for (const PairResult& pair : report.pairs) {
    if ((pair.from == a && pair.to == b) || (pair.from == b && pair.to == a)) return &pair;
  }
  return nullptr;
}

template <typename Cell>
std::string matrix(const CheckReport& report, const char* title, const Cell& cell) {
  std::string text = fmt::format("{}\n{:>8}", title, "");
  for (const NodeCard& card : report.cards) text += fmt::format("{:>12}", fmt::format("node {}", card.node_rank));
  for (const NodeCard& row : report.cards) {
    text += fmt::format("\n{:>8}", fmt::format("node {}", row.node_rank));
    for (const NodeCard& column : report.cards) {
      const PairResult* pair = find_pair(report, row.node_rank, column.node_rank);
      text += fmt::format("{:>12}", row.node_rank == column.node_rank ? "-"
                                    : pair == nullptr || pair->fault  ? "fault"
                                                                      : cell(*pair));
    }
  }
  return text + "\n";
}

}  // namespace

Json to_json(const NodeCard& card) {
  return {{"node_rank", card.node_rank},      {"nnodes", card.nnodes},   {"host", card.host},
          {"interface", card.interface_name}, {"address", card.address}, {"mtu", card.mtu},
          {"probe_port", card.probe_port},    {"version", card.version}, {"binary_hash", card.binary_hash},
          {"model_hash", card.model_hash},    {"config", card.config},   {"nonce", card.nonce}};
}

Expected<NodeCard> node_card_from_json(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(const Json json, parse(text));
  Fields fields(json);
  NodeCard card{.node_rank = fields.integer("node_rank", 0, 4095),
                .nnodes = fields.integer("nnodes", 1, 4096),
                .host = fields.text("host"),
                .interface_name = fields.text("interface"),
                .address = fields.text("address"),
                .mtu = fields.integer("mtu", 0, 1 << 24),
                .probe_port = fields.integer("probe_port", 0, 65535),
                .version = fields.text("version"),
                .binary_hash = fields.text("binary_hash"),
                .model_hash = fields.text("model_hash"),
                .config = fields.text("config"),
                .nonce = fields.text("nonce")};
  HADAL_RETURN_IF_ERROR(fields.status());
  return card;
}

Json to_json(const PairResult& pair) {
  Json json = {{"from", pair.from},
               {"to", pair.to},
               {"latency_us", pair.latency_us},
               {"bandwidth_bytes_per_second", pair.bandwidth},
               {"clock_difference_seconds", pair.clock_difference}};
  if (pair.fault) json["fault"] = to_json(*pair.fault);
  return json;
}

Expected<PairResult> pair_result_from_json(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(const Json json, parse(text));
  Fields fields(json);
  PairResult pair{.from = fields.integer("from", 0, 4095),
                  .to = fields.integer("to", 0, 4095),
                  .latency_us = fields.number("latency_us", 0, 1e12),
                  .bandwidth = fields.number("bandwidth_bytes_per_second", 0, 1e15),
                  .clock_difference = fields.number("clock_difference_seconds", -1e12, 1e12)};
  if (json.is_object() && json.contains("fault")) {
    Fields words(json["fault"]);
    pair.fault = Fault{words.text("name"), {pair.from, pair.to}, words.text("found"), words.text("fix")};
    HADAL_RETURN_IF_ERROR(words.status());
  }
  HADAL_RETURN_IF_ERROR(fields.status());
  return pair;
}

std::vector<Fault> compare_cards(const std::vector<NodeCard>& cards) {
  std::vector<Fault> faults;
  if (cards.empty()) return faults;
  const std::vector<int> all = numbers_of(cards);
  const auto add = [&](std::string name, std::string found, std::string fix) {
    faults.push_back({std::move(name), all, std::move(found), std::move(fix)});
  };
  for (const NodeCard& card : cards) {
    if (card.nnodes == cards[0].nnodes) continue;
    add("world-size-differs",
        fmt::format("{} was told --nnodes {}, {} --nnodes {}", shown(cards[0]), cards[0].nnodes, shown(card),
                    card.nnodes),
        "give all nodes the same --nnodes");
    break;
  }
  if (differs(cards, &NodeCard::version)) {
    add("version-differs", values_of(cards, &NodeCard::version), "install the same version of hadal on all nodes");
  } else if (differs(cards, &NodeCard::binary_hash)) {
    add("binary-differs", values_of(cards, &NodeCard::binary_hash),
        "copy one node's hadal to the others: other builds may round differently");
  }
  if (differs(cards, &NodeCard::model_hash)) {
    add("model-differs", values_of(cards, &NodeCard::model_hash),
        "copy the model folder again: config.json, the index or a shard is not the same (or --model is missing)");
  }
  if (differs(cards, &NodeCard::config)) {
    add("config-differs", values_of(cards, &NodeCard::config), "start all nodes with the same flags and environment");
  }
  const auto [least, most] =
      std::minmax_element(cards.begin(), cards.end(), [](const auto& a, const auto& b) { return a.mtu < b.mtu; });
  if (least->mtu != most->mtu) {
    add("mtu-differs",
        fmt::format("{}: {} has MTU {}; {}: {} has {}", shown(*least), least->interface_name, least->mtu, shown(*most),
                    most->interface_name, most->mtu),
        fmt::format("ip link set {} mtu {} on {}, or the other way round; switches must pass it too",
                    least->interface_name, most->mtu, shown(*least)));
  }
  return faults;
}

std::vector<Fault> judge_pairs(const std::vector<NodeCard>& cards, const std::vector<PairResult>& pairs,
                               const CheckThresholds& thresholds) {
  std::vector<Fault> faults;
  double best = 0;
  for (const PairResult& pair : pairs) {
    if (!pair.fault) best = std::max(best, pair.bandwidth);
  }
  const auto interface_of = [&](int node) {
    for (const NodeCard& card : cards) {
      if (card.node_rank == node) return fmt::format("{} {}", card.interface_name, card.address);
    }
    return std::string("?");
  };
  for (const PairResult& pair : pairs) {
    const std::vector<int> both = {pair.from, pair.to};
    const std::string between = fmt::format("between node {} ({}) and node {} ({})", pair.from, interface_of(pair.from),
                                            pair.to, interface_of(pair.to));
    if (pair.fault) {
      faults.push_back(*pair.fault);
      continue;
    }
    if (thresholds.min_bandwidth > 0 && pair.bandwidth < thresholds.min_bandwidth) {
      faults.push_back({"low-bandwidth", both,
                        fmt::format("{:.3f} GB/s {}, at least {:.3f} are wanted (the best pair has {:.3f})",
                                    pair.bandwidth / 1e9, between, thresholds.min_bandwidth / 1e9, best / 1e9),
                        "see whether this is the fast interface (--interface), and the speed of link, cable and switch "
                        "port (ethtool)"});
    }
    if (thresholds.max_latency_us > 0 && pair.latency_us > thresholds.max_latency_us) {
      faults.push_back(
          {"high-latency", both,
           fmt::format("{:.1f} us {}, at most {:.1f} are wanted", pair.latency_us, between, thresholds.max_latency_us),
           "see whether this is the fast interface (--interface), and power saving of card and CPU"});
    }
    if (std::abs(pair.clock_difference) > thresholds.max_clock_seconds) {
      faults.push_back({"clock-differs", both,
                        fmt::format("the clock of node {} is {:+.3f} s from that of node {}", pair.to,
                                    pair.clock_difference, pair.from),
                        "start a time service on both (chrony, systemd-timesyncd): else logs cannot be compared and "
                        "certificates may not be valid"});
    }
  }
  return faults;
}

Fault connect_fault(int error, int from, int to, const std::string& what, const std::string& address, int port) {
  const std::string where = fmt::format("{} at {}:{}", what, address, port);
  switch (error) {
    case ECONNREFUSED:
      return {"port-refused",
              {from, to},
              fmt::format("node {}: {} refuses: the host answers, but nothing listens there", from, where),
              fmt::format("start node {}, with this address and port; a firewall that rejects looks the same", to)};
    case ETIMEDOUT:
      return {"port-blocked",
              {from, to},
              fmt::format("node {}: no answer from {}: packets are dropped, or the host is down", from, where),
              fmt::format("open the port between the nodes (firewall, security group) and see that {} answers ping",
                          address)};
    case EINVAL:  // a blackhole route
    case EACCES:
    case EPERM:
      return {"port-blocked",
              {from, to},
              fmt::format("node {}: this node may not send to {}: {}", from, where, std::strerror(error)),
              own_rules_fix(from, address)};
    case EHOSTUNREACH:
    case ENETUNREACH:
      return {"no-route",
              {from, to},
              fmt::format("node {}: no way to {}: {}", from, where, std::strerror(error)),
              "see `ip route get`; give the address in the network between the nodes, or name the --interface"};
    default:
      return {"connection-failed",
              {from, to},
              fmt::format("node {}: {}: {}", from, where, std::strerror(error)),
              "see both nodes' messages"};
  }
}

Fault rendezvous_fault(const Error& error, int node_rank) {
  const auto says = [&](const char* words) { return error.message.find(words) != std::string::npos; };
  const std::string found = fmt::format("node {}: {}", node_rank, error.message);
  const std::vector<int> nodes = {node_rank, 0};
  if (says("wrong token")) return {"wrong-token", nodes, found, "give all nodes the same --token (HADAL_AUTH_TOKEN)"};
  if (says("differs: rank 0 has")) return {"version-differs", nodes, found, "use one version of hadal on all nodes"};
  if (says("is not known here")) {
    return {"name-unknown", nodes, found, "give node 0's IP address as --master-addr, or add the name to DNS"};
  }
  if (says(std::strerror(ECONNREFUSED))) {
    return {"port-refused", nodes, found, "start node 0 first, with the same --master-addr and --master-port"};
  }
  if (says(std::strerror(ETIMEDOUT))) {
    return {"port-blocked", nodes, found,
            "open --master-port on node 0 (firewall, security group); see that it answers ping"};
  }
  for (const int error : {EINVAL, EACCES, EPERM}) {
    if (!says("no connection within") || !says(std::strerror(error))) continue;
    return {"port-blocked", nodes, found, own_rules_fix(node_rank, "node 0")};
  }
  if (says(std::strerror(EHOSTUNREACH)) || says(std::strerror(ENETUNREACH))) {
    return {"no-route", nodes, found, "see `ip route get`; name the --interface between the nodes"};
  }
  if (says("does not answer") || says("closed the connection") || says("a frame of")) {
    return {"not-hadal", nodes, found,
            "another program listens there, or node 0 is frozen: choose another --master-port"};
  }
  return {"rendezvous-failed", nodes, found, "see node 0's messages"};
}

std::string check_text(const CheckReport& report) {
  std::string text = fmt::format("{} of {} nodes\n", report.cards.size(), report.nnodes);
  text += fmt::format("{:<6}{:<20}{:<12}{:<18}{:<7}{:<10}{:<10}{}\n", "node", "host", "interface", "address", "MTU",
                      "version", "binary", "model");
  for (const NodeCard& card : report.cards) {
    text += fmt::format("{:<6}{:<20}{:<12}{:<18}{:<7}{:<10}{:<10}{}\n", card.node_rank, card.host,
                        card.interface_name.empty() ? "-" : card.interface_name, card.address, card.mtu, card.version,
                        card.binary_hash.substr(0, 8), card.model_hash.empty() ? "-" : card.model_hash.substr(0, 8));
  }
  if (report.cards.size() > 1) {
    text += matrix(report, "latency, us (half a round trip of 64 bytes)",
                   [](const PairResult& pair) { return fmt::format("{:.1f}", pair.latency_us); });
    text += matrix(report, "bandwidth, GB/s (one connection, the slower direction)",
                   [](const PairResult& pair) { return fmt::format("{:.3f}", pair.bandwidth / 1e9); });
  }
  for (const Fault& fault : report.faults) {
    text += fmt::format("FAULT {}: {}\n      to do: {}\n", fault.name, fault.found, fault.fix);
  }
  return text + (report.faults.empty() ? "PASS\n" : fmt::format("FAIL: {} fault(s)\n", report.faults.size()));
}

Json check_json(const CheckReport& report) {
  Json json = {{"pass", report.faults.empty()},
               {"nnodes", report.nnodes},
               {"nodes", Json::array()},
               {"pairs", Json::array()},
               {"faults", Json::array()}};
  for (const NodeCard& card : report.cards) {
    json["nodes"].push_back(to_json(card));
    json["nodes"].back().erase("nonce");
  }
  for (const PairResult& pair : report.pairs) json["pairs"].push_back(to_json(pair));
  for (const Fault& fault : report.faults) json["faults"].push_back(to_json(fault));
  return json;
}

}  // namespace hadal
