#include "quant/shard_converter.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <utility>

#include "base/check.h"
#include "formats/message_text.h"
#include "formats/safetensors_writer.h"
#include "quant/convert_chunk.h"
#include "quant/row_requant.h"

namespace hadal {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kRowTaskCodes = int64_t{1} << 20;
constexpr size_t kMinWaveChunks = 64;
constexpr size_t kWaveChunksPerThread = 8;

size_t wave_chunks(int num_threads) {
  return std::max(kMinWaveChunks, kWaveChunksPerThread * static_cast<size_t>(num_threads));
}

// A weight that gets a scale a row, as far as this shard needs it.
struct RowWork {
  const PlannedOutput* codes = nullptr;   // null: the codes belong to another shard
  const PlannedOutput* scales = nullptr;  // null: the scales do
  size_t codes_idx = 0, scales_idx = 0;   // outputs of the shard
  std::vector<float> block_scales;
  std::vector<float> row_scales;  // filled as rows are done
};

struct Task {
  size_t output_idx = 0;
  uint64_t first = 0, count = 0;  // elements, or rows
  RowWork* rows = nullptr;        // null: elements
  size_t chunk_idx = 0;
};

struct TaskResult {
  Status status;
  CodeMapStats stats;
  EncodedChunk lost;
};

Expected<std::vector<float>> read_floats(const Checkpoint& checkpoint, const Checkpoint::Entry& entry) {
  std::vector<float> values(entry.info.size_bytes() / sizeof(float));
  HADAL_RETURN_IF_ERROR(checkpoint.read(entry, std::as_writable_bytes(std::span(values))));
  return values;
}

}  // namespace

// What one thread needs; reused for all shards.
struct ShardConverter::Worker {
  ShardReader::Buffer in;
  std::vector<std::byte> out;
  LostBits lost;
};

namespace {

// The work on one shard.
class ShardRun {
 public:
  ShardRun(const ShardConverter::Context& context, const ShardPlan& shard)
      : context_(context), plan_(*context.plan), shard_(shard) {}

  Expected<ConvertedShard> open() {
    const SafetensorsFile& source = context_.checkpoint->shards()[shard_.shard_idx];
    HADAL_RETURN_IF_ERROR(make_header(source));
    HADAL_ASSIGN_OR_RETURN(OutputFile file, OutputFile::create(context_.output / shard_.file_name));
    HADAL_RETURN_IF_ERROR(file.write_at(0, std::as_bytes(std::span(header_))));
    ConvertedShard out{.file = std::move(file), .sidecar = std::nullopt, .record = {}};
    out.record.file_name = shard_.file_name;
    HADAL_ASSIGN_OR_RETURN(out.record.source, identify_shard(source));
    out.record.output = {.size_bytes = header_.size() + shard_.output_bytes,
                         .mtime_ns = 0,
                         .header_hash = hash_bytes(std::as_bytes(std::span(header_)))};
    if (plan_.has_sidecar()) {
      HADAL_ASSIGN_OR_RETURN(const std::string header, read_shard_header(source));
      HADAL_ASSIGN_OR_RETURN(out.sidecar,
                             SidecarWriter::create(sidecar_path(context_.output, shard_.file_name), header));
    }
    HADAL_RETURN_IF_ERROR(make_tasks());
    return out;
  }

  const std::vector<Task>& tasks() const { return tasks_; }

  // On a worker.
  template <typename Worker>
  TaskResult run(const Task& task, Worker& worker, const OutputFile& file) const {
    TaskResult result;
    result.status = task.rows != nullptr ? run_rows(task, worker, file, result) : run_chunk(task, worker, file, result);
    return result;
  }

