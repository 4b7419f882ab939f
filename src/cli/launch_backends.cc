#include "cli/launch_plan.h"
#include "cli/launch_ray.h"

namespace hadal {

Expected<std::unique_ptr<Launcher>> make_launcher(const std::string& backend) {
  if (backend == "mp" || backend == "mpi" || backend == "external") return std::unique_ptr<Launcher>();
  if (backend == "ray") return make_ray_launcher();
  return make_error(ErrorCode::kUnsupported, "--distributed-executor-backend {}: there are mp, ray, mpi and external",
                    backend);
}

}  // namespace hadal
