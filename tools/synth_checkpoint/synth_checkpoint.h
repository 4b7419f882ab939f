// Writes a model folder in the official layout for any config.json, with made-up weights: for golden tests (the tiny
// formula) and for tests of speed, memory and scale (random). Tensor names and shapes come from model/weight_plan.h.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/status.h"
#include "synth_checkpoint/band_values.h"

namespace hadal {

enum class SynthWeights {
  kAsConfigured,  // FP8 where config.json has a quantization_config, else BF16
  kFp8,           // quantization_config is added to the written config.json if need be
  kBf16,          // quantization_config is dropped
};

struct SynthOptions {
  std::filesystem::path config_path;    // a config.json
  std::filesystem::path out_dir;        // made if absent; must be empty
  std::filesystem::path tokenizer_dir;  // its tokenizer files are copied; empty: none
  SynthValues values = SynthValues::kRandom;
  SynthWeights weights = SynthWeights::kAsConfigured;
  uint64_t seed = 0;                         // kRandom only
  uint64_t shard_bytes = uint64_t{4} << 30;  // a shard ends before the tensor that would exceed this
  int num_threads = 0;                       // 0: all processors
  bool show_progress = false;                // one line on stderr, rewritten
};

// Same options, same bytes, whatever the number of threads. Refuses before writing when the disk has too little room.
// The index is written last, so a folder that was cut short does not open.
Status write_synth_checkpoint(const SynthOptions& options);

}  // namespace hadal