  // In the order of tasks().
  Status take(const Task& task, TaskResult result, ConvertedShard& shard) {
    HADAL_RETURN_IF_ERROR(std::move(result.status));
    const PlannedOutput& output = shard_.outputs[task.output_idx];
    if (output.action == TensorAction::kMapCodes || output.action == TensorAction::kRowCodes ||
        output.action == TensorAction::kRestoreCodes) {
      auto& tensors = shard.record.tensors;
      if (tensors.empty() || tensors.back().name != output.name) {
        tensors.push_back({output.name, {}});
        if (shard.sidecar) shard.sidecar->begin_tensor(output.name, output.size_bytes());
      }
      tensors.back().stats.add(result.stats);
      if (shard.sidecar) return shard.sidecar->add_chunk(result.lost);
    }
    return {};
  }

  // Row scales, after all tasks.
  Status finish(const OutputFile& file) const {
    for (const auto& [weight, work] : rows_) {
      if (work->scales == nullptr) continue;
      HADAL_RETURN_IF_ERROR(
          file.write_at(layout_[work->scales_idx].data_begin, std::as_bytes(std::span(work->row_scales))));
    }
    return {};
  }

 private:
  // Header and layout of the output.
  Status make_header(const SafetensorsFile& source) {
    if (plan_.reverse) return restore_header();
    std::vector<TensorToWrite> tensors;
    for (const PlannedOutput& output : shard_.outputs) tensors.push_back({output.name, output.dtype, output.shape});
    auto metadata = source.metadata();
    if (plan_.converts()) {
      metadata[kConvertMarkerKey] = dump_json(marker_to_json({plan_.method, plan_.target, plan_.bug_compatible}));
    }
    header_ = build_safetensors_header(tensors, metadata, &layout_);
    return {};
  }

  Status restore_header() {
    const fs::path path = sidecar_path(context_.input, shard_.file_name);
    HADAL_ASSIGN_OR_RETURN(SidecarReader opened, SidecarReader::open(path));
    sidecar_ = std::move(opened);
    header_ = sidecar_->original_header();
    auto parsed = header_.size() < 8 ? make_error(ErrorCode::kCorrupt, "no header")
                                     : parse_safetensors_header(std::string_view(header_).substr(8), header_.size(),
                                                                header_.size() + shard_.output_bytes);
    if (!parsed) return forward_error(std::move(parsed), path.string());
    layout_ = std::move(parsed->tensors);
    bool same = layout_.size() == shard_.outputs.size();
    for (size_t i = 0; same && i < layout_.size(); ++i) {
      const PlannedOutput& output = shard_.outputs[i];
      same = layout_[i].name == output.name && layout_[i].dtype == output.dtype && layout_[i].shape == output.shape;
    }
    if (!same) {
      return make_error(ErrorCode::kCorrupt, "{}: describes other tensors than {} holds", path.string(),
                        shard_.file_name);
    }
    return {};
  }

  Status make_tasks() {
    for (size_t idx = 0; idx < shard_.outputs.size(); ++idx) {
      const PlannedOutput& output = shard_.outputs[idx];
      if (output.action == TensorAction::kRowCodes || output.action == TensorAction::kRowScales) {
        HADAL_RETURN_IF_ERROR(add_row_work(idx));
        continue;
      }
      const ChunkLayout layout = chunk_layout(output);
      for (uint64_t i = 0; i < layout.num_chunks(); ++i) {
        const uint64_t first = i * layout.chunk_elements;
        tasks_.push_back({idx, first, std::min(layout.chunk_elements, layout.num_elements - first), nullptr, i});
      }
    }
    for (auto& [weight, work] : rows_) add_row_tasks(*weight, *work);
    return {};
  }

  Status add_row_work(size_t idx) {
    const PlannedOutput& output = shard_.outputs[idx];
    auto& work = rows_[output.source];
    if (work == nullptr) {
      work = std::make_unique<RowWork>();
      HADAL_ASSIGN_OR_RETURN(work->block_scales, read_floats(*context_.checkpoint, *output.scale));
      work->row_scales.resize(static_cast<size_t>(output.source->info.shape[0]), 1.0f);
    }
    const bool is_codes = output.action == TensorAction::kRowCodes;
    (is_codes ? work->codes : work->scales) = &output;
    (is_codes ? work->codes_idx : work->scales_idx) = idx;
    return {};
  }

