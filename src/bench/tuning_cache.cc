#include "bench/tuning_cache.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/topology.h"
#include "bench/host.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 20;
constexpr int64_t kMaxThreads = 4096;
constexpr int kVersion = 1;

// What an entry is for: {"cpu_model", "num_cores", "isa"}.
Json key_of(const KernelTable& kernels) {
  const HostFacts host = host_facts();
  return {{"cpu_model", host.cpu_model}, {"num_cores", host.num_cores}, {"isa", kernels.name}};
}

bool has_key(const Json& entry, const Json& key) {
  if (!entry.is_object()) return false;
  for (const auto& [name, value] : key.items()) {
    if (!entry.contains(name) || entry[name] != value) return false;
  }
  return true;
}

// The file's entries. Errors: kNotFound (no file), kCorrupt, kIo.
Expected<Json> read_entries(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxBytes));
  HADAL_ASSIGN_OR_RETURN(Json json, parse_json(text));
  if (!json.is_object() || json.value("version", Json()) != kVersion || !json.contains("entries") ||
      !json["entries"].is_array()) {
    return make_error(ErrorCode::kCorrupt, "no \"version\": {} with an array of \"entries\"", kVersion);
  }
  return std::move(json["entries"]);
}

Expected<int64_t> read_integer(const Json& entry, const char* key, int64_t most) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_number_integer() || *found < 0 || *found > most) {
    return make_error(ErrorCode::kCorrupt, "{} must be an integer from 0 to {}", key, most);
  }
  return found->get<int64_t>();
}

Expected<MachineTuning> read_entry(const Json& entry) {
  constexpr int64_t kMost = int64_t{1} << 31;
  MachineTuning tuning;
  HADAL_ASSIGN_OR_RETURN(tuning.kernels.max_group_tokens, read_integer(entry, "max_group_tokens", kMost));
  HADAL_ASSIGN_OR_RETURN(tuning.kernels.prefetch_bytes, read_integer(entry, "prefetch_bytes", kMost));
  HADAL_ASSIGN_OR_RETURN(const int64_t threads, read_integer(entry, "num_threads", kMaxThreads));
  tuning.num_threads = static_cast<int>(threads);
  return tuning;
}

void warn(const std::filesystem::path& path, const Error& error) {
  log_warning("{}: {}; the default settings are used, `hadal bench tune` writes the file anew", path.string(),
              error.message);
}

// The directory of a variable, with a suffix, when it is an absolute path.
std::optional<std::filesystem::path> from_environment(const char* variable, const char* suffix) {
  const char* value = std::getenv(variable);
  if (value == nullptr || value[0] != '/') return std::nullopt;
  return std::filesystem::path(value) / suffix;
}

}  // namespace

std::optional<std::filesystem::path> tuning_cache_path() {
  auto path = from_environment("XDG_CACHE_HOME", "hadal/tuning.json");
  return path ? path : from_environment("HOME", ".cache/hadal/tuning.json");
}

MachineTuning load_tuning(const std::filesystem::path& path, const KernelTable& kernels) {
  const auto entries = read_entries(path);
  if (!entries) {
    if (entries.error().code != ErrorCode::kNotFound) warn(path, entries.error());
    return {};
  }
  const Json key = key_of(kernels);
  for (const Json& entry : *entries) {
    if (!has_key(entry, key)) continue;
    const auto tuning = read_entry(entry);
    if (tuning) return *tuning;
    warn(path, tuning.error());
  }
  return {};
}

Status save_tuning(const std::filesystem::path& path, const KernelTable& kernels, const MachineTuning& tuning) {
  const Json key = key_of(kernels);
  Json kept = Json::array();
  // Whatever cannot be read is replaced.
  if (const auto entries = read_entries(path)) {
    for (const Json& entry : *entries) {
      if (entry.is_object() && !has_key(entry, key)) kept.push_back(entry);
    }
  }
  Json entry = key;
  entry["max_group_tokens"] = tuning.kernels.max_group_tokens;
  entry["prefetch_bytes"] = tuning.kernels.prefetch_bytes;
  entry["num_threads"] = tuning.num_threads;
  kept.push_back(std::move(entry));
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (error) return make_error(ErrorCode::kIo, "{}: {}", path.parent_path().string(), error.message());
  return write_file_atomically(path, Json{{"version", kVersion}, {"entries", std::move(kept)}}.dump(2) + "\n");
}

Json tuning_json() {
  return {{"max_group_tokens", kernel_tuning().max_group_tokens}, {"prefetch_bytes", kernel_tuning().prefetch_bytes}};
}

int apply_tuning(const KernelTable& kernels, int wanted_threads) {
  MachineTuning tuning;
  if (const auto path = tuning_cache_path()) {
    tuning = load_tuning(*path, kernels);
    if (const Status set = set_kernel_tuning(tuning.kernels); !set) {
      warn(*path, set.error());
      tuning = {};
    }
  }
  if (wanted_threads > 0) return wanted_threads;
  const CpuTopology topology = detect_topology();
  const bool fits = tuning.num_threads <= static_cast<int>(topology.cpus.size());
  return tuning.num_threads > 0 && fits ? tuning.num_threads : default_num_threads(topology);
}

}  // namespace hadal
