#include <algorithm>

#include "base/topology.h"
#include "bench/ceilings.h"
#include "bench/probe_team.h"

namespace hadal {
namespace {

constexpr uint64_t kMinProbeBytes = uint64_t{1} << 20;
constexpr int kRoundsToChoose = 2;

class PinnedReadProbe final : public ReadProbe {
 public:
  PinnedReadProbe(int num_threads, ProbeMemory memory)
      : team_(detect_topology(), num_threads), memory_(std::move(memory)) {
    team_.touch(memory_);
    double best = 0;
    for (int round = 0; round < kRoundsToChoose; ++round) {
      for (const ProbeLoops* loops : usable_probe_loops()) {
        for (const ReadLoop* loop = loops->reads; loop->run != nullptr; ++loop) {
          const double rate = team_.read(*loop, memory_, team_.all());
          if (rate > best) best_loop_ = loop;
          best = std::max(best, rate);
        }
      }
    }
  }

  double sample() override { return team_.read(*best_loop_, memory_, team_.all()); }

 private:
  ProbeTeam team_;
  ProbeMemory memory_;
  const ReadLoop* best_loop_ = kBaselineProbes.reads;
};

}  // namespace

Expected<std::unique_ptr<ReadProbe>> ReadProbe::create(int num_threads, uint64_t size_bytes) {
  if (num_threads < 1) {
    return make_error(ErrorCode::kInvalidArgument, "read probe: {} threads, at least 1 is needed", num_threads);
  }
  if (size_bytes < kMinProbeBytes) {
    return make_error(ErrorCode::kInvalidArgument, "read probe: {} bytes, at least {} are needed", size_bytes,
                      kMinProbeBytes);
  }
  HADAL_ASSIGN_OR_RETURN(ProbeMemory memory, ProbeMemory::create(size_bytes, Pages::kHuge));
  return std::make_unique<PinnedReadProbe>(num_threads, std::move(memory));
}

}  // namespace hadal
