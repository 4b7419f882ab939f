#include "cli/range_probe.h"

#include <algorithm>
#include <vector>

#include "formats/checkpoint.h"

namespace hadal {

Expected<RangeProbe> probe_range(const std::filesystem::path& dir) {
  constexpr size_t kMaxTensors = 48;
  constexpr int64_t kSampleBytes = 512 << 10;
  HADAL_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir));
  std::vector<const Checkpoint::Entry*> matrices;
  for (const Checkpoint::Entry& entry : checkpoint.entries()) {
    if (entry.info.dtype == DType::kF8E4M3 && entry.info.shape.rank() == 2) matrices.push_back(&entry);
  }
  RangeProbe probe;
  const size_t step = std::max<size_t>(1, (matrices.size() + kMaxTensors - 1) / kMaxTensors);
  std::vector<uint8_t> codes;
  for (size_t i = 0; i < matrices.size(); i += step) {
    const int64_t rows = matrices[i]->info.shape[0], cols = matrices[i]->info.shape[1];
    if (rows == 0 || cols == 0) continue;
    const BlockScaleLayout layout;
    const int64_t blocks = std::max<int64_t>(1, kSampleBytes / (layout.block_rows * cols));
    const int64_t sampled = std::min(rows, blocks * layout.block_rows);
    codes.resize(static_cast<size_t>(sampled * cols));
    HADAL_RETURN_IF_ERROR(checkpoint.read_range(*matrices[i], 0, std::as_writable_bytes(std::span(codes))));
    probe.evidence.add(codes, sampled, cols, layout);
  }
  probe.applied = detect_range_map(probe.evidence);
  return probe;
}

}  // namespace hadal
