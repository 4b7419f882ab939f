// The nodes that a launcher has chosen for the ranks. They are known before rank 0 decides its own place, and what
// happens on them is kept until somebody listens.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/launch_plan.h"

namespace hadal {

// Thread-safe.
class LaunchedNodes {
 public:
  // Null for backends whose agents are started by somebody else. Errors: those of make_launcher() and
  // Launcher::prepare().
  static Expected<std::shared_ptr<LaunchedNodes>> prepare(const std::string& backend, const LaunchRequest& request);
  // With this launcher.
  static Expected<std::shared_ptr<LaunchedNodes>> prepare(std::unique_ptr<Launcher> launcher,
                                                          const LaunchRequest& request);
  ~LaunchedNodes();

  const LaunchLayout& layout() const { return layout_; }
  // As Launcher::start(); kUnavailable after close().
  Status start(const LaunchUnit& unit);

  // Gets what happened so far and from now on, in order; under the conditions of LaunchListener.
  void listen(LaunchListener listener);
  // Ends all that runs on the nodes. After it the listener is not called any more.
  void close();

 private:
  explicit LaunchedNodes(std::unique_ptr<Launcher> launcher) : launcher_(std::move(launcher)) {}
  void tell(const LaunchEvent& event);

  LaunchLayout layout_;
  std::mutex mutex_;  // guards the rest
  std::vector<LaunchEvent> waiting_;
  LaunchListener listener_;
  std::shared_ptr<Launcher> launcher_;  // null: closed
};

}  // namespace hadal
