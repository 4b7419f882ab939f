#include "comm/communicator.h"

#include <iterator>

namespace hadal {

const char* comm_op_name(CommOp op) {
  static constexpr const char* kNames[] = {
      "barrier", "all_reduce", "reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "send", "recv"};
  const auto idx = static_cast<size_t>(op);
  return idx < std::size(kNames) ? kNames[idx] : "an unknown operation";
}

}  // namespace hadal
