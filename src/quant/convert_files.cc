#include "quant/convert_files.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/file.h"
#include "formats/message_text.h"
#include "quant/convert_journal.h"
#include "quant/output_file.h"
#include "quant/shard_converter.h"

namespace hadal {

namespace fs = std::filesystem;

namespace {

constexpr const char* kConfigName = "config.json";
constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr uint64_t kMaxIndexBytes = 256u << 20;
constexpr int kMaxDepth = 4;
constexpr size_t kMaxFiles = 10'000;

// Of weights: nothing that reads the converted folder wants a second set.
constexpr std::array kWeightExtensions = {".safetensors", ".bin",     ".pt", ".pth", ".gguf",
                                          ".onnx",        ".msgpack", ".h5", ".ot"};

bool is_weights(const fs::path& path) {
  return std::find(kWeightExtensions.begin(), kWeightExtensions.end(), path.extension().string()) !=
         kWeightExtensions.end();
}

bool is_index_of_shards(const std::string& relative) { return relative == kCheckpointIndexName; }

class Lister {
 public:
  Lister(const fs::path& dir, const Checkpoint& checkpoint) : dir_(dir), checkpoint_(checkpoint) {}

  Expected<SideFiles> run() {
    HADAL_RETURN_IF_ERROR(walk(dir_, 0));
    std::sort(files_.copied.begin(), files_.copied.end(),
              [](const SideFile& a, const SideFile& b) { return a.relative < b.relative; });
    std::sort(files_.skipped.begin(), files_.skipped.end());
    return std::move(files_);
  }

 private:
  Status walk(const fs::path& folder, int depth) {
    std::error_code code;
    for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code)) {
      HADAL_RETURN_IF_ERROR(take(*at, depth));
    }
    if (code) return make_error(ErrorCode::kIo, "{}: cannot list: {}", folder.string(), code.message());
    return {};
  }

  Status take(const fs::directory_entry& entry, int depth) {
    const std::string name = entry.path().filename().string();
    const fs::path relative = entry.path().lexically_relative(dir_);
    if (name.starts_with(".") || name == kConvertJournalName || name == kSidecarFolder) return {};
    std::error_code code;
    if (entry.is_directory(code) && !entry.is_symlink(code)) {
      if (depth < kMaxDepth) return walk(entry.path(), depth + 1);
      files_.skipped.push_back(relative.string() + "/");
      return {};
    }
    if (is_weights(entry.path())) {
      if (depth > 0 || !is_shard(name)) files_.skipped.push_back(relative.string());
      return {};
    }
    if (!entry.is_regular_file(code) || is_temporary_name(name)) {
      files_.skipped.push_back(relative.string());
      return {};
    }
    if (files_.copied.size() == kMaxFiles) {
      return make_error(ErrorCode::kUnsupported, "{}: more than {} files beside the weights; is this a model folder?",
                        dir_.string(), kMaxFiles);
    }
    files_.copied.push_back({relative, entry.file_size(code)});
    return {};
  }

  bool is_shard(const std::string& name) const {
    const auto& shards = checkpoint_.shards();
    return std::any_of(shards.begin(), shards.end(),
                       [&](const SafetensorsFile& shard) { return shard.path().filename() == name; });
  }

  const fs::path& dir_;
  const Checkpoint& checkpoint_;
  SideFiles files_;
};

Expected<Json> parse_config(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(Json json, parse_json(text, {.max_bytes = kMaxConfigBytes, .refuse_duplicate_keys = true}));
  if (!json.is_object()) return make_error(ErrorCode::kCorrupt, "{}, expected an object", json.type_name());
  return json;
}

bool moves_tensors(const ConvertPlan& plan) { return plan.method == ConvertMethod::kChannel; }

// Writes `content` to the output and, for a conversion that can be reversed, the original beside the sidecars.
Status write_changed(const fs::path& output, const char* name, std::string_view original, std::string_view content,
                     const ConvertPlan& plan) {
  if (plan.has_sidecar() && content != original) {
    HADAL_RETURN_IF_ERROR(write_file_atomically(output / kSidecarFolder / name, original));
  }
  return write_file_atomically(output / name, content);
}

// In reverse the original lies beside the sidecars, where it differed.
Expected<std::string> read_original(const fs::path& input, const char* name, uint64_t max_bytes, bool reverse) {
  std::error_code ignored;
  const fs::path kept = input / kSidecarFolder / name;
  return read_file(reverse && fs::exists(kept, ignored) ? kept : input / name, max_bytes);
}

}  // namespace

