#include "quant/convert.h"

#include <algorithm>
#include <future>
#include <utility>

#include "base/file.h"
#include "base/resource_limits.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "formats/message_text.h"
#include "formats/shard_reader.h"
#include "quant/convert_checks.h"
#include "quant/convert_plan.h"
#include "quant/convert_verify.h"
#include "quant/input_scales.h"
#include "quant/output_file.h"
#include "quant/shard_converter.h"
#include "quant/sidecar.h"

namespace hadal {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr uint64_t kSpareDiskBytes = 16 << 20;  // headers, journal, the file system's own needs
constexpr size_t kNumWorst = 10;

class Conversion {
 public:
  Conversion(const ConvertOptions& options, const ConvertEvents& events)
      : options_(options),
        events_(events),
        input_(canonical_folder(options.input)),
        output_(canonical_folder(options.output)),
        pool_(options.num_threads) {}

  Expected<ConvertSummary> run() {
    HADAL_RETURN_IF_ERROR(check_convert_folders(input_, output_));
    HADAL_RETURN_IF_ERROR(open_input());
    HADAL_RETURN_IF_ERROR(look_at_values());
    HADAL_ASSIGN_OR_RETURN(side_files_, list_side_files(input_, *checkpoint_));
    fill_summary();
    if (options_.dry_run) return std::move(summary_);
    HADAL_RETURN_IF_ERROR(open_output());
    HADAL_RETURN_IF_ERROR(convert_shards());
    HADAL_RETURN_IF_ERROR(finish());
    if (options_.verify) HADAL_RETURN_IF_ERROR(verify());
    return std::move(summary_);
  }

 private:
  void note(std::string_view text) const {
    if (events_.on_note) events_.on_note(text);
  }

