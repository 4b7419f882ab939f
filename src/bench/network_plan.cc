#include "bench/network_plan.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <string_view>

#include "base/names.h"
#include "bench/plan.h"
#include "bench/step_cost.h"
#include "model/logit_digest.h"

namespace hadal {
namespace {

constexpr double kF32Bytes = 4, kBf16Bytes = 2, kFp8Bytes = 1;
constexpr double kScaleBlock = 128;  // columns of one F32 scale beside FP8 activations

double num_moe_layers(const ModelConfig& config) {
  double layers = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) layers += config.is_moe_layer(layer) ? 1 : 0;
  return layers;
}

// Sums pass through a binary tree over the nodes: in each of its rounds every node exchanges with one other.
double tree_rounds(int num_nodes) { return std::countr_zero(static_cast<unsigned>(num_nodes)); }

// Of one sampled row to rank 0: digests of the other shares, where the request needs no more, and whether they were
// enough; else the shares.
double row_bytes(const ModelConfig& config, int num_nodes) {
  if (num_nodes == 1) return 0;
  const bool has_digests = shares_are_blocks(config, num_nodes, config.vocab_size);
  int64_t bytes = has_digests ? static_cast<int64_t>(sizeof(uint64_t)) : 0;
  for (int rank = 1; rank < num_nodes; ++rank) {
    const IndexRange share = vocab_share(config, num_nodes, rank);
    bytes += has_digests && share.size() > 0 ? digest_bytes(share) : share.size() * static_cast<int64_t>(kF32Bytes);
  }
  return static_cast<double>(bytes);
}

StepTraffic tensor_traffic(const ModelConfig& config, int num_nodes, double tokens, double logit_rows) {
  const double sums = 2.0 * static_cast<double>(config.num_hidden_layers);
  const double sum_bytes = sums * tokens * kF32Bytes * static_cast<double>(config.hidden_size);
  const double logits = logit_rows * row_bytes(config, num_nodes);
  const double rounds = tree_rounds(num_nodes);
  return {.exchanges = sums * rounds + (logit_rows > 0 ? num_nodes - 1 : 0),
          .bytes = sum_bytes * rounds + logits,
          .payload_bytes = sum_bytes + logits};
}

bool parse_positive(std::string_view text, double* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(*value) && *value > 0;
}

std::string milliseconds(double seconds) {
  const double ms = seconds * 1e3;
  return fmt::format("{:.{}f}", ms, ms < 1 ? 2 : ms < 10 ? 1 : 0);
}

const char* describe(NodeLayout layout) {
  switch (layout) {
    case NodeLayout::kTensor:
      return "tensor: FP32 sums (this program)";
    case NodeLayout::kTensorBf16:
      return "tensor: BF16 sums (vLLM)";
    case NodeLayout::kDataExpert:
      return "data + expert, each token once";
    case NodeLayout::kDataGather:
      return "data + expert, all-gather (fork)";
    case NodeLayout::kPipeline:
      return "pipeline";
  }
  return "";
}

}  // namespace

const std::vector<Network>& network_table() {
  static const std::vector<Network> table = {{"1gbe", 60e-6, 0.117e9},
                                             {"25gbe", 30e-6, 2.9e9},
                                             {"100gbe", 25e-6, 8e9},  // several streams
                                             {"200gb-rdma", 4e-6, 23e9}};
  return table;
}

Expected<Network> parse_network(const std::string& text) {
  std::vector<std::string> names;
  for (const Network& network : network_table()) {
    if (network.name == text) return network;
    names.push_back(network.name);
  }
  const size_t comma = text.find(',');
  Network network{text, 0, 0};
  if (comma != std::string::npos && parse_positive(std::string_view(text).substr(0, comma), &network.alpha_s) &&
      parse_positive(std::string_view(text).substr(comma + 1), &network.bytes_per_s)) {
    network.alpha_s *= 1e-6;
    network.bytes_per_s *= 1e9;
    return network;
  }
  const std::string nearest = closest_name(text, names);
  return make_error(
      ErrorCode::kInvalidArgument,
      "--network {}: expected 1gbe, 25gbe, 100gbe, 200gb-rdma, or microseconds of an exchange and GB/s, as "
      "30,2.9{}",
      text.substr(0, 80), nearest.empty() ? "" : fmt::format(" (did you mean {}?)", nearest));
}