Expected<SideFiles> list_side_files(const fs::path& dir, const Checkpoint& checkpoint) {
  return Lister(dir, checkpoint).run();
}

Expected<std::string> converted_config(std::string_view text, const ConvertPlan& plan, bool has_input_scales) {
  HADAL_ASSIGN_OR_RETURN(Json config, parse_config(text));
  if (plan.reverse || !plan.converts()) return std::string(text);
  const ConvertMarker marker = {plan.method, plan.target, plan.bug_compatible};
  if (plan.method != ConvertMethod::kChannel) return add_marker_to_config(text, marker);
  config["quantization_config"] = {
      {"activation_scheme", has_input_scales ? "static" : "dynamic"}, {"fmt", "e4m3"}, {"quant_method", "fp8"}};
  config[kConvertMarkerKey] = marker_to_json(marker);
  return config.dump(4, ' ', false, Json::error_handler_t::replace) + "\n";
}

Expected<std::string> converted_index(std::string_view text, const ConvertPlan& plan) {
  HADAL_ASSIGN_OR_RETURN(Json index, parse_json(text, {.max_bytes = kMaxIndexBytes, .max_depth = 16}));
  if (plan.reverse) return std::string(text);
  const auto metadata = index.find("metadata");
  const bool has_total = metadata != index.end() && metadata->is_object() && metadata->contains("total_size");
  const bool total_right = !has_total || (*metadata)["total_size"] == plan.output_bytes;
  if (total_right && !moves_tensors(plan)) return std::string(text);
  if (!has_total) index["metadata"] = Json::object();
  index["metadata"]["total_size"] = plan.output_bytes;
  if (moves_tensors(plan)) {
    std::vector<std::pair<std::string, std::string>> places;
    for (const ShardPlan& shard : plan.shards) {
      for (const PlannedOutput& output : shard.outputs) places.emplace_back(output.name, shard.file_name);
    }
    std::sort(places.begin(), places.end());
    // Joined by hand: an ordered_json object looks through all keys at every insertion.
    std::string map;
    for (const auto& [name, file] : places) {
      map += fmt::format("{}\n    {}: {}", map.empty() ? "" : ",", dump_json(Json(name)), dump_json(Json(file)));
    }
    return fmt::format("{{\n  \"metadata\": {},\n  \"weight_map\": {{{}\n  }}\n}}\n", dump_json(index["metadata"]),
                       map);
  }
  return index.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Status write_side_files(const fs::path& input, const fs::path& output, const SideFiles& files,
                        const ConvertPlan& plan) {
  std::error_code code;
  bool has_index = false;
  for (const SideFile& file : files.copied) {
    if (is_index_of_shards(file.relative.string())) has_index = true;
    if (file.relative == kConfigName || is_index_of_shards(file.relative.string())) continue;
    if (file.relative.has_parent_path()) {
      fs::create_directories((output / file.relative).parent_path(), code);
      remove_stale_temporaries((output / file.relative).parent_path());
    }
    HADAL_RETURN_IF_ERROR(copy_file_durably(input / file.relative, output / file.relative));
  }
  const bool has_input_scales = std::any_of(plan.shards.begin(), plan.shards.end(), [](const ShardPlan& shard) {
    return std::any_of(shard.outputs.begin(), shard.outputs.end(),
                       [](const PlannedOutput& output) { return output.action == TensorAction::kConstant; });
  });
  HADAL_ASSIGN_OR_RETURN(const std::string config, read_original(input, kConfigName, kMaxConfigBytes, plan.reverse));
  auto new_config = converted_config(config, plan, has_input_scales);
  if (!new_config) return forward_error(std::move(new_config), (input / kConfigName).string());
  HADAL_RETURN_IF_ERROR(write_changed(output, kConfigName, config, *new_config, plan));
  if (has_index) {
    HADAL_ASSIGN_OR_RETURN(const std::string index,
                           read_original(input, kCheckpointIndexName, kMaxIndexBytes, plan.reverse));
    auto new_index = converted_index(index, plan);
    if (!new_index) return forward_error(std::move(new_index), (input / kCheckpointIndexName).string());
    HADAL_RETURN_IF_ERROR(write_changed(output, kCheckpointIndexName, index, *new_index, plan));
  }
  sync_folder(output);
  return {};
}

}  // namespace hadal