  void add_row_tasks(const Checkpoint::Entry& weight, RowWork& work) {
    const int64_t rows = weight.info.shape[0], cols = weight.info.shape[1];
    if (cols == 0) return;
    const int64_t step = std::max<int64_t>(1, kRowTaskCodes / cols);
    const size_t output_idx = work.codes != nullptr ? work.codes_idx : work.scales_idx;
    for (int64_t first = 0; first < rows; first += step) {
      tasks_.push_back(
          {output_idx, static_cast<uint64_t>(first), static_cast<uint64_t>(std::min(step, rows - first)), &work, 0});
    }
  }

  template <typename Worker>
  Status run_chunk(const Task& task, Worker& worker, const OutputFile& file, TaskResult& result) const {
    const PlannedOutput& output = shard_.outputs[task.output_idx];
    const ChunkLayout layout = chunk_layout(output);
    const size_t in_bytes = task.count * layout.in_bytes, out_bytes = task.count * layout.out_bytes;
    std::span<const std::byte> in;
    if (in_bytes > 0) {
      HADAL_ASSIGN_OR_RETURN(in,
                             context_.reader->read(*output.source, task.first * layout.in_bytes, in_bytes, worker.in));
    }
    if (output.action != TensorAction::kCopy) {
      worker.out.resize(std::max(worker.out.size(), out_bytes));
      const auto out = std::span(worker.out).first(out_bytes);
      if (output.action == TensorAction::kRestoreCodes) {
        HADAL_RETURN_IF_ERROR(restore(output, task.chunk_idx, in, out, worker.lost, result.stats));
      } else {
        transform_chunk(output, plan_.map, in, out, worker.lost, result.stats);
      }
      if (plan_.has_sidecar() && output.action == TensorAction::kMapCodes) {
        result.lost = encode_lost_bits(worker.lost, {reinterpret_cast<const uint8_t*>(in.data()), in.size()});
      }
      in = out;
    }
    return write(file, layout_[task.output_idx].data_begin + task.first * layout.out_bytes, in);
  }

  Status restore(const PlannedOutput& output, size_t chunk_idx, std::span<const std::byte> in, std::span<std::byte> out,
                 LostBits& lost, CodeMapStats& stats) const {
    const SidecarTensor* tensor = sidecar_->find(output.name);
    if (tensor == nullptr || tensor->num_codes != output.size_bytes()) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor {} is not in it with {} codes",
                        sidecar_path(context_.input, shard_.file_name).string(), quote_name(output.name),
                        output.size_bytes());
    }
    HADAL_ASSIGN_OR_RETURN(lost, sidecar_->read_chunk(*tensor, chunk_idx));
    const bool possible = transform_chunk(output, plan_.map, in, out, lost, stats);
    if (possible && hash_bytes(out) == tensor->chunks[chunk_idx].codes_hash) return {};
    return make_error(ErrorCode::kCorrupt,
                      "{}: tensor {}, codes from {}: not what hadal convert wrote; the folder was changed since, fetch "
                      "the official one",
                      (context_.input / shard_.file_name).string(), quote_name(output.name),
                      chunk_idx * kSidecarChunkCodes);
  }

  template <typename Worker>
  Status run_rows(const Task& task, Worker& worker, const OutputFile& file, TaskResult& result) const {
    RowWork& work = *task.rows;
    const Checkpoint::Entry& weight = work.codes != nullptr ? *work.codes->source : *work.scales->source;
    const auto cols = static_cast<uint64_t>(weight.info.shape[1]);
    const size_t size = task.count * cols;
    HADAL_ASSIGN_OR_RETURN(const auto in, context_.reader->read(weight, task.first * cols, size, worker.in));
    const BlockRows rows = {.codes = {reinterpret_cast<const uint8_t*>(in.data()), in.size()},
                            .first_row = static_cast<int64_t>(task.first),
                            .cols = static_cast<int64_t>(cols),
                            .scales = work.block_scales,
                            .layout = plan_.layout};
    const auto row_scales = std::span(work.row_scales).subspan(task.first, task.count);
    compute_row_scales(rows, plan_.target, row_scales);
    if (work.codes == nullptr) return {};
    worker.out.resize(std::max(worker.out.size(), size));
    const auto out = std::span(worker.out).first(size);
    result.stats =
        requantise_rows(rows, plan_.target, row_scales, {reinterpret_cast<uint8_t*>(out.data()), out.size()});
    return write(file, layout_[work.codes_idx].data_begin + task.first * cols, out);
  }

  Status write(const OutputFile& file, uint64_t offset, std::span<const std::byte> bytes) const {
    HADAL_RETURN_IF_ERROR(file.write_at(offset, bytes));
    file.start_writeback(offset, bytes.size());
    return {};
  }

  const ShardConverter::Context& context_;
  const ConvertPlan& plan_;
  const ShardPlan& shard_;
  std::string header_;
  std::vector<TensorInfo> layout_;  // of the output, as shard_.outputs
  std::optional<SidecarReader> sidecar_;
  std::vector<Task> tasks_;
  std::map<const Checkpoint::Entry*, std::unique_ptr<RowWork>> rows_;
};

}  // namespace

