#include "formats/checkpoint.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/json.h"
#include "base/names.h"
#include "formats/message_text.h"

namespace hadal {

namespace fs = std::filesystem;

namespace {

// DeepSeek-V3's index has 9 MB for 92k tensors in 163 shards.
constexpr uint64_t kMaxIndexBytes = 256u << 20;
constexpr size_t kMaxIndexValues = 4'000'000;
constexpr size_t kMaxShards = 1000;  // each keeps a file descriptor, of which a process commonly has 1024

struct Index {
  std::vector<std::string> shard_names;                 // sorted
  std::vector<std::pair<std::string, size_t>> tensors;  // name, index into shard_names
};

// The index may name files of its own folder and nothing else.
Status check_shard_name(const std::string& name) {
  const auto refuse = [&](const char* why) {
    return make_error(ErrorCode::kCorrupt, "weight_map names the file {}: {}; expected a plain name in the same folder",
                      quote_name(name), why);
  };
  if (name.empty()) return refuse("empty");
  if (name.find('\0') != std::string::npos) return refuse("holds a NUL byte");
  if (name.front() == '/') return refuse("an absolute path");
  if (name == "." || name == ".." || name.starts_with("../") || name.find("/..") != std::string::npos) {
    return refuse("leads out of the folder");
  }
  if (name.find('/') != std::string::npos) return refuse("a path with directories");
  return {};
}

Expected<Index> parse_index(std::string_view text, std::vector<Error>& problems, const std::string& where) {
  HADAL_ASSIGN_OR_RETURN(const Json json, parse_json(text, {.max_bytes = kMaxIndexBytes,
                                                            .max_depth = 16,
                                                            .max_values = kMaxIndexValues,
                                                            .refuse_duplicate_keys = true}));
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (map == json.end()) {
    return make_error(ErrorCode::kCorrupt, "no \"weight_map\"; expected {{\"weight_map\": {{tensor: file}}}}");
  }
  if (!map->is_object()) {
    return make_error(ErrorCode::kCorrupt, "weight_map is {}, expected an object {{tensor: file}}", show_json(*map));
  }
  if (map->empty()) return make_error(ErrorCode::kCorrupt, "weight_map is empty");
  std::map<std::string, std::vector<std::string>> tensors_of;  // by shard
  for (const auto& [tensor, file] : map->items()) {
    if (file.is_string()) {
      tensors_of[file.get_ref<const std::string&>()].push_back(tensor);
    } else {
      problems.push_back(
          {ErrorCode::kCorrupt, fmt::format("{}: weight_map places tensor {} in {}, expected a file name", where,
                                            quote_name(tensor), show_json(file))});
    }
  }
  Index index;
  for (auto& [name, tensors] : tensors_of) {
    if (auto status = check_shard_name(name); !status) problems.push_back(std::move(status).error().in(where));
    for (std::string& tensor : tensors) index.tensors.emplace_back(std::move(tensor), index.shard_names.size());
    index.shard_names.push_back(name);
  }
  if (index.shard_names.size() > kMaxShards) {
    return make_error(ErrorCode::kUnsupported, "weight_map names {} files, at most {} are supported",
                      index.shard_names.size(), kMaxShards);
  }
  return index;
}

bool is_present(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

std::vector<std::string> safetensors_names_in(const fs::path& dir) {
  std::vector<std::string> names;
  std::error_code code;
  for (fs::directory_iterator at(dir, code), end; !code && at != end; at.increment(code)) {
    if (at->path().extension() == ".safetensors") names.push_back(at->path().filename().string());
  }
  return names;
}

}  // namespace

class CheckpointOpener {
 public:
  CheckpointOpener(const fs::path& dir, std::vector<Error>& problems) : dir_(dir), problems_(problems) {}

  Checkpoint run() {
    std::error_code code;
    if (!fs::is_directory(dir_, code)) {
      const bool exists = is_present(dir_);
      report(make_error(exists ? ErrorCode::kInvalidArgument : ErrorCode::kNotFound, "{}: {}, expected a model folder",
                        dir_.string(), exists ? "not a directory" : "does not exist"));
    } else if (is_present(dir_ / kCheckpointIndexName)) {
      open_indexed();
    } else if (is_present(dir_ / kCheckpointSingleName)) {
      open_single();
    } else {
      const size_t num_files = safetensors_names_in(dir_).size();
      report(make_error(ErrorCode::kNotFound, "{}: neither {} nor {} ({} other .safetensors files); fetch the index",
                        dir_.string(), kCheckpointIndexName, kCheckpointSingleName, num_files));
    }
    auto& entries = checkpoint_.entries_;
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.info.name < b.info.name; });
    for (const auto& entry : entries) checkpoint_.total_tensor_bytes_ += entry.info.size_bytes();
    return std::move(checkpoint_);
  }

 private:
  void report(tl::unexpected<Error> error) { problems_.push_back(std::move(error.value())); }

  void open_single() {
    auto file = SafetensorsFile::open(dir_ / kCheckpointSingleName);
    if (!file) return problems_.push_back(std::move(file).error());
    for (const TensorInfo& info : file->tensors()) checkpoint_.entries_.push_back({0, info});
    checkpoint_.shards_.push_back(std::move(*file));
  }

