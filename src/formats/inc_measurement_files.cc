#include <algorithm>
#include <charconv>
#include <set>
#include <system_error>

#include "base/file.h"
#include "formats/inc_measurement.h"

namespace hadal {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;
constexpr std::string_view kMiddle = "_hooks_maxabs_";
// Longer extensions first: they are tried as suffixes.
constexpr std::string_view kExtensions[] = {"_mod_list.json", ".json", ".npz"};
constexpr int64_t kMaxWorldSize = 1 << 16;

std::optional<int64_t> parse_number(std::string_view text, int64_t max) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_whole = error == std::errc() && end == text.data() + text.size();
  if (!is_whole || value < 0 || value > max || std::to_string(value) != text) return std::nullopt;
  return value;
}

std::string list_some(const std::vector<std::string>& names) {
  constexpr size_t kMaxListed = 8;
  std::string out;
  for (size_t i = 0; i < std::min(names.size(), kMaxListed); ++i) out += (i ? ", " : "") + names[i];
  if (names.size() > kMaxListed) out += fmt::format(" and {} more", names.size() - kMaxListed);
  return out;
}

std::optional<fs::path> existing_file(const fs::path& base, int64_t rank, int64_t world_size) {
  for (const char* extension : {".npz", ".json"}) {
    std::error_code ignored;
    if (const fs::path path = inc_file_path(base, rank, world_size, extension); fs::exists(path, ignored)) return path;
  }
  return std::nullopt;
}

}  // namespace

fs::path inc_file_path(const fs::path& base, int64_t rank, int64_t world_size, std::string_view extension) {
  fs::path path = base;
  path += fmt::format("{}{}_{}{}", kMiddle, rank, world_size, extension);
  return path;
}

std::optional<IncFileName> parse_inc_file_name(const fs::path& path) {
  std::string name = path.filename().string();
  IncFileName out;
  for (const std::string_view extension : kExtensions) {
    if (name.ends_with(extension)) {
      out.extension = extension;
      name.resize(name.size() - extension.size());
      break;
    }
  }
  const size_t middle = name.rfind(kMiddle);
  if (out.extension.empty() || middle == std::string::npos) return std::nullopt;
  const std::string numbers = name.substr(middle + kMiddle.size());
  const size_t split = numbers.find('_');
  if (split == std::string::npos) return std::nullopt;
  const auto rank = parse_number(std::string_view(numbers).substr(0, split), kMaxWorldSize);
  const auto world_size = parse_number(std::string_view(numbers).substr(split + 1), kMaxWorldSize);
  if (!rank || !world_size || *rank >= *world_size) return std::nullopt;
  out.base = path.parent_path() / name.substr(0, middle);
  out.rank = *rank;
  out.world_size = *world_size;
  return out;
}

Expected<IncMeasurement> read_inc_measurement(const fs::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string bytes, read_file(path, kMaxFileBytes));
  auto measurement = parse_inc_measurement(bytes);
  if (!measurement) return forward_error(std::move(measurement), path.string());
  return measurement;
}

Expected<std::vector<int64_t>> list_inc_world_sizes(const fs::path& base) {
  const fs::path dir = base.has_parent_path() ? base.parent_path() : fs::path(".");
  std::error_code error;
  fs::directory_iterator entry(dir, error);
  if (error) {
    return make_error(error == std::errc::no_such_file_or_directory ? ErrorCode::kNotFound : ErrorCode::kIo,
                      "{}: cannot list the measurement directory: {}", dir.string(), error.message());
  }
  std::set<int64_t> sizes;
  for (; entry != fs::directory_iterator(); entry.increment(error)) {
    if (error) return make_error(ErrorCode::kIo, "{}: {}", dir.string(), error.message());
    const auto name = parse_inc_file_name(entry->path());
    if (name && name->base.filename() == base.filename() && name->extension != "_mod_list.json") {
      sizes.insert(name->world_size);
    }
  }
  return std::vector<int64_t>(sizes.begin(), sizes.end());
}

Expected<std::vector<IncMeasurement>> read_inc_measurement_set(const fs::path& base, int64_t world_size) {
  std::vector<fs::path> paths;
  std::vector<std::string> missing;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    if (auto path = existing_file(base, rank, world_size)) {
      paths.push_back(std::move(*path));
    } else {
      missing.push_back(inc_file_path(base, rank, world_size, ".npz").filename().string());
    }
  }
  if (!missing.empty()) {
    return make_error(ErrorCode::kNotFound, "{}: {} of {} measurement files are missing (neither .npz nor .json): {}",
                      base.parent_path().string(), missing.size(), world_size, list_some(missing));
  }
  std::vector<IncMeasurement> out;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    HADAL_ASSIGN_OR_RETURN(IncMeasurement measurement, read_inc_measurement(paths[static_cast<size_t>(rank)]));
    if (measurement.local_rank.value_or(rank) != rank) {
      return make_error(ErrorCode::kInvalidArgument, "{}: LocalRank is {}, the file's name says {}",
                        paths[static_cast<size_t>(rank)].string(), *measurement.local_rank, rank);
    }
    out.push_back(std::move(measurement));
  }
  return out;
}

Status write_inc_measurement(const fs::path& base, int64_t rank, int64_t world_size, const IncMeasurement& measurement,
                             const std::vector<std::string>& module_names) {
  const auto path = [&](std::string_view extension) { return inc_file_path(base, rank, world_size, extension); };
  HADAL_RETURN_IF_ERROR(write_file_atomically(path(".json"), inc_measurement_json(measurement)));
  HADAL_RETURN_IF_ERROR(write_file_atomically(path("_mod_list.json"), inc_mod_list_json(module_names)));
  return write_file_atomically(path(".npz"), inc_measurement_npz(measurement));
}

}  // namespace hadal
