#include "cli/comm_check_run.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>

#include "cli/program_build.h"
#include "cli/version.h"
#include "comm/net_address.h"
#include "comm/rank_group.h"
#include "comm/rendezvous.h"
#include "eval/content_hash.h"

extern char** environ;

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kSlice{500};           // between looks for contradictions while a node is waited for
constexpr milliseconds kReadingTime{10'000};  // for the others to read a verdict, before node 0 takes it with it

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

// Variables that change numerics or layout, and must therefore be the same on all nodes; sorted.
std::string shared_environment() {
  std::set<std::string> lines;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view line = *entry;
    const bool counts = line.starts_with("VLLM_") || line.starts_with("INC_") || line.starts_with("QUANT_CONFIG=") ||
                        line.starts_with("PT_HPU_");
    if (counts && !line.starts_with("VLLM_HOST_IP=") && lines.size() < 32) lines.emplace(line.substr(0, 60));
  }
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : " ") + line;
  return text;
}

std::string card_key(int node) { return fmt::format("check/card/{}", node); }
std::string pair_key(int a, int b) { return fmt::format("check/pair/{}/{}", a, b); }
std::string twin_key(int node) { return fmt::format("check/twin/{}", node); }

class Check {
 public:
  explicit Check(const CommCheckOptions& options) : options_(options), nonce_(make_rank_token()) {
    report_.nnodes = options.nnodes;
  }

  Expected<CheckReport> run();

 private:
  void add(std::string name, std::vector<int> nodes, std::string found, std::string fix) {
    report_.faults.push_back({std::move(name), std::move(nodes), std::move(found), std::move(fix)});
  }
  bool choose_own_address();
  bool open_ports();
  bool connect();
  Expected<NodeCard> own_card() const;
  bool meet(const NodeCard& own);
  bool look_for_twins();
  void add_missing(const std::vector<int>& missing);
  void measure();
  PairResult measure_pair(const NodeCard& lower, const NodeCard& upper);
  bool store_failed(const Error& error);
  void wait_for_readers();

  const CommCheckOptions& options_;
  const std::string nonce_;
  CheckReport report_;
  InterfaceAddress own_;
  std::unique_ptr<RendezvousServer> server_;
  std::unique_ptr<ProbeListener> listener_;
  std::unique_ptr<KeyValueStore> store_;
  bool has_store_ = true;  // it has answered so far
};

bool Check::choose_own_address() {
  const int node = options_.node_rank;
  const auto chosen = choose_interface(options_.master_addr, options_.interface_name);
  if (!chosen) {
    const bool is_interface = chosen.error().message.find("no interface named") != std::string::npos;
    const bool is_name = chosen.error().message.find("is not known here") != std::string::npos;
    add(is_interface ? "interface-unknown"
        : is_name    ? "name-unknown"
                     : "no-route",
        {node}, fmt::format("node {}: {}", node, chosen.error().message),
        is_interface ? "name one of them (--interface, or GLOO_SOCKET_IFNAME), or leave it out"
                     : "give node 0's address in the network between the nodes; see ip route");
    return false;
  }
  own_ = *chosen;
  if (options_.nnodes == 1) return true;
  if (const Status status = check_not_loopback(options_.master_addr, own_, options_.interface_name); !status) {
    add("loopback", {node}, fmt::format("node {}: {}", node, status.error().message),
        fmt::format("take {} out of the 127.* line of /etc/hosts, or give --master-addr as an IP address",
                    options_.master_addr));
    return false;
  }
  const auto targets = resolve_host(options_.master_addr);
  if (own_.is_loopback && targets && !is_loopback_address(targets->front())) {
    add("loopback", {node},
        fmt::format("node {}: {} {} is a loopback interface, which cannot reach {}", node, own_.interface_name,
                    own_.address, options_.master_addr),
        "name the interface between the nodes (--interface, or GLOO_SOCKET_IFNAME), or leave it out");
    return false;
  }
  return true;
}

bool Check::open_ports() {
  const int node = options_.node_rank;
  if (node == 0) {
    auto server = RendezvousServer::start({.address = options_.master_addr,
                                           .port = static_cast<uint16_t>(options_.master_port),
                                           .token = options_.token,
                                           .facts = {{"check", "1"}}});
    if (!server) {
      add("port-taken", {0}, fmt::format("node 0: {}", server.error().message),
          "choose another --master-port, end what listens there (ss -tlnp), and see that --master-addr is node 0's "
          "own");
      return false;
    }
    server_ = std::move(*server);
  }
  auto listener = ProbeListener::open(own_.address, options_.probe_port, nonce_);
  if (!listener) {
    add("port-taken", {node}, fmt::format("node {}: {}", node, listener.error().message),
        "choose another --probe-port");
    return false;
  }
  listener_ = std::move(*listener);
  return true;
}

