// The ranks of one machine, through shared memory. Latency first: a rank that waits spins, while every rank
// has a core it also offers its own to others for 2 ms, then it sleeps.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "comm/shared_segment.h"

namespace hadal {

struct LocalGroupOptions {
  int rank = 0;
  SegmentSizes sizes;                         // the same for all ranks
  std::chrono::milliseconds timeout{30'000};  // of one operation, and of joining
  int first_rank = 0;                         // added to ranks in messages: that of the larger group
  bool spin = true;                           // before a wait sleeps
};

class LocalGroup : public Communicator {
 public:
  // While set, ranks that wait for this one wait a little longer: it waits itself, for ranks elsewhere, and will say
  // for whom. How much longer is kElsewhereGrace.
  virtual void set_waits_elsewhere(bool waits) = 0;
};
inline constexpr std::chrono::milliseconds kElsewhereGrace{2'000};

// Waits until all ranks have joined the segment behind `fd` (SharedSegment::create), which the caller may close then.
// Errors: as SharedSegment::map; kUnavailable naming the ranks that did not come.
Expected<std::unique_ptr<LocalGroup>> join_local_group(int fd, const LocalGroupOptions& options);

}  // namespace hadal
