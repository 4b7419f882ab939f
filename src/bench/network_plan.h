// What several nodes must tell each other in a step, and how long a network takes for it: a model of time like plan.h.
// One exchange of n bytes between two nodes costs alpha + n / beta. Pure functions; figures of networks and layouts are
// those of the study of distributed serving (its tables C2 and C3).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "bench/machine.h"
#include "model/config.h"

namespace hadal {

struct Network {
  std::string name;
  double alpha_s = 0;      // of one exchange without its bytes, software included
  double bytes_per_s = 0;  // one direction
};

// "1gbe", "25gbe", "100gbe", "200gb-rdma".
const std::vector<Network>& network_table();
// A name of the table, or "ALPHA_US,GBPS" as measured: "12.5,2.9". Errors: kInvalidArgument with what is possible.
Expected<Network> parse_network(const std::string& text);

enum class NodeLayout {
  kTensor,      // what this program does: heads and experts cut over the nodes, FP32 sums of subtrees, digests of the
                // logits to rank 0
  kTensorBf16,  // the same as vLLM sums it: BF16, the embedding too; without logits
  kDataExpert,  // sequences divided over the nodes, each token sent once to every node that has experts of it
  kDataGather,  // the same as vLLM's Gaudi fork: all-gather and reduce-scatter for every MoE layer
  kPipeline,    // layers divided; a step passes through all nodes
};
inline constexpr NodeLayout kNodeLayouts[] = {NodeLayout::kTensor, NodeLayout::kTensorBf16, NodeLayout::kDataExpert,
                                              NodeLayout::kDataGather, NodeLayout::kPipeline};
const char* node_layout_name(NodeLayout layout);

// What a node sends, the same amount coming back.
struct StepTraffic {
  double exchanges = 0;      // one after the other
  double bytes = 0;          // of all of them
  double payload_bytes = 0;  // kTensor: what the operations of rank 0 carry, however the transport moves it
};
// A step of `tokens` tokens, the last rows of `logit_rows` of them sampled. Requires num_nodes >= 1, for the tensor
// layouts a power of two.
StepTraffic step_traffic(const ModelConfig& config, NodeLayout layout, int num_nodes, int64_t tokens,
                         int64_t logit_rows);
double network_seconds(const StepTraffic& traffic, const Network& network);

inline constexpr int64_t kNetworkBatches[] = {1, 8, 32};
inline constexpr int64_t kNetworkPromptTokens = 8192;  // of one step, for the ceiling of prefill

struct LayoutPlan {
  NodeLayout layout = NodeLayout::kTensor;
  std::vector<StepTraffic> traffic;  // of kNetworkBatches
  std::vector<double> network_s;     // of kNetworkBatches
  double prefill_tokens_per_s = 0;   // no more than this, whatever computes
};

struct NetworkPlan {
  Network network;
  int num_nodes = 0;
  std::vector<LayoutPlan> layouts;
  // kTensor, as rank 0 counts it (hadal_step_comm_bytes_total): of a token, and of a token whose logits are asked for.
  double token_payload_bytes = 0, row_payload_bytes = 0;
  // Without any network, for kNetworkBatches sequences of hardly any context: the whole model on one node, and cut over
  // all of them.
  std::vector<double> one_node_s, all_nodes_s;
};

inline constexpr int kMostNodes = 64;
// `machine`: one node. Errors: kInvalidArgument for a number of nodes that is no power of two, or above kMostNodes.
Expected<NetworkPlan> plan_network(const ModelConfig& config, const Machine& machine, const Network& network,
                                   int num_nodes);
Json network_plan_to_json(const NetworkPlan& plan);
// A table, milliseconds per step.
std::string network_plan_text(const NetworkPlan& plan);

}  // namespace hadal
