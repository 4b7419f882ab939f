// What hadal convert does to every tensor of a checkpoint, decided from the headers alone, before anything is written.
// Only a weight that is F8_E4M3 and has a scale "<name>_scale_inv" (possibly in another shard) is converted; what is
// neither understood nor plainly no concern of the conversion stops it. Facts: spec/gaudi-pipeline.md 1.1 to 1.3.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "formats/checkpoint.h"
#include "quant/convert_marker.h"
#include "quant/range_map.h"
#include "tensor/block_scale.h"

namespace hadal {

// Input scale of a module (activation dequantisation multiplier for a full scale of 448), by module name:
// "model.layers.0.self_attn.o_proj".
using InputScales = std::map<std::string, float>;

struct ConvertRequest {
  ConvertMethod method = ConvertMethod::kExact;
  FpRange target = FpRange::kGaudi2;
  bool bug_compatible = false;                // kSeed only
  bool reverse = false;                       // kExact only: from a converted folder back to the official one
  const InputScales* input_scales = nullptr;  // kChannel only; must then name every converted module
};

enum class TensorAction : uint8_t {
  kCopy,          // bytes as they are
  kMapCodes,      // F8_E4M3 -> F8_E4M3 by the range map
  kMapScales,     // F32 -> F32 by the range map
  kSeedCast,      // --bug-compatible: BF16 or F32 weight w/o scale -> F8_E4M3 of value * 240 / 448
  kSeedScales,    // --bug-compatible: input_scale_inv, BF16 or F32 -> F32 of value * 448 / 240
  kRestoreCodes,  // reverse of kMapCodes by kExact
  kRestoreScales,
  kRowCodes,   // block F8_E4M3 -> F8_E4M3 scaled by rows
  kRowScales,  // F32 [rows] of the same
  kConstant,   // F32 [1] = value
};

struct PlannedOutput {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  TensorAction action = TensorAction::kCopy;
  const Checkpoint::Entry* source = nullptr;  // null for kConstant; the weight for kRowScales
  const Checkpoint::Entry* scale = nullptr;   // kMapCodes, kRestoreCodes, kRowCodes, kRowScales: the block scales
  float value = 0;                            // kConstant

  uint64_t size_bytes() const { return *shape.checked_size_bytes(dtype); }
};

struct ShardPlan {
  std::string file_name;
  size_t shard_idx = 0;                // in Checkpoint::shards()
  std::vector<PlannedOutput> outputs;  // in the order of the source's data
  uint64_t output_bytes = 0;           // of all tensors
  uint64_t work_bytes = 0;             // read and written, for the progress bar
};

// Points into the checkpoint, which outlives it.
struct ConvertPlan {
  ConvertMethod method = ConvertMethod::kExact;
  FpRange target = FpRange::kGaudi2;
  bool bug_compatible = false;
  bool reverse = false;
  RangeMap map = RangeMap::kNone;  // kExact or kSeed of the method
  BlockScaleLayout layout;
  std::vector<ShardPlan> shards;                    // shards without an output are left out
  uint64_t num_converted = 0, converted_codes = 0;  // weights
  uint64_t num_copied = 0;                          // tensors as they are
  uint64_t output_bytes = 0;                        // of all tensors
  std::vector<std::string> dropped;                 // kChannel: tensors of the MTP layers
  std::vector<std::string> unused_input_scales;     // modules that the folder does not convert

  bool has_sidecar() const { return method == ConvertMethod::kExact && !reverse && num_converted > 0; }
  // False: there is nothing to convert, the output is a copy.
  bool converts() const;
};

// `config` is the parsed config.json. Errors: the first problem and the number of further ones: kUnsupported for
// tensors and settings it does not know, kCorrupt for scales that do not fit, kInvalidArgument for input scales that
// are missing.
Expected<ConvertPlan> make_convert_plan(const Checkpoint& checkpoint, const Json& config,
                                        const ConvertRequest& request);

// "model.layers.0.self_attn.o_proj" of "model.layers.0.self_attn.o_proj.weight".
std::string module_of_weight(const std::string& weight_name);

}  // namespace hadal