  void open_indexed() {
    const fs::path path = dir_ / kCheckpointIndexName;
    const auto text = read_file(path, kMaxIndexBytes);
    if (!text) return problems_.push_back(text.error());
    auto index = parse_index(*text, problems_, path.string());
    if (!index) return problems_.push_back(std::move(index).error().in(path.string()));
    const auto shard_idx_of = open_shards(*index);
    place_tensors(*index, shard_idx_of);
    report_unlisted_tensors(*index, shard_idx_of);
  }

  // For each name of the index its place in shards_, or nothing when it could not be opened (reported).
  std::vector<std::optional<size_t>> open_shards(const Index& index) {
    std::vector<std::optional<size_t>> shard_idx_of;
    for (const std::string& name : index.shard_names) {
      shard_idx_of.emplace_back();
      if (!check_shard_name(name)) continue;
      if (!is_present(dir_ / name)) {
        report_missing_shard(name, index, shard_idx_of.size() - 1);
        continue;
      }
      auto file = SafetensorsFile::open(dir_ / name);
      if (!file) {
        problems_.push_back(std::move(file).error());
        continue;
      }
      shard_idx_of.back() = checkpoint_.shards_.size();
      checkpoint_.shards_.push_back(std::move(*file));
    }
    return shard_idx_of;
  }

  void report_missing_shard(const std::string& name, const Index& index, size_t idx) {
    const auto num_tensors = std::count_if(index.tensors.begin(), index.tensors.end(),
                                           [&](const auto& tensor) { return tensor.second == idx; });
    const std::string near = closest_name(name, safetensors_names_in(dir_));
    report(make_error(ErrorCode::kNotFound, "{}: does not exist, but {} places {} tensors in it{}; fetch the file",
                      (dir_ / name).string(), kCheckpointIndexName, num_tensors,
                      near.empty() ? "" : fmt::format(" (there is \"{}\")", near)));
  }

  void place_tensors(const Index& index, const std::vector<std::optional<size_t>>& shard_idx_of) {
    for (const auto& [name, idx] : index.tensors) {
      if (!shard_idx_of[idx]) continue;
      const TensorInfo* info = checkpoint_.shards_[*shard_idx_of[idx]].find(name);
      if (info != nullptr) {
        checkpoint_.entries_.push_back({*shard_idx_of[idx], *info});
      } else {
        report(make_error(ErrorCode::kCorrupt, "{}: tensor {} is not in this shard, where {} places it{}",
                          (dir_ / index.shard_names[idx]).string(), quote_name(name), kCheckpointIndexName,
                          hint_where_else(name)));
      }
    }
  }

  std::string hint_where_else(const std::string& name) const {
    for (const SafetensorsFile& shard : checkpoint_.shards_) {
      if (shard.find(name) != nullptr) return fmt::format("; it is in {}", shard.path().filename().string());
    }
    return {};
  }

  void report_unlisted_tensors(const Index& index, const std::vector<std::optional<size_t>>& shard_idx_of) {
    std::unordered_map<std::string_view, size_t> listed;
    for (const auto& [name, idx] : index.tensors) listed.emplace(name, idx);
    for (size_t idx = 0; idx < index.shard_names.size(); ++idx) {
      if (!shard_idx_of[idx]) continue;
      const SafetensorsFile& shard = checkpoint_.shards_[*shard_idx_of[idx]];
      for (const TensorInfo& info : shard.tensors()) {
        const auto at = listed.find(info.name);
        if (at == listed.end()) {
          report(make_error(ErrorCode::kCorrupt, "{}: holds tensor {}, which {} does not list", shard.path().string(),
                            quote_name(info.name), kCheckpointIndexName));
        } else if (at->second != idx) {
          report(make_error(ErrorCode::kCorrupt, "{}: holds tensor {}, which {} places in {}", shard.path().string(),
                            quote_name(info.name), kCheckpointIndexName, index.shard_names[at->second]));
        }
      }
    }
  }

  const fs::path& dir_;
  std::vector<Error>& problems_;
  Checkpoint checkpoint_;
};

Checkpoint Checkpoint::open_collecting(const fs::path& dir, std::vector<Error>& problems) {
  return CheckpointOpener(dir, problems).run();
}

Expected<Checkpoint> Checkpoint::open(const fs::path& dir) {
  std::vector<Error> problems;
  Checkpoint checkpoint = open_collecting(dir, problems);
  if (problems.empty()) return checkpoint;
  if (problems.size() > 1) problems[0].message += fmt::format(" (and {} more problems)", problems.size() - 1);
  return tl::unexpected<Error>(std::move(problems[0]));
}

const Checkpoint::Entry* Checkpoint::find(std::string_view name) const {
  const auto at =
      std::lower_bound(entries_.begin(), entries_.end(), name,
                       [](const Entry& entry, std::string_view wanted) { return entry.info.name < wanted; });
  return at != entries_.end() && at->info.name == name ? &*at : nullptr;
}

}  // namespace hadal