bool Check::connect() {
  auto store = connect_rendezvous({.address = options_.master_addr,
                                   .port = static_cast<uint16_t>(options_.master_port),
                                   .token = options_.token,
                                   .facts = {{"check", "1"}}},
                                  options_.node_rank, options_.join_timeout);
  if (!store) {
    report_.faults.push_back(rendezvous_fault(store.error(), options_.node_rank));
    return false;
  }
  store_ = std::move(*store);
  return true;
}

Expected<NodeCard> Check::own_card() const {
  NodeCard card{.node_rank = options_.node_rank,
                .nnodes = options_.nnodes,
                .host = host_name(),
                .interface_name = own_.interface_name,
                .address = own_.address,
                .mtu = own_.mtu,
                .probe_port = listener_->port(),
                .version = kVersion,
                .config = shared_environment(),
                .nonce = nonce_};
  HADAL_ASSIGN_OR_RETURN(card.binary_hash, binary_hash());
  if (!options_.model.empty()) {
    const auto hash = model_hash(options_.model);
    card.model_hash = hash ? *hash : fmt::format("none ({})", hash.error().message.substr(0, 1024));
  }
  return card;
}

// Node 0 has gone or stands still: what the others see of it.
bool Check::store_failed(const Error& error) {
  if (error.message.find("was not set within") != std::string::npos) return false;
  has_store_ = false;
  const bool is_frozen = error.message.find("does not answer") != std::string::npos;
  add(is_frozen ? "peer-frozen" : "peer-dead", {0}, fmt::format("node {}: {}", options_.node_rank, error.message),
      "see what node 0 does, and its messages");
  return true;
}

