// All ranks of several machines: sums are made inside each node first, then exchanged between nodes in FP32, rounded
// once and shared inside the node again. Needs as many ranks on every node, a power of two of them: then a node's ranks
// are a subtree of the one binary tree over all ranks, and the bits are those of any other communicator.
#pragma once

#include <memory>

#include "comm/gloo_communicator.h"
#include "comm/local_communicator.h"

namespace hadal {

struct HierarchicalParts {
  std::unique_ptr<LocalGroup> local;     // the ranks of this node, ascending
  std::unique_ptr<Communicator> across;  // the ranks with the same local rank, one of each node, ascending
  std::unique_ptr<Communicator> all;     // everybody; only for send and recv between nodes
};

bool can_be_hierarchical(int local_world_size);

// Requires can_be_hierarchical(local->world_size()). Single-owner, as its parts. timeout: of one operation.
std::unique_ptr<Communicator> make_hierarchical(HierarchicalParts parts, std::chrono::milliseconds timeout);

}  // namespace hadal
