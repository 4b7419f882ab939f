// The modules of a model as Intel Neural Compressor names them in vLLM's Gaudi fork, in traversal order, and which
// ranges of a RangeSet each one's measurements are. Facts: spec/gaudi-pipeline.md 3.2, 3.4, 3.5.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "quant/range_set.h"

namespace hadal {

enum class IncModuleKind : uint8_t {
  kLinear,
  kMatmul,
  kKvCache,
  kFusedSdpa,
  kDynamicMoe,
  kExpertLinear,  // w13_list.i and w2_list.i of the MoE op: weights only, their input is a dummy of zeros
  kUnmeasured,    // in the module list, never in the measurements: softmax, the FusedMoE shell
};

const char* inc_module_kind_name(IncModuleKind kind);

// Where a module of a layer sits in LayerQuant's terms; also the row of the inspection's table.
enum class IncRole : uint8_t {
  kQA,
  kKvA,
  kQB,
  kKvB,
  kO,
  kMatmulQk,
  kSoftmax,
  kMatmulAv,
  kBatch2Block,
  kBlock2Batch,
  kLatentCache,
  kSdpa,
  kDenseGateUp,
  kDenseDown,
  kFusedMoe,
  kMoeOp,
  kW13,
  kW2,
  kSharedGateUp,
  kSharedDown,
};

// Name below "model.layers.N.": "self_attn.q_a_proj". Of w13_list and w2_list without the index.
std::string_view inc_role_suffix(IncRole role);
// The Python class that the config's "types" lists name.
std::string_view inc_role_class(IncRole role);
IncModuleKind inc_role_kind(IncRole role);

std::string inc_module_name(int64_t layer, IncRole role, std::optional<int64_t> local_expert = std::nullopt);

struct IncModuleId {
  int64_t layer = 0;
  IncRole role = IncRole::kQA;
  std::optional<int64_t> local_expert;  // w13_list.i, w2_list.i
};
// Nothing for a name of another form.
std::optional<IncModuleId> parse_inc_module_name(std::string_view name);

// One measured magnitude: a scalar of LayerRanges, or the largest of [begin, end) of one of its lists.
struct RangeSlot {
  float LayerRanges::*scalar = nullptr;
  std::vector<float> LayerRanges::*list = nullptr;
  int64_t begin = 0, end = 0;
  bool is_moe_out = false;       // LayerRanges::moe_out[world size][begin]
  float constant = kUnmeasured;  // with neither: a mapping matrix of ones (1), a dummy input (0)
};

// kUnmeasured when it, or each value of the part, was not measured.
float range_slot_value(const LayerRanges& layer, const RangeSlot& slot, int64_t world_size);

struct IncModule {
  std::string name;
  IncModuleId id;
  std::vector<RangeSlot> inputs, outputs;
  std::optional<RangeSlot> weight;
};

// What a rank owns. Heads are shared out evenly; experts too, the last rank takes the remainder; K-leaves by overlap,
// so that a rank's range is exact when the world size divides the number of leaves, and an upper bound else.
struct RankShare {
  int64_t rank = 0, world_size = 1;
  int64_t head_begin = 0, head_end = 0;
  int64_t expert_begin = 0, expert_end = 0;
};
// Errors: kInvalidArgument when the heads cannot be shared out evenly or a rank would have no expert.
Expected<RankShare> rank_share(const RangeDims& dims, int64_t rank, int64_t world_size);

// In traversal order. Modules of kind kUnmeasured are included.
std::vector<IncModule> inc_modules(const RangeDims& dims, const RankShare& share);

}  // namespace hadal
