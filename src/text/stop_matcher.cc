#include "text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace hadal {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops)), include_stop_(include_stop), nodes_(1) {
  for (size_t i = 0; i < stops_.size(); ++i) add_stop(i);
  link_failures();
}

int32_t StopMatcher::child(int32_t node, uint8_t byte) const {
  for (const auto& [edge, next] : nodes_[node].children) {
    if (edge == byte) return next;
  }
  return -1;
}

void StopMatcher::add_stop(size_t index) {
  if (stops_[index].empty()) return;
  int32_t node = 0;
  for (const char c : stops_[index]) {
    int32_t next = child(node, static_cast<uint8_t>(c));
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      nodes_[node].children.emplace_back(static_cast<uint8_t>(c), next);
      nodes_.push_back({.depth = nodes_[node].depth + 1});
    }
    node = next;
  }
  if (nodes_[node].stop < 0) nodes_[node].stop = static_cast<int32_t>(index);
}

// Breadth first: a node's failure link is shallower than the node, so it is complete when needed.
void StopMatcher::link_failures() {
  std::vector<int32_t> queue = {0};
  for (size_t i = 0; i < queue.size(); ++i) {
    const int32_t node = queue[i];
    for (const auto& [byte, next] : nodes_[node].children) {
      queue.push_back(next);
      if (node == 0) continue;
      int32_t fail = nodes_[node].fail;
      while (fail != 0 && child(fail, byte) < 0) fail = nodes_[fail].fail;
      nodes_[next].fail = std::max(child(fail, byte), 0);
      if (nodes_[next].stop < 0) nodes_[next].stop = nodes_[nodes_[next].fail].stop;
    }
  }
}

StopMatcher::Result StopMatcher::push(std::string_view text) {
  Result result;
  if (stopped_) return result;
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    int32_t next = child(state_, byte);
    while (next < 0 && state_ != 0) {
      state_ = nodes_[state_].fail;
      next = child(state_, byte);
    }
    state_ = std::max(next, 0);
    if (nodes_[state_].stop < 0) continue;
    stopped_ = true;
    result.stopped = true;
    result.which = stops_[nodes_[state_].stop];
    result.emit = std::move(held_);
    result.emit += text.substr(0, i + 1);
    if (!include_stop_) result.emit.resize(result.emit.size() - result.which.size());
    held_.clear();
    return result;
  }
  held_ += text;
  const size_t num_emitted = held_.size() - static_cast<size_t>(nodes_[state_].depth);
  result.emit = held_.substr(0, num_emitted);
  held_.erase(0, num_emitted);
  return result;
}

std::string StopMatcher::flush() {
  state_ = 0;
  return std::exchange(held_, std::string());
}

}  // namespace hadal
