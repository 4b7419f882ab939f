// What every transport checks before an operation, and says in the same words. Internal to comm/.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "tensor/dtype.h"

namespace hadal {

// Errors of both: kInvalidArgument with the values.
Status check_sum(DType dtype, int64_t count);
// Whether rank `peer` of the group exchanges with `rank`: another one of 0 .. world_size - 1.
Status check_peer(int rank, int peer, int world_size);

}  // namespace hadal
