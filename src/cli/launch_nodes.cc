#include "cli/launch_nodes.h"

namespace hadal {

Expected<std::shared_ptr<LaunchedNodes>> LaunchedNodes::prepare(const std::string& backend,
                                                                const LaunchRequest& request) {
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<Launcher> launcher, make_launcher(backend));
  if (launcher == nullptr) return std::shared_ptr<LaunchedNodes>();
  return prepare(std::move(launcher), request);
}

Expected<std::shared_ptr<LaunchedNodes>> LaunchedNodes::prepare(std::unique_ptr<Launcher> launcher,
                                                                const LaunchRequest& request) {
  std::shared_ptr<LaunchedNodes> nodes(new LaunchedNodes(std::move(launcher)));
  HADAL_ASSIGN_OR_RETURN(nodes->layout_, nodes->launcher_->prepare(request, [&self = *nodes](const LaunchEvent& event) {
    self.tell(event);
  }));
  return nodes;
}

LaunchedNodes::~LaunchedNodes() { close(); }

void LaunchedNodes::tell(const LaunchEvent& event) {
  const std::lock_guard lock(mutex_);
  if (listener_) {
    listener_(event);
  } else {
    waiting_.push_back(event);
  }
}

void LaunchedNodes::listen(LaunchListener listener) {
  const std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
  for (const LaunchEvent& event : waiting_) listener_(event);
  waiting_.clear();
}

Status LaunchedNodes::start(const LaunchUnit& unit) {
  std::shared_ptr<Launcher> launcher;
  {
    const std::lock_guard lock(mutex_);
    launcher = launcher_;
  }
  if (launcher == nullptr) return make_error(ErrorCode::kUnavailable, "the launcher is closed");
  return launcher->start(unit);
}

void LaunchedNodes::close() {
  std::shared_ptr<Launcher> launcher;
  {
    const std::lock_guard lock(mutex_);
    listener_ = [](const LaunchEvent&) {};
    launcher = std::move(launcher_);
  }
  launcher.reset();  // waits for its threads, which call tell()
}

}  // namespace hadal
