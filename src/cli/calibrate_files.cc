#include "cli/calibrate_files.h"

#include <cstdlib>
#include <ctime>
#include <system_error>
#include <utility>
#include <vector>

#include "base/file.h"
#include "formats/inc_config.h"
#include "quant/inc_modules.h"
#include "quant/inc_ranges.h"
#include "quant/inc_settings.h"
#include "quant/output_file.h"

namespace hadal {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxIdentityBytes = 1 << 20;
constexpr const char* kDefaultOutput = "./nc_workspace_measure_kvcache";
constexpr const char* kDefaultBaseName = "inc_measure_output";

std::string local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[32];
  const size_t length = std::strftime(text, sizeof(text), "%d-%m_%H:%M:%S", &parts);
  return {text, length};
}

Expected<Json> read_identity(const fs::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxIdentityBytes));
  auto json = parse_json(text);
  if (!json) return forward_error(std::move(json), path.string());
  if (!json->is_object()) return make_error(ErrorCode::kCorrupt, "{}: not a JSON object", path.string());
  return json;
}

Status expect_same_run(const fs::path& path, const Json& found, const Json& expected) {
  for (const auto& [key, value] : expected.items()) {
    const auto there = found.find(key);
    if (there != found.end() && *there == value) continue;
    return make_error(
        ErrorCode::kInvalidArgument,
        "{}: --resume of another run: {} is {} there, {} here. Without --resume a new run starts, and the "
        "old files are moved aside",
        path.string(), key, there == found.end() ? "absent" : dump_json(*there), dump_json(value));
  }
  return {};
}

// Regular files of a folder, in no order.
Expected<std::vector<fs::path>> list_files(const fs::path& dir) {
  std::vector<fs::path> files;
  std::error_code error;
  for (auto entry = fs::directory_iterator(dir, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    std::error_code ignored;
    if (entry->is_regular_file(ignored)) files.push_back(entry->path());
  }
  if (error) return make_error(ErrorCode::kIo, "{}: cannot be listed: {}", dir.string(), error.message());
  return files;
}

// Drops what the lists leave out.
Status apply_filter(const ModuleFilter& filter, IncRankFile& file) {
  const auto is_selected = [&](const std::string& name) -> Expected<bool> {
    const auto id = parse_inc_module_name(name);
    return filter.selects(name, id ? inc_role_class(id->role) : std::string_view());
  };
  std::vector<IncNode> nodes;
  std::vector<std::string> names;
  for (IncNode& node : file.measurement.nodes) {
    HADAL_ASSIGN_OR_RETURN(const bool selected, is_selected(node.name));
    if (selected) nodes.push_back(std::move(node));
  }
  for (std::string& name : file.module_names) {
    HADAL_ASSIGN_OR_RETURN(const bool selected, is_selected(name));
    if (selected) names.push_back(std::move(name));
  }
  file.measurement.nodes = std::move(nodes);
  file.module_names = std::move(names);
  return {};
}

}  // namespace

Expected<CalibrationOutput> choose_calibration_output(const std::string& output, const std::string& config_path) {
  IncConfig config;
  config.dump_stats_path = std::string(kDefaultOutput) + "/" + kDefaultBaseName;
  fs::path base = config.dump_stats_path;
  if (!config_path.empty()) {
    HADAL_ASSIGN_OR_RETURN(config, load_inc_config(config_path));
    if (config.mode != IncMode::kMeasure) {
      return make_error(ErrorCode::kInvalidArgument, "{}: mode is {}, a calibration needs MEASURE", config_path,
                        inc_mode_name(config.mode));
    }
    HADAL_ASSIGN_OR_RETURN(const IncEnvironment environment, read_inc_environment(std::getenv));
    base = resolve_inc_stats_path(config, environment.dump_path_prefix).base;
  }
  if (!output.empty()) base = fs::path(output) / base.filename();
  if (!base.has_parent_path()) base = fs::path(".") / base;
  auto filter = ModuleFilter::compile(config.allowlist, config.blocklist);
  if (!filter) return forward_error(std::move(filter), config_path);
  return CalibrationOutput{std::move(base), std::move(*filter)};
}