const char* node_layout_name(NodeLayout layout) {
  switch (layout) {
    case NodeLayout::kTensor:
      return "tensor";
    case NodeLayout::kTensorBf16:
      return "tensor-bf16";
    case NodeLayout::kDataExpert:
      return "data-expert";
    case NodeLayout::kDataGather:
      return "data-expert-all-gather";
    case NodeLayout::kPipeline:
      return "pipeline";
  }
  return "";
}

StepTraffic step_traffic(const ModelConfig& config, NodeLayout layout, int num_nodes, int64_t tokens,
                         int64_t logit_rows) {
  if (num_nodes <= 1) return {};
  const double count = static_cast<double>(tokens), hidden = static_cast<double>(config.hidden_size);
  const double layers = static_cast<double>(config.num_hidden_layers), moe_layers = num_moe_layers(config);
  const double tokens_of_node = std::ceil(count / num_nodes);
  const double others = num_nodes - 1;
  switch (layout) {
    case NodeLayout::kTensor:
      return tensor_traffic(config, num_nodes, count, static_cast<double>(logit_rows));
    case NodeLayout::kTensorBf16: {
      const double exchanges = (2 * layers + 1) * tree_rounds(num_nodes);
      return {.exchanges = exchanges, .bytes = exchanges * count * kBf16Bytes * hidden};
    }
    case NodeLayout::kDataExpert: {
      const double dispatched = hidden * (kFp8Bytes + kF32Bytes / kScaleBlock), combined = kBf16Bytes * hidden;
      return {.exchanges = 2 * moe_layers * others,
              .bytes = moe_layers * others * tokens_of_node * (dispatched + combined)};
    }
    case NodeLayout::kDataGather:
      return {.exchanges = 2 * moe_layers * others,
              .bytes = 2 * moe_layers * others * tokens_of_node * kBf16Bytes * hidden};
    case NodeLayout::kPipeline:  // the last node tells the first the tokens
      return {.exchanges = others + 1, .bytes = others * count * kBf16Bytes * hidden};
  }
  return {};
}

double network_seconds(const StepTraffic& traffic, const Network& network) {
  return traffic.exchanges * network.alpha_s + traffic.bytes / network.bytes_per_s;
}

Expected<NetworkPlan> plan_network(const ModelConfig& config, const Machine& machine, const Network& network,
                                   int num_nodes) {
  if (num_nodes < 2 || num_nodes > kMostNodes || !std::has_single_bit(static_cast<unsigned>(num_nodes))) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--nnodes {}: expected 2, 4, 8, .. {}, as sums join in a binary tree over the nodes", num_nodes,
                      kMostNodes);
  }
  NetworkPlan plan;
  plan.network = network;
  plan.num_nodes = num_nodes;
  plan.token_payload_bytes = step_traffic(config, NodeLayout::kTensor, num_nodes, 1, 0).payload_bytes;
  plan.row_payload_bytes =
      step_traffic(config, NodeLayout::kTensor, num_nodes, 1, 1).payload_bytes - plan.token_payload_bytes;
  Machine all = machine;
  all.num_devices *= num_nodes;
  for (const int64_t batch : kNetworkBatches) {
    plan.one_node_s.push_back(step_seconds(config, machine, decode_shape(batch, 0)));
    plan.all_nodes_s.push_back(step_seconds(config, all, decode_shape(batch, 0)));
  }
  for (const NodeLayout layout : kNodeLayouts) {
    LayoutPlan entry;
    entry.layout = layout;
    for (const int64_t batch : kNetworkBatches) {
      entry.traffic.push_back(step_traffic(config, layout, num_nodes, batch, batch));
      entry.network_s.push_back(network_seconds(entry.traffic.back(), network));
    }
    StepTraffic prompt = step_traffic(config, layout, num_nodes, kNetworkPromptTokens, 1);
    // Stages work on different prompts at once: each link carries a token once.
    if (layout == NodeLayout::kPipeline) prompt = {1, prompt.bytes / (num_nodes - 1)};
    entry.prefill_tokens_per_s = static_cast<double>(kNetworkPromptTokens) / network_seconds(prompt, network);
    plan.layouts.push_back(std::move(entry));
  }
  return plan;
}