  Status open_input() {
    HADAL_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(input_));
    checkpoint_ = std::move(checkpoint);
    const fs::path path = input_ / "config.json";
    HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxConfigBytes));
    auto config = parse_json(text, {.max_bytes = kMaxConfigBytes});
    if (!config) return forward_error(std::move(config), path.string());
    if (!config->is_object()) {
      return make_error(ErrorCode::kCorrupt, "{}: {}, expected an object", path.string(), config->type_name());
    }
    auto marker = marker_of_config(*config);
    if (!marker) return forward_error(std::move(marker), path.string());
    HADAL_RETURN_IF_ERROR(check_convert_marker(options_, input_, *marker));
    if (!options_.input_scales.empty()) {
      HADAL_ASSIGN_OR_RETURN(InputScales scales, load_input_scales(options_.input_scales));
      input_scales_ = std::move(scales);
    }
    auto plan = make_convert_plan(*checkpoint_, *config,
                                  {.method = options_.method,
                                   .target = options_.target,
                                   .bug_compatible = options_.bug_compatible,
                                   .reverse = options_.reverse,
                                   .input_scales = input_scales_ ? &*input_scales_ : nullptr});
    if (!plan) return forward_error(std::move(plan), input_.string());
    plan_ = std::move(*plan);
    return options_.reverse ? check_sidecars() : Status();
  }

  // All of them before the first byte.
  Status check_sidecars() const {
    for (const ShardPlan& shard : plan_.shards) {
      const fs::path path = sidecar_path(input_, shard.file_name);
      auto sidecar = SidecarReader::open(path);
      if (!sidecar && sidecar.error().code == ErrorCode::kNotFound) {
        return make_error(ErrorCode::kNotFound,
                          "{}: missing; without the bits that the conversion dropped, --reverse would only be "
                          "approximate. Copy the folder {} along, or fetch the official checkpoint",
                          path.string(), kSidecarFolder);
      }
      if (!sidecar) return forward_error(std::move(sidecar));
    }
    return {};
  }

  Status look_at_values() {
    HADAL_ASSIGN_OR_RETURN(summary_.scales, scan_scales(*checkpoint_, plan_, pool_));
    if (plan_.num_converted == 0) return {};
    HADAL_ASSIGN_OR_RETURN(const RangeEvidence evidence, sample_codes(*checkpoint_, plan_, pool_));
    summary_.found_range = detect_range_map(evidence);
    summary_.range_evidence = evidence.describe();
    if (options_.reverse) return {};
    const auto found = summary_.found_range;
    if (found && *found != RangeMap::kNone) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: its codes are already in the range of Gaudi 2, as --method {} leaves them ({}); use the "
                        "folder as it is, or convert from the official one",
                        input_.string(), range_map_name(*found), evidence.describe());
    }
    if (!found) {
      note(
          fmt::format("warning: {}: neither an official nor a converted checkpoint looks like that; taken for official",
                      evidence.describe()));
    }
    return {};
  }

  void fill_summary() {
    summary_.num_shards = plan_.shards.size();
    summary_.num_converted = plan_.num_converted;
    summary_.num_copied = plan_.num_copied;
    summary_.num_dropped = plan_.dropped.size();
    summary_.output_bytes = plan_.output_bytes;
    summary_.skipped_files = side_files_.skipped;
    summary_.num_side_files = side_files_.copied.size();
    summary_.nothing_to_convert = !plan_.converts();
    if (summary_.nothing_to_convert) {
      note("nothing to convert: no F8_E4M3 weight with a scale; the output is a copy");
    }
    if (!plan_.dropped.empty()) {
      note(fmt::format("{} tensors of MTP layers are dropped, as the peer does", plan_.dropped.size()));
    }
    if (!plan_.unused_input_scales.empty()) {
      note(fmt::format("{} input scales belong to no module of the folder, the first is {}",
                       plan_.unused_input_scales.size(), quote_name(plan_.unused_input_scales.front())));
    }
    for (const std::string& name : side_files_.skipped) note(fmt::format("not copied: {}", quote_name(name)));
  }

  // What must be equal for a folder to be gone on with.
  Json conversion_json() const {
    Json json = marker_to_json({options_.method, options_.target, options_.bug_compatible});
    json["reverse"] = options_.reverse;
    json["shards"] = plan_.shards.size();
    if (input_scales_) {
      Json values = Json::array();
      for (const auto& [module, scale] : *input_scales_) values.push_back(Json::array({module, scale}));
      const std::string text = dump_json(values);
      json["input_scales"] = hash_bytes(std::as_bytes(std::span(text)));
    }
    return json;
  }

  Status open_output() {
    std::error_code code;
    fs::create_directories(output_, code);
    if (code || !fs::is_directory(output_, code)) {
      return make_error(ErrorCode::kIo, "{}: cannot create the output folder{}{}", output_.string(), code ? ": " : "",
                        code ? code.message() : "");
    }
    HADAL_ASSIGN_OR_RETURN(ConvertJournal journal, ConvertJournal::open(output_, conversion_json()));
    journal_.emplace(std::move(journal));
    const fs::path sidecars = output_ / kSidecarFolder;
    if (plan_.has_sidecar()) {
      fs::create_directory(sidecars, code);
      if (code) return make_error(ErrorCode::kIo, "{}: cannot create: {}", sidecars.string(), code.message());
    }
    remove_stale_temporaries(sidecars);
    HADAL_RETURN_IF_ERROR(find_left_shards());
    return check_disk();
  }

  // Those that the journal does not name, or whose files are gone.
  Status find_left_shards() {
    for (const ShardPlan& shard : plan_.shards) {
      const ShardRecord* record = journal_->find(shard.file_name);
      if (record != nullptr) {
        HADAL_ASSIGN_OR_RETURN(const SourceIdentity source, identify_shard(checkpoint_->shards()[shard.shard_idx]));
        if (source != record->source) {
          return make_error(
              ErrorCode::kInvalidArgument,
              "{}: changed since {} was made from it (size, time or header); give a new output folder, or "
              "remove this one",
              (input_ / shard.file_name).string(), (output_ / shard.file_name).string());
        }
        if (is_whole(*record)) {
          ++summary_.num_resumed_shards;
          continue;
        }
      }
      left_.push_back(&shard);
    }
    return {};
  }

  bool is_whole(const ShardRecord& record) const {
    const auto file = SafetensorsFile::open(output_ / record.file_name);
    if (!file || file->size_bytes() != record.output.size_bytes) return false;
    const auto identity = identify_shard(*file);
    if (!identity || identity->header_hash != record.output.header_hash) return false;
    std::error_code code;
    return !plan_.has_sidecar() || fs::file_size(sidecar_path(output_, record.file_name), code) == record.sidecar_bytes;
  }

  Status check_disk() const {
    uint64_t needed = kSpareDiskBytes;
    for (const ShardPlan* shard : left_) needed += shard->output_bytes;
    for (const SideFile& file : side_files_.copied) needed += file.size_bytes;
    // Lost bits take about 1/1000 of trained weights.
    if (plan_.has_sidecar() && !left_.empty()) needed += plan_.converted_codes / 500;
    HADAL_ASSIGN_OR_RETURN(const uint64_t free, free_disk_bytes(output_));
    if (free >= needed) return {};
    return make_error(
        ErrorCode::kResourceExhausted,
        "{}: {:.2f} GB needed for {} of {} shards, {:.2f} GB free; make room and run the same command again",
        output_.string(), static_cast<double>(needed) / 1e9, left_.size(), plan_.shards.size(),
        static_cast<double>(free) / 1e9);
  }

  // Says what remains true after an error in the middle.
  Error with_advice(Error error) const {
    if (error.code == ErrorCode::kResourceExhausted || error.code == ErrorCode::kIo) {
      error.message +=
          fmt::format("; {} of {} shards are done and kept: {}run the same command again", journal_->shards().size(),
                      plan_.shards.size(), error.code == ErrorCode::kResourceExhausted ? "make room, then " : "");
    }
    return error;
  }

  Status convert_shards() {
    auto status = run_shards();
    if (!status) return tl::unexpected<Error>(with_advice(std::move(status).error()));
    return {};
  }

  Status run_shards() {
    const auto memory = available_memory_bytes();
    // Small checkpoints stay in the page cache, for the next reader.
    const bool direct = !memory || checkpoint_->total_tensor_bytes() > *memory / 4;
    const ShardReader reader(*checkpoint_, direct);
    uint64_t done = 0, total = 0;
    for (const ShardPlan* shard : left_) total += shard->work_bytes;
    ShardConverter converter({.checkpoint = &*checkpoint_,
                              .plan = &plan_,
                              .reader = &reader,
                              .pool = &pool_,
                              .input = input_,
                              .output = output_,
                              .on_progress = [&](uint64_t bytes) {
                                done += bytes;
                                if (events_.on_progress) events_.on_progress("converting", done, total);
                              }});
    // While one shard goes to the disk, the next is made.
    std::future<Status> commit;
    for (const ShardPlan* shard : left_) {
      auto made = converter.convert(*shard);
      if (commit.valid()) HADAL_RETURN_IF_ERROR(commit.get());
      if (!made) return forward_error(std::move(made));
      commit = std::async(std::launch::async, [this, shard_made = std::move(*made)]() mutable -> Status {
        HADAL_RETURN_IF_ERROR(shard_made.commit());
        return journal_->add(std::move(shard_made.record));
      });
    }
    return commit.valid() ? commit.get() : Status();
  }

  Status finish() {
    std::error_code code;
    const bool has_config = fs::exists(output_ / "config.json", code);
    const bool has_index =
        fs::exists(output_ / kCheckpointIndexName, code) || !fs::exists(input_ / kCheckpointIndexName, code);
    if (!journal_->is_complete() || !left_.empty() || !has_config || !has_index) {
      if (auto status = write_side_files(input_, output_, side_files_, plan_); !status) {
        return tl::unexpected<Error>(with_advice(std::move(status).error()));
      }
      HADAL_RETURN_IF_ERROR(journal_->mark_complete());
    } else {
      note("all shards were done already");
    }
    std::vector<TensorReport> tensors;
    for (const ShardPlan& shard : plan_.shards) {
      const ShardRecord* record = journal_->find(shard.file_name);
      summary_.sidecar_bytes += record->sidecar_bytes;
      for (const TensorReport& tensor : record->tensors) {
        summary_.codes.add(tensor.stats);
        if (tensor.stats.num_inexact > 0) tensors.push_back(tensor);
      }
    }
    const auto share = [](const TensorReport& tensor) {
      return static_cast<double>(tensor.stats.num_inexact) / static_cast<double>(tensor.stats.num_codes);
    };
    std::stable_sort(tensors.begin(), tensors.end(),
                     [&](const TensorReport& a, const TensorReport& b) { return share(a) > share(b); });
    tensors.resize(std::min(tensors.size(), kNumWorst));
    summary_.worst = std::move(tensors);
    return {};
  }

  Status verify() {
    uint64_t done = 0, total = 0;
    for (const ShardPlan& shard : plan_.shards) total += shard.work_bytes;
    HADAL_ASSIGN_OR_RETURN(const VerifyResult result, verify_conversion({.checkpoint = &*checkpoint_,
                                                                         .plan = &plan_,
                                                                         .pool = &pool_,
                                                                         .input = input_,
                                                                         .output = output_,
                                                                         .on_progress = [&](uint64_t bytes) {
                                                                           done += bytes;
                                                                           if (events_.on_progress)
                                                                             events_.on_progress("verifying", done,
                                                                                                 total);
                                                                         }}));
    summary_.num_verified_tensors = result.num_tensors;
    return {};
  }

  const ConvertOptions& options_;
  const ConvertEvents& events_;
  const fs::path input_, output_;
  ThreadPool pool_;
  std::optional<Checkpoint> checkpoint_;
  std::optional<InputScales> input_scales_;
  ConvertPlan plan_;
  SideFiles side_files_;
  std::optional<ConvertJournal> journal_;
  std::vector<const ShardPlan*> left_;
  ConvertSummary summary_;
};

}  // namespace

Expected<ConvertSummary> convert_checkpoint(const ConvertOptions& options, const ConvertEvents& events) {
  HADAL_RETURN_IF_ERROR(check_convert_options(options));
  return Conversion(options, events).run();
}

}  // namespace hadal
