#include "comm/operation_checks.h"

namespace hadal {

Status check_sum(DType dtype, int64_t count) {
  if (count >= 0 && (dtype == DType::kF32 || dtype == DType::kBF16)) return {};
  return make_error(ErrorCode::kInvalidArgument, "sum of {} values of {}: F32 and BF16 are summed", count,
                    dtype_name(dtype));
}

Status check_peer(int rank, int peer, int world_size) {
  if (peer >= 0 && peer < world_size && peer != rank) return {};
  return make_error(ErrorCode::kInvalidArgument, "rank {} exchanges with rank {} of {}", rank, peer, world_size);
}

}  // namespace hadal
