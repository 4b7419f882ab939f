// One message from rank 0 to all others, and one answer from all to all, over a control group.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "comm/communicator.h"
#include "engine/step_wire.h"

namespace hadal {

// Single-owner. Cost of a message of up to kFirstBytes: one broadcast; of a longer one: two.
class RankChannel {
 public:
  static constexpr size_t kFirstBytes = 2048;

  explicit RankChannel(Communicator& control) : control_(control) {}

  // On rank 0. Errors: as Communicator::broadcast().
  Status send(const StepHead& head, const StepInput* input);
  // On the others. Errors: as broadcast(); kCorrupt.
  Status receive(StepMessage& message);
  // On all, after the operation: the same verdict everywhere, an error naming the first rank where it failed. Errors:
  // as Communicator::all_gather().
  Expected<Status> agree(const Status& mine);

 private:
  Communicator& control_;
  std::vector<std::byte> bytes_, first_ = std::vector<std::byte>(kFirstBytes);
};

}  // namespace hadal
