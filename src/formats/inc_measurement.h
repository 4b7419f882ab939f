// The measurement files of Intel Neural Compressor (FP8 for Gaudi): for each rank, the largest magnitude that every
// patched module saw, as <base>_hooks_maxabs_<rank>_<world size>.json, the same as .npz, and ..._mod_list.json. Says
// what is written there; module names and their meaning belong to quant/. Facts: spec/gaudi-pipeline.md 3.2 to 3.4.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

// One module. Magnitudes are finite and >= 0. In the files each is a [1, 1] array.
struct IncNode {
  std::string name;            // "model.layers.3.self_attn.q_a_proj"
  std::vector<float> inputs;   // max |x| of each input
  std::vector<float> outputs;  // empty: not kept for this kind of module
  std::optional<float> weight;

  friend bool operator==(const IncNode&, const IncNode&) = default;
};

struct IncMeasurement {
  std::optional<int64_t> global_rank;  // null in every known file
  std::optional<int64_t> local_rank;   // the global rank; -1 in files unified over ranks
  std::vector<IncNode> nodes;          // in file order, names distinct

  friend bool operator==(const IncMeasurement&, const IncMeasurement&) = default;
};

// From the object that both forms hold. Errors: kInvalidArgument or kUnsupported, naming node and field.
Expected<IncMeasurement> inc_measurement_from_object(const Json& object);

// From the bytes of a .json or .npz file, told apart by content.
Expected<IncMeasurement> parse_inc_measurement(std::string_view bytes);
// Errors begin with the path.
Expected<IncMeasurement> read_inc_measurement(const std::filesystem::path& path);

// Bytes of the three files, equal to what INC writes for the same content.
std::string inc_measurement_json(const IncMeasurement& measurement);
std::string inc_measurement_npz(const IncMeasurement& measurement);
std::string inc_mod_list_json(const std::vector<std::string>& module_names);
Expected<std::vector<std::string>> parse_inc_mod_list(std::string_view text);

// Rank and world size in a file name.
struct IncFileName {
  std::filesystem::path base;  // "dir/inc_measure_output"
  int64_t rank = 0;
  int64_t world_size = 1;
  std::string extension;  // ".json", ".npz"; "_mod_list.json"
};

std::filesystem::path inc_file_path(const std::filesystem::path& base, int64_t rank, int64_t world_size,
                                    std::string_view extension);
// Nothing when the name has another form.
std::optional<IncFileName> parse_inc_file_name(const std::filesystem::path& path);

// World sizes of which `base` has files, ascending. Errors: kNotFound naming the directory, kIo.
Expected<std::vector<int64_t>> list_inc_world_sizes(const std::filesystem::path& base);

// The files of all ranks, [world_size], the .npz before the .json where both are there (as INC). The rank in each file
// must be its own. Errors name the missing files.
Expected<std::vector<IncMeasurement>> read_inc_measurement_set(const std::filesystem::path& base, int64_t world_size);

// Writes the three files of one rank, each atomically.
Status write_inc_measurement(const std::filesystem::path& base, int64_t rank, int64_t world_size,
                             const IncMeasurement& measurement, const std::vector<std::string>& module_names);

}  // namespace hadal