// Two processes with one number overwrite each other's card: the one that is overwritten tells all.
bool Check::look_for_twins() {
  const auto mine = store_->get(card_key(options_.node_rank), milliseconds(1'000));
  if (!mine) return store_failed(mine.error());
  const auto card = node_card_from_json(*mine);
  if (card && card->nonce != nonce_) {
    (void)store_->set(twin_key(options_.node_rank), fmt::format("{} and {}", host_name(), card->host));
  }
  for (int node = 0; node < options_.nnodes; ++node) {
    const auto twins = store_->get(twin_key(node), milliseconds(0));
    if (!twins) continue;
    add("duplicate-node", {node}, fmt::format("two processes say that they are node {}: on {}", node, *twins),
        "give every node its own --node-rank, and end what is left of an earlier start");
    return true;
  }
  return false;
}

void Check::add_missing(const std::vector<int>& missing) {
  for (const int node : missing) {
    add("node-missing", {node},
        fmt::format("node {} did not come within {} s", node, options_.join_timeout.count() / 1000),
        fmt::format("start it with --node-rank {} and the same flags, and read what it says: a fault of its own stops "
                    "it before it gets here",
                    node));
  }
}

bool Check::meet(const NodeCard& own) {
  if (const Status told = store_->set(card_key(own.node_rank), dump_json(to_json(own))); !told) {
    return !store_failed(told.error());
  }
  const auto deadline = Clock::now() + options_.join_timeout;
  std::vector<int> missing;
  for (int node = 0; node < options_.nnodes; ++node) {
    for (;;) {
      const bool is_late = Clock::now() >= deadline;
      const auto text = store_->get(card_key(node), is_late ? milliseconds(50) : kSlice);
      if (text) {
        auto card = node_card_from_json(*text);
        if (card) report_.cards.push_back(std::move(*card));
        break;
      }
      if (store_failed(text.error()) || look_for_twins()) return false;
      if (is_late) {
        missing.push_back(node);
        break;
      }
    }
    if (!report_.cards.empty() && report_.cards.back().nnodes != options_.nnodes) {  // who is missing, then?
      if (node < own.node_rank) report_.cards.push_back(own);
      for (Fault& fault : compare_cards(report_.cards)) report_.faults.push_back(std::move(fault));
      return false;
    }
  }
  add_missing(missing);
  if (look_for_twins()) return false;
  for (Fault& fault : compare_cards(report_.cards)) report_.faults.push_back(std::move(fault));
  return missing.empty() && static_cast<int>(report_.cards.size()) == options_.nnodes;
}

// One pair after the other, the same order everywhere: nothing else is on the wire.
void Check::measure() {
  std::set<int> lost;
  for (size_t a = 0; a < report_.cards.size(); ++a) {
    for (size_t b = a + 1; b < report_.cards.size(); ++b) {
      const NodeCard &lower = report_.cards[a], &upper = report_.cards[b];
      if (lost.contains(lower.node_rank) || lost.contains(upper.node_rank)) continue;
      PairResult pair = measure_pair(lower, upper);
      if (pair.fault && (pair.fault->name == "peer-dead" || pair.fault->name == "peer-frozen")) {
        lost.insert(pair.fault->nodes.back());
      }
      report_.pairs.push_back(std::move(pair));
      if (!has_store_) return;
    }
  }
}

PairResult Check::measure_pair(const NodeCard& lower, const NodeCard& upper) {
  const int own = options_.node_rank;
  const std::string key = pair_key(lower.node_rank, upper.node_rank);
  if (own == upper.node_rank) {
    PairResult result = probe_pair(upper, lower, options_.limits);
    const Status told = store_->set(key, dump_json(to_json(result)));
    has_store_ = told.has_value();
    if (!told && !result.fault) result.fault = Fault{"peer-dead", {0}, told.error().message, "see node 0's messages"};
    return result;
  }
  if (own == lower.node_rank) {
    if (auto fault = listener_->serve(upper.node_rank, own, options_.limits)) {
      PairResult result{.from = upper.node_rank, .to = own};
      result.fault = std::move(fault);
      // Unless the other side has told its own view by now.
      if (!store_->get(key, milliseconds(200))) (void)store_->set(key, dump_json(to_json(result)));
    }
  }
  const auto most = 3 * options_.limits.step + 2 * options_.limits.bandwidth;
  const auto text = store_->get(key, own == lower.node_rank ? options_.limits.step : most);
  PairResult result{.from = upper.node_rank, .to = lower.node_rank};
  if (text) {
    auto told = pair_result_from_json(*text);
    if (told) return std::move(*told);
    result.fault = Fault{"damaged-answer", {upper.node_rank}, told.error().message, "use one version of hadal"};
    return result;
  }
  const bool is_store = text.error().message.find("was not set within") == std::string::npos;
  has_store_ = !is_store;
  result.fault =
      is_store ? Fault{"peer-dead",
                       {0},
                       fmt::format("node {}: {}", own, text.error().message),
                       "see what node 0 does, and its messages"}
               : Fault{"peer-frozen",
                       {lower.node_rank, upper.node_rank},
                       fmt::format("node {} did not finish measuring with node {}", upper.node_rank, lower.node_rank),
                       fmt::format("see what node {} does", upper.node_rank)};
  return result;
}

// Node 0 keeps the store until the others have read what they conclude from: each leaves when it has. Processes count,
// not nodes, since two may say that they are one node.
void Check::wait_for_readers() {
  if (!server_) return;
  std::set<int> frozen;
  for (const Fault& fault : report_.faults) {
    if (fault.name == "peer-frozen") frozen.insert(fault.nodes.back());
  }
  server_->wait_for_departures(1 + static_cast<int>(frozen.size()), kReadingTime);
}

Expected<CheckReport> Check::run() {
  if (!choose_own_address() || !open_ports()) return std::move(report_);
  HADAL_ASSIGN_OR_RETURN(const NodeCard own, own_card());
  if (own.model_hash.starts_with("none")) {
    add("model-unreadable", {own.node_rank}, fmt::format("node {}: {}", own.node_rank, own.model_hash),
        "copy the model folder to this node, or give its path here as --model");
  }
  if (!connect()) return std::move(report_);
  if (meet(own)) {
    measure();
    for (Fault& fault : judge_pairs(report_.cards, report_.pairs, options_.thresholds)) {
      report_.faults.push_back(std::move(fault));
    }
  }
  wait_for_readers();
  return std::move(report_);
}

}  // namespace

Expected<CheckReport> run_comm_check(const CommCheckOptions& options) {
  if (options.nnodes < 1 || options.nnodes > 256 || options.node_rank < 0 || options.node_rank >= options.nnodes) {
    return make_error(ErrorCode::kInvalidArgument, "--nnodes {} --node-rank {}: nodes are numbered from 0",
                      options.nnodes, options.node_rank);
  }
  if (options.master_port < 1 || options.master_port > 65535 || options.probe_port < 0 || options.probe_port > 65535) {
    return make_error(ErrorCode::kInvalidArgument, "--master-port {} --probe-port {}: ports are 1 .. 65535",
                      options.master_port, options.probe_port);
  }
  return Check(options).run();
}

}  // namespace hadal
