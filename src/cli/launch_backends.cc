#include "cli/launch_plan.h"

namespace hadal {

Expected<std::unique_ptr<Launcher>> make_launcher(const std::string& backend) {
  if (backend == "mp" || backend == "mpi" || backend == "external") return std::unique_ptr<Launcher>();
  return make_error(ErrorCode::kUnsupported, "--distributed-executor-backend {}: there are mp, ray, mpi and external",
                    backend);
}

}  // namespace hadal
