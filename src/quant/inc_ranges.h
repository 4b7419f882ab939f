// Between a RangeSet and INC's measurement files of all ranks. Facts: spec/gaudi-pipeline.md 3.3 to 3.5.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/inc_measurement.h"
#include "quant/range_set.h"

namespace hadal {

struct IncRankFile {
  IncMeasurement measurement;
  std::vector<std::string> module_names;  // the _mod_list.json
};

// What a rank of `world_size` would have measured: the largest of the heads, leaves and experts that it owns. Modules
// with an unmeasured range are left out, as INC leaves out what never ran; experts without a token are 0.
// Errors: kInvalidArgument for a world size the model cannot be shared out to, or moe_out missing for it.
Expected<IncRankFile> inc_rank_file(const RangeSet& ranges, int64_t rank, int64_t world_size);

// Writes the files of all ranks as <base>_hooks_maxabs_<rank>_<world size>.*
Status write_inc_files(const std::filesystem::path& base, int64_t world_size, const RangeSet& ranges);

// From the files of all ranks, ranks[r] of rank r; each rank's value goes to every head, leaf and expert that it owns.
// Modules absent from every file stay unmeasured. Errors: kInvalidArgument naming node, ranks and values: a node the
// model does not have, another number of inputs, outputs or experts, a node that some ranks lack, values that
// differ between ranks though the tensor is replicated, and matmul_qk's key range unequal to the latent cache's.
Expected<RangeSet> ranges_from_inc(const RangeDims& dims, const std::vector<IncMeasurement>& ranks);

// Reads either kind: `path` is a RangeSet file, or the base of INC's files ("dir/inc_measure_output"), of which
// `world_size` (0: the only one there is) is taken. The set's dims must be the model's.
Expected<RangeSet> load_ranges(const RangeDims& dims, const std::filesystem::path& path, int64_t world_size = 0);

}  // namespace hadal