// Whether a calibration writes files of this name, INC's included.
bool CalibrationFiles::is_ours(const fs::path& path) const {
  const std::string name = path.filename().string();
  return name.starts_with(base_.filename().string()) || name.starts_with(identity_path().filename().string()) ||
         name.starts_with(partial_path().filename().string()) || name.starts_with(ranges_path().filename().string());
}

// Of files that a killed run was writing: they never were anybody's result.
Status CalibrationFiles::remove_leftovers() const {
  HADAL_ASSIGN_OR_RETURN(const std::vector<fs::path> files, list_files(base_.parent_path()));
  std::error_code error;
  for (const fs::path& path : files) {
    if (!is_temporary_name(path.filename().string()) || !is_ours(path)) continue;
    fs::remove(path, error);
    if (error) return make_error(ErrorCode::kIo, "{}: cannot be removed: {}", path.string(), error.message());
  }
  return {};
}

Status CalibrationFiles::move_aside() {
  const fs::path dir = base_.parent_path();
  HADAL_ASSIGN_OR_RETURN(std::vector<fs::path> old, list_files(dir));
  std::erase_if(old, [this](const fs::path& path) { return !is_ours(path); });
  if (old.empty()) return {};
  std::error_code error;
  const std::string stem = fmt::format("backup_{}_{}", base_.filename().string(), local_time());
  backup_dir_ = dir / stem;
  // Two runs within a second.
  for (int n = 2; fs::exists(backup_dir_, error); ++n) backup_dir_ = dir / fmt::format("{}_{}", stem, n);
  fs::create_directory(backup_dir_, error);
  if (error) return make_error(ErrorCode::kIo, "{}: cannot be made: {}", backup_dir_.string(), error.message());
  for (const fs::path& path : old) {
    fs::rename(path, backup_dir_ / path.filename(), error);
    if (error) {
      return make_error(ErrorCode::kIo, "{}: cannot be moved to {}: {}", path.string(), backup_dir_.string(),
                        error.message());
    }
  }
  return {};
}

Expected<std::optional<RangeSet>> CalibrationFiles::prepare(const Json& identity, bool resume) {
  std::error_code error;
  fs::create_directories(base_.parent_path(), error);
  if (error) {
    return make_error(ErrorCode::kIo, "{}: cannot be made: {}", base_.parent_path().string(), error.message());
  }
  HADAL_RETURN_IF_ERROR(remove_leftovers());
  if (resume && fs::exists(identity_path(), error)) {
    HADAL_ASSIGN_OR_RETURN(const Json found, read_identity(identity_path()));
    HADAL_RETURN_IF_ERROR(expect_same_run(identity_path(), found, identity));
    for (const fs::path& path : {partial_path(), ranges_path()}) {
      if (!fs::exists(path, error)) continue;
      HADAL_ASSIGN_OR_RETURN(RangeSet ranges, read_range_set(path));
      return std::optional(std::move(ranges));
    }
    return std::optional<RangeSet>();
  }
  HADAL_RETURN_IF_ERROR(move_aside());
  HADAL_RETURN_IF_ERROR(write_file_atomically(identity_path(), identity.dump(2) + "\n"));
  return std::optional<RangeSet>();
}

Status CalibrationFiles::write_checkpoint(const RangeSet& ranges) const {
  return write_range_set(partial_path(), ranges);
}

Status CalibrationFiles::write_results(const RangeSet& ranges, std::span<const int64_t> world_sizes,
                                       const ModuleFilter& filter) const {
  for (const int64_t world_size : world_sizes) {
    for (int64_t rank = 0; rank < world_size; ++rank) {
      HADAL_ASSIGN_OR_RETURN(IncRankFile file, inc_rank_file(ranges, rank, world_size));
      HADAL_RETURN_IF_ERROR(apply_filter(filter, file));
      HADAL_RETURN_IF_ERROR(write_inc_measurement(base_, rank, world_size, file.measurement, file.module_names));
    }
  }
  HADAL_RETURN_IF_ERROR(write_range_set(ranges_path(), ranges));
  std::error_code error;
  fs::remove(partial_path(), error);
  if (error) return make_error(ErrorCode::kIo, "{}: cannot be removed: {}", partial_path().string(), error.message());
  return {};
}

}  // namespace hadal
