// The folder of a calibration: what is in it while it runs, what at the end, and how an interrupted run goes on.
//
//   hadal_calibration.json      what the run is about; --resume compares it
//   hadal_ranges_partial.json   ranges of the prompts finished so far (a RangeSet), while it runs
//   hadal_ranges.json           all ranges; serves any tensor- and expert-parallel degree
//   <base>_hooks_maxabs_<rank>_<world size>.json, .npz, _mod_list.json   INC's files
//
// Every file is replaced atomically. Files of an earlier run are moved to backup_<base>_<dd-mm_HH:MM:SS>/ in the
// folder, never deleted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "quant/module_filter.h"
#include "quant/range_set.h"

namespace hadal {

inline constexpr const char* kRangesFileName = "hadal_ranges.json";

struct CalibrationOutput {
  std::filesystem::path base;  // of INC's files: "dir/inc_measure_output"
  ModuleFilter filter;         // modules that INC's files have
};
// `output` names the folder; base name and lists are those of INC's configuration, and the folder without `output`.
// Either may be empty. Errors: kInvalidArgument for a configuration of another mode than MEASURE, those of reading it.
Expected<CalibrationOutput> choose_calibration_output(const std::string& output, const std::string& config);

// Single-owner.
class CalibrationFiles {
 public:
  // `base`: as CalibrationOutput; the folder is made by prepare().
  explicit CalibrationFiles(std::filesystem::path base) : base_(std::move(base)) {}

  // Readies the folder for the run that `identity` (an object) describes. Without `resume`, moves what an earlier run
  // left aside. With it, returns that run's ranges where it got as far as a checkpoint. Errors: kInvalidArgument when
  // the run to resume is another one, naming the first member that differs; kCorrupt; kIo.
  Expected<std::optional<RangeSet>> prepare(const Json& identity, bool resume);

  // Where prepare() moved older files; empty when there were none.
  const std::filesystem::path& backup_dir() const { return backup_dir_; }
  const std::filesystem::path& base() const { return base_; }
  std::filesystem::path ranges_path() const { return base_.parent_path() / kRangesFileName; }

  Status write_checkpoint(const RangeSet& ranges) const;
  // INC's files of every world size, with the modules that `filter` selects; then hadal_ranges.json, which has all;
  // then the checkpoint goes.
  Status write_results(const RangeSet& ranges, std::span<const int64_t> world_sizes, const ModuleFilter& filter) const;

 private:
  std::filesystem::path identity_path() const { return base_.parent_path() / "hadal_calibration.json"; }
  std::filesystem::path partial_path() const { return base_.parent_path() / "hadal_ranges_partial.json"; }
  bool is_ours(const std::filesystem::path& path) const;
  Status remove_leftovers() const;
  Status move_aside();

  std::filesystem::path base_, backup_dir_;
};

}  // namespace hadal
