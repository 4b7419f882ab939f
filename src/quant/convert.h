// hadal convert: makes a folder for Gaudi from an official block-FP8 checkpoint, or the official one back from it.
// Shard by shard, in bounded memory, and so that a run killed at any byte can be repeated with the same options and
// goes on where it was: a shard gets its name when it is whole and on the disk, and only then a line in the journal.
// Facts: spec/gaudi-pipeline.md 1.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "quant/code_map.h"
#include "quant/convert_files.h"
#include "quant/convert_journal.h"
#include "quant/convert_marker.h"
#include "quant/convert_scan.h"
#include "quant/range_detect.h"

namespace hadal {

struct ConvertOptions {
  std::filesystem::path input, output;
  ConvertMethod method = ConvertMethod::kExact;
  FpRange target = FpRange::kGaudi2;
  std::filesystem::path input_scales;  // kChannel; empty: activations are quantised while running
  bool bug_compatible = false;         // kSeed
  bool reverse = false;                // kExact: input is a converted folder, output the official one
  bool verify = false;
  bool dry_run = false;  // everything up to the first byte that would be written
  int num_threads = 1;   // at most kMaxConvertThreads
};

// Keeps memory under 1 GiB.
inline constexpr int kMaxConvertThreads = 64;

// Called from the thread that called convert_checkpoint().
struct ConvertEvents {
  std::function<void(std::string_view text)> on_note;  // one line, for people
  std::function<void(std::string_view phase, uint64_t done_bytes, uint64_t total_bytes)>
      on_progress;  // "converting" ..
};

struct ConvertSummary {
  uint64_t num_shards = 0, num_resumed_shards = 0;  // resumed: finished by an earlier run
  uint64_t num_converted = 0, num_copied = 0;       // tensors: weights, as they are
  uint64_t num_dropped = 0;                         // kChannel: of the MTP layers
  uint64_t output_bytes = 0;                        // tensor data
  uint64_t sidecar_bytes = 0;
  CodeMapStats codes;               // of all converted weights
  std::vector<TensorReport> worst;  // up to 10 weights with the largest share of inexact codes, descending
  ScaleScan scales;
  std::optional<RangeMap> found_range;     // what detect_range_map() says of the input
  std::string range_evidence;              // RangeEvidence::describe()
  std::vector<std::string> skipped_files;  // not copied
  uint64_t num_side_files = 0;
  uint64_t num_verified_tensors = 0;  // 0: not asked
  bool nothing_to_convert = false;    // no block-FP8 weight: the output is a copy
};

// Errors: kInvalidArgument (options that contradict each other, folders inside each other, input already converted),
// kResourceExhausted (disk space, checked before the first byte), and those of the parts. After any of them the same
// call goes on where this one stopped.
Expected<ConvertSummary> convert_checkpoint(const ConvertOptions& options, const ConvertEvents& events);

}  // namespace hadal
