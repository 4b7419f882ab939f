#include "model/step_runner.h"

#include <utility>

namespace hadal {

void WorkList::reserve(size_t num_items, const NodeShares& shares) {
  nodes_.resize(static_cast<size_t>(shares.num_nodes));
  for (Node& node : nodes_) {
    node.ends.reserve(num_items);
    node.offset.reserve(num_items);
  }
}

void WorkList::clear() {
  for (Node& node : nodes_) {
    node.ends.clear();
    node.offset.clear();
  }
}

void WorkList::add(int64_t num_units, const NodeShares& shares) {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    const int64_t before = node.total();
    const int64_t begin = shares.begin(num_units, static_cast<int>(i));
    node.offset.push_back(begin - before);
    node.ends.push_back(before + shares.begin(num_units, static_cast<int>(i) + 1) - begin);
  }
}

void WorkList::add_on_node(int64_t num_units, int node_idx) {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    const int64_t before = node.total();
    node.offset.push_back(-before);
    node.ends.push_back(before + (static_cast<int>(i) == node_idx ? num_units : 0));
  }
}

StepRunner::StepRunner(ThreadPool& pool, NodeShares shares)
    : pool_(pool),
      shares_(std::move(shares)),
      workers_of_node_(static_cast<size_t>(shares_.num_nodes), 0),
      next_(static_cast<size_t>(shares_.num_nodes)),
      busy_(static_cast<size_t>(pool.num_threads())) {
  for (const int node : shares_.node_of_worker) ++workers_of_node_[static_cast<size_t>(node)];
  profile_.num_threads = pool.num_threads();
}

}  // namespace hadal