Json network_plan_to_json(const NetworkPlan& plan) {
  Json layouts = Json::array();
  for (const LayoutPlan& layout : plan.layouts) {
    Json steps = Json::array();
    for (size_t i = 0; i < std::size(kNetworkBatches); ++i) {
      const StepTraffic& traffic = layout.traffic[i];
      Json step = {{"batch", kNetworkBatches[i]},
                   {"exchanges", traffic.exchanges},
                   {"bytes", traffic.bytes},
                   {"network_s", layout.network_s[i]}};
      if (layout.layout == NodeLayout::kTensor) step["payload_bytes"] = traffic.payload_bytes;
      steps.push_back(std::move(step));
    }
    layouts.push_back({{"layout", node_layout_name(layout.layout)},
                       {"steps", std::move(steps)},
                       {"prefill_tokens_per_s", layout.prefill_tokens_per_s}});
  }
  return {{"num_nodes", plan.num_nodes},
          {"network",
           {{"name", plan.network.name}, {"alpha_s", plan.network.alpha_s}, {"bytes_per_s", plan.network.bytes_per_s}}},
          {"batches", kNetworkBatches},
          {"token_payload_bytes", plan.token_payload_bytes},
          {"row_payload_bytes", plan.row_payload_bytes},
          {"one_node_s", plan.one_node_s},
          {"all_nodes_s", plan.all_nodes_s},
          {"layouts", std::move(layouts)}};
}

std::string network_plan_text(const NetworkPlan& plan) {
  std::string text =
      fmt::format("{} nodes, {} ({:g} us an exchange, {:g} GB/s): ms per step of the network alone\n\n", plan.num_nodes,
                  plan.network.name, plan.network.alpha_s * 1e6, plan.network.bytes_per_s / 1e9);
  text += fmt::format("{:<34} {:>9} {:>12}", "", "exchanges", "bytes/token");
  for (const int64_t batch : kNetworkBatches) text += fmt::format(" {:>9}", fmt::format("batch {}", batch));
  text += fmt::format(" {:>15}\n", "prefill tok/s");
  for (const LayoutPlan& layout : plan.layouts) {
    text += fmt::format("{:<34} {:>9.0f} {:>12.0f}", describe(layout.layout), layout.traffic[0].exchanges,
                        layout.traffic[0].bytes);
    for (const double seconds : layout.network_s) text += fmt::format(" {:>9}", milliseconds(seconds));
    text += fmt::format(" {:>15}\n", fmt::format("<= {:.0f}", layout.prefill_tokens_per_s));
  }
  const auto floor = [&](const std::string& label, const std::vector<double>& values) {
    text += fmt::format("{:<34} {:>9} {:>12}", label, "", "");
    for (const double seconds : values) text += fmt::format(" {:>9}", milliseconds(seconds));
    text += "\n";
  };
  floor("computing, model on one node", plan.one_node_s);
  floor(fmt::format("computing, tensor over {} nodes", plan.num_nodes), plan.all_nodes_s);
  return text + "Only the first layout is this program's; the others are for comparison.\n";
}

}  // namespace hadal