fs::path sidecar_path(const fs::path& dir, const std::string& shard_name) {
  return dir / kSidecarFolder / (shard_name + ".lost");
}

uint64_t converter_memory_bytes(int num_threads) {
  // Each thread: what it reads, what it writes, lost bits; each chunk of a wave: a payload of at most a byte a code.
  constexpr uint64_t kPerThread = 3 * kMaxMapCodes + sizeof(uint32_t) * kMaxMapCodes;
  return static_cast<uint64_t>(num_threads) * kPerThread + wave_chunks(num_threads) * kMaxMapCodes;
}

Status ConvertedShard::commit() {
  if (sidecar) {
    HADAL_RETURN_IF_ERROR(sidecar->commit());
    record.sidecar_bytes = sidecar->size_bytes();
  }
  return file.commit();
}

ShardConverter::ShardConverter(Context context)
    : context_(std::move(context)), workers_(static_cast<size_t>(context_.pool->num_threads())) {}
ShardConverter::~ShardConverter() = default;

Expected<ConvertedShard> ShardConverter::convert(const ShardPlan& shard) {
  ShardRun run(context_, shard);
  HADAL_ASSIGN_OR_RETURN(ConvertedShard out, run.open());
  const std::vector<Task>& tasks = run.tasks();
  const size_t wave = wave_chunks(context_.pool->num_threads());
  for (size_t begin = 0; begin < tasks.size(); begin += wave) {
    const size_t count = std::min(wave, tasks.size() - begin);
    std::vector<TaskResult> results(count);
    context_.pool->parallel_for(
        static_cast<int64_t>(count),
        [&](int64_t first, int64_t last, int worker_idx) {
          for (int64_t i = first; i < last; ++i) {
            const auto at = static_cast<size_t>(i);
            results[at] = run.run(tasks[begin + at], workers_[static_cast<size_t>(worker_idx)], out.file);
          }
        },
        1);
    uint64_t written = 0;
    for (size_t i = 0; i < count; ++i) {
      const Task& task = tasks[begin + i];
      written += task.rows != nullptr
                     ? task.count * static_cast<uint64_t>(shard.outputs[task.output_idx].source->info.shape[1])
                     : task.count * chunk_layout(shard.outputs[task.output_idx]).out_bytes;
      HADAL_RETURN_IF_ERROR(run.take(task, std::move(results[i]), out));
    }
    if (context_.on_progress) context_.on_progress(written);
  }
  HADAL_RETURN_IF_ERROR(run.finish(out.file));
  return out;
}

}  // namespace hadal
