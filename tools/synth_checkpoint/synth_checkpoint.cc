#include "synth_checkpoint/synth_checkpoint.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "formats/hf_config.h"
#include "formats/safetensors_writer.h"
#include "model/config.h"
#include "model/weight_plan.h"
#include "tensor/block_scale.h"

namespace hadal {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr size_t kMaxShards = 1000;  // the reader's limit too
constexpr int64_t kBandBytes = 8 << 20;
constexpr int64_t kBandRowMultiple = 128;  // whole scale blocks

constexpr std::array kTokenizerFiles = {
    "tokenizer.json",          "tokenizer_config.json",  "tiktoken.model",
    "special_tokens_map.json", "generation_config.json", "chat_template.jinja",
};

// A tensor of the plan, where its bytes go, and what they are.
struct Target {
  struct Place {
    size_t shard_idx = 0;
    size_t tensor_idx = 0;  // in that shard
  };
  const PlannedTensor* planned = nullptr;
  DType dtype = DType::kBF16;
  TensorValues values;
  int64_t rows = 1;
  int64_t cols = 0;
  Place weight;
  Place scale;  // F8_E4M3 only
};

struct Job {
  const Target* target = nullptr;
  RowBand band;
};

Expected<Json> load_config_json(const SynthOptions& options) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(options.config_path, kMaxConfigBytes));
  auto json = parse_json(text, {.max_bytes = kMaxConfigBytes, .refuse_duplicate_keys = true});
  if (!json) return forward_error(std::move(json), options.config_path.string());
  if (!json->is_object()) {
    return make_error(ErrorCode::kCorrupt, "{}: expected an object", options.config_path.string());
  }
  if (options.weights == SynthWeights::kBf16) json->erase("quantization_config");
  if (options.weights == SynthWeights::kFp8 && !json->contains("quantization_config")) {
    (*json)["quantization_config"] = {
        {"activation_scheme", "dynamic"}, {"fmt", "e4m3"}, {"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  }
  return json;
}

class SynthWriter {
 public:
  SynthWriter(const SynthOptions& options, const ModelConfig& config)
      : options_(options), config_(config), plan_(weight_plan(config)) {}

  Status run() {
    place_tensors();
    HADAL_RETURN_IF_ERROR(check_room());
    HADAL_RETURN_IF_ERROR(create_shards());
    HADAL_RETURN_IF_ERROR(write_bands());
    for (SafetensorsWriter& writer : writers_) HADAL_RETURN_IF_ERROR(writer.finish());
    return write_index();
  }

 private:
  // The next tensor of the current shard, or of a new one when it is full.
  Target::Place place(TensorToWrite tensor) {
    const uint64_t size_bytes = static_cast<uint64_t>(tensor.shape.num_elements()) * dtype_size_bytes(tensor.dtype);
    if (shards_.empty() || (shard_bytes_used_ > 0 && shard_bytes_used_ + size_bytes > options_.shard_bytes)) {
      shards_.emplace_back();
      shard_bytes_used_ = 0;
    }
    shard_bytes_used_ += size_bytes;
    total_bytes_ += size_bytes;
    shards_.back().push_back(std::move(tensor));
    return {shards_.size() - 1, shards_.back().size() - 1};
  }

  void place_tensors() {
    targets_.reserve(plan_.size());
    for (const PlannedTensor& planned : plan_) {
      Target target;
      target.planned = &planned;
      target.dtype = planned.official_dtype(config_.fp8_weights);
      target.values = values_of(planned, options_.values, options_.seed);
      if (planned.shape.rank() == 2) target.rows = planned.shape[0];
      target.cols = planned.shape[planned.shape.rank() - 1];
      target.weight = place({planned.name, target.dtype, planned.shape});
      if (target.dtype == DType::kF8E4M3) {
        target.scale =
            place({planned.scale_name(), DType::kF32, BlockScaleLayout{}.scale_shape(target.rows, target.cols)});
      }
      targets_.push_back(std::move(target));
    }
  }

  Status check_room() const {
    if (shards_.size() > kMaxShards) {
      return make_error(ErrorCode::kInvalidArgument, "{} shards of {} bytes: at most {} are supported", shards_.size(),
                        options_.shard_bytes, kMaxShards);
    }
    std::error_code code;
    const fs::space_info space = fs::space(options_.out_dir, code);
    if (!code && space.available < total_bytes_) {
      return make_error(ErrorCode::kResourceExhausted, "{}: needs {} bytes, {} are free", options_.out_dir.string(),
                        total_bytes_, space.available);
    }
    return {};
  }

  std::string shard_name(size_t shard_idx) const {
    return fmt::format("model-{:05}-of-{:06}.safetensors", shard_idx + 1, shards_.size());
  }

  Status create_shards() {
    for (size_t i = 0; i < shards_.size(); ++i) {
      HADAL_ASSIGN_OR_RETURN(
          auto writer, SafetensorsWriter::create(options_.out_dir / shard_name(i), shards_[i], {{"format", "pt"}}));
      writers_.push_back(std::move(writer));
    }
    return {};
  }

  std::vector<Job> make_jobs() const {
    std::vector<Job> jobs;
    for (const Target& target : targets_) {
      const int64_t row_bytes = target.cols * static_cast<int64_t>(dtype_size_bytes(target.dtype));
      const int64_t band_rows = std::max(kBandBytes / row_bytes / kBandRowMultiple, int64_t{1}) * kBandRowMultiple;
      for (int64_t row = 0; row < target.rows; row += band_rows) {
        jobs.push_back({&target, {row, std::min(row + band_rows, target.rows), target.cols}});
      }
    }
    return jobs;
  }

  Status write_bands() {
    const std::vector<Job> jobs = make_jobs();
    const int num_processors = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    ThreadPool pool(options_.num_threads > 0 ? options_.num_threads : num_processors);
    std::vector<BandData> buffers(static_cast<size_t>(pool.num_threads()));
    const auto work = [&](int64_t begin, int64_t end, int worker_idx) {
      for (int64_t i = begin; i < end && !failed_; ++i) {
        write_band(jobs[static_cast<size_t>(i)], buffers[static_cast<size_t>(worker_idx)]);
        if (worker_idx == 0) show_progress(false);
      }
    };
    pool.parallel_for(static_cast<int64_t>(jobs.size()), work, 1);
    show_progress(true);
    return first_error_ ? Status(tl::unexpected<Error>(*first_error_)) : Status();
  }

  void write_band(const Job& job, BandData& buffer) {
    const Target& target = *job.target;
    fill_band(target.values, options_.values, target.dtype, job.band, config_.ue8m0_scales, buffer);
    const uint64_t first = static_cast<uint64_t>(job.band.row_begin * job.band.cols) * dtype_size_bytes(target.dtype);
    note(writers_[target.weight.shard_idx].write_range(target.weight.tensor_idx, first, buffer.elements));
    if (!buffer.scales.empty()) {
      const int64_t first_scale = BlockScaleLayout{}.scale_idx(job.band.row_begin, 0, job.band.cols);
      note(writers_[target.scale.shard_idx].write_range(target.scale.tensor_idx,
                                                        static_cast<uint64_t>(first_scale) * sizeof(float),
                                                        std::as_bytes(std::span(buffer.scales))));
    }
    num_bytes_done_ += buffer.elements.size() + buffer.scales.size() * sizeof(float);
  }

  void note(Status status) {
    if (status) return;
    const std::lock_guard lock(error_mutex_);
    if (!first_error_) first_error_ = std::move(status).error();
    failed_ = true;
  }

  void show_progress(bool last) {
    using Clock = std::chrono::steady_clock;
    if (!options_.show_progress) return;
    const auto now = Clock::now();
    if (!last && now - last_shown_ < std::chrono::milliseconds(200)) return;
    last_shown_ = now;
    const double seconds = std::max(std::chrono::duration<double>(now - start_).count(), 1e-3);
    const double done_gb = static_cast<double>(num_bytes_done_) / 1e9;
    std::fprintf(stderr, "\r%.2f of %.2f GB, %.2f GB/s%s", done_gb, static_cast<double>(total_bytes_) / 1e9,
                 done_gb / seconds, last ? "\n" : " ");
  }

  Status write_index() const {
    std::map<std::string, std::string> shard_of;  // sorted, as the official files are
    for (size_t i = 0; i < shards_.size(); ++i) {
      for (const TensorToWrite& tensor : shards_[i]) shard_of[tensor.name] = shard_name(i);
    }
    // Joined by hand: an ordered_json object looks through all keys at every insertion.
    std::string text =
        fmt::format("{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{", total_bytes_);
    const char* separator = "\n    ";
    for (const auto& [name, shard] : shard_of) {
      text += fmt::format("{}{}: {}", separator, dump_json(Json(name)), dump_json(Json(shard)));
      separator = ",\n    ";
    }
    text += "\n  }\n}\n";
    return write_file_atomically(options_.out_dir / kCheckpointIndexName, text);
  }

  const SynthOptions& options_;
  const ModelConfig& config_;
  const std::vector<PlannedTensor> plan_;
  std::vector<Target> targets_;
  std::vector<std::vector<TensorToWrite>> shards_;
  uint64_t shard_bytes_used_ = 0;
  uint64_t total_bytes_ = 0;
  std::vector<SafetensorsWriter> writers_;

  std::atomic<uint64_t> num_bytes_done_{0};
  std::atomic<bool> failed_{false};
  std::mutex error_mutex_;
  std::optional<Error> first_error_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_shown_ = start_;  // worker 0 only
};

Status prepare_folder(const fs::path& dir) {
  std::error_code code;
  fs::create_directories(dir, code);
  if (code) return make_error(ErrorCode::kIo, "{}: cannot create: {}", dir.string(), code.message());
  if (!fs::is_empty(dir, code) || code) {
    return make_error(ErrorCode::kInvalidArgument, "{}: not empty; give a new folder", dir.string());
  }
  return {};
}

Status copy_tokenizer(const fs::path& from, const fs::path& to) {
  size_t num_copied = 0;
  for (const char* name : kTokenizerFiles) {
    std::error_code code;
    if (!fs::exists(from / name, code)) continue;
    fs::copy_file(from / name, to / name, code);
    if (code) return make_error(ErrorCode::kIo, "{}: cannot copy: {}", (from / name).string(), code.message());
    ++num_copied;
  }
  if (num_copied == 0) return make_error(ErrorCode::kNotFound, "{}: no tokenizer files", from.string());
  return {};
}

}  // namespace

Status write_synth_checkpoint(const SynthOptions& options) {
  HADAL_ASSIGN_OR_RETURN(const Json json, load_config_json(options));
  auto hf = parse_hf_config(dump_json(json));
  if (!hf) return forward_error(std::move(hf), options.config_path.string());
  auto config = make_model_config(*hf);
  if (!config) return forward_error(std::move(config), options.config_path.string());
  HADAL_RETURN_IF_ERROR(prepare_folder(options.out_dir));
  HADAL_RETURN_IF_ERROR(write_file_atomically(options.out_dir / "config.json", json.dump(2) + "\n"));
  if (!options.tokenizer_dir.empty()) {
    HADAL_RETURN_IF_ERROR(copy_tokenizer(options.tokenizer_dir, options.out_dir));
  }
  return SynthWriter(options, *config).run();
}

}  // namespace hadal
