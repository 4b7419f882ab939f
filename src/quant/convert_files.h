// The files of a model folder that are not weights: which of them a converted folder needs, and their new content.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "formats/checkpoint.h"
#include "quant/convert_plan.h"

namespace hadal {

struct SideFile {
  std::filesystem::path relative;
  uint64_t size_bytes = 0;
};

struct SideFiles {
  std::vector<SideFile> copied;      // sorted
  std::vector<std::string> skipped;  // weights beside the index or of other formats, devices, temporaries
};

// Everything below `dir` but: names that begin with a dot (.git, .cache), shards of the checkpoint, weights in any
// format, our own journal and sidecars. Links to files are followed, linked folders are not; at most four levels deep.
// Errors: kUnsupported (more than 10,000 files), kIo.
Expected<SideFiles> list_side_files(const std::filesystem::path& dir, const Checkpoint& checkpoint);

// Copies them as plain files, never executable; then writes config.json and the index, which comes last, so that a
// folder cut short does not open. Errors name the file.
Status write_side_files(const std::filesystem::path& input, const std::filesystem::path& output, const SideFiles& files,
                        const ConvertPlan& plan);

// The bytes of config.json in the converted folder. exact, seed: with the marker, every other byte kept. channel: with
// quantization_config {activation_scheme, fmt, quant_method} and the marker. Nothing converted: `text`.
Expected<std::string> converted_config(std::string_view text, const ConvertPlan& plan, bool has_input_scales);

// The bytes of the index: `text` where names, shards and sizes did not change and total_size is right, else rewritten.
Expected<std::string> converted_index(std::string_view text, const ConvertPlan& plan);

}  // namespace hadal
