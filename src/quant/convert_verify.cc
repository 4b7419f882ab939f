#include "quant/convert_verify.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"
#include "formats/message_text.h"
#include "formats/shard_reader.h"
#include "quant/convert_chunk.h"
#include "quant/row_requant.h"
#include "quant/shard_converter.h"
#include "quant/sidecar.h"

namespace hadal {
namespace {

constexpr size_t kWaveChunks = 256;
constexpr int64_t kRowTaskCodes = int64_t{1} << 20;

std::span<const uint8_t> codes_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

struct Task {
  size_t output_idx = 0;
  uint64_t first = 0, count = 0;  // elements, or rows
  size_t chunk_idx = 0;
};

bool is_by_row(const PlannedOutput& output) {
  return output.action == TensorAction::kRowCodes || output.action == TensorAction::kRowScales;
}

class ShardProof {
 public:
  ShardProof(const VerifyContext& context, const Checkpoint& made, const ShardReader& in, const ShardReader& out,
             const ShardPlan& shard)
      : context_(context), plan_(*context.plan), made_(made), in_(in), out_(out), shard_(shard) {}

  Status open() {
    const bool from_input = plan_.reverse;
    if (from_input || plan_.has_sidecar()) {
      HADAL_ASSIGN_OR_RETURN(
          SidecarReader sidecar,
          SidecarReader::open(sidecar_path(from_input ? context_.input : context_.output, shard_.file_name)));
      sidecar_ = std::move(sidecar);
    }
    HADAL_RETURN_IF_ERROR(check_headers());
    for (size_t idx = 0; idx < shard_.outputs.size(); ++idx) add_tasks(idx);
    return {};
  }

  const std::vector<Task>& tasks() const { return tasks_; }

  // On any thread.
  Status prove(const Task& task) const {
    const PlannedOutput& output = shard_.outputs[task.output_idx];
    return is_by_row(output) ? prove_rows(task, output) : prove_chunk(task, output);
  }

 private:
  std::string where(const PlannedOutput& output) const {
    return fmt::format("{}: tensor {}", (context_.output / shard_.file_name).string(), quote_name(output.name));
  }

  Status check_headers() const {
    const auto at = std::find_if(made_.shards().begin(), made_.shards().end(), [&](const SafetensorsFile& file) {
      return file.path().filename() == shard_.file_name;
    });
    if (at == made_.shards().end() || at->tensors().size() != shard_.outputs.size()) {
      return make_error(ErrorCode::kCorrupt, "{}: {} tensors, expected {}",
                        (context_.output / shard_.file_name).string(),
                        at == made_.shards().end() ? 0 : at->tensors().size(), shard_.outputs.size());
    }
    for (size_t i = 0; i < shard_.outputs.size(); ++i) {
      const TensorInfo& found = at->tensors()[i];
      const PlannedOutput& wanted = shard_.outputs[i];
      if (found.name != wanted.name || found.dtype != wanted.dtype || found.shape != wanted.shape) {
        return make_error(ErrorCode::kCorrupt, "{}: tensor {} is {} {} {}, expected {} {} {}", at->path().string(), i,
                          quote_name(found.name), dtype_name(found.dtype), found.shape.to_string(),
                          quote_name(wanted.name), dtype_name(wanted.dtype), wanted.shape.to_string());
      }
    }
    return check_header_bytes(*at);
  }

  Status check_header_bytes(const SafetensorsFile& made) const {
    const SafetensorsFile& source = context_.checkpoint->shards()[shard_.shard_idx];
    if (sidecar_) {
      HADAL_ASSIGN_OR_RETURN(const std::string original, read_shard_header(plan_.reverse ? made : source));
      if (original != sidecar_->original_header()) {
        return make_error(ErrorCode::kCorrupt, "{}: header differs from the one that the sidecar keeps",
                          (plan_.reverse ? made : source).path().string());
      }
    }
    if (plan_.reverse) return {};
    for (const auto& [key, value] : source.metadata()) {
      const auto at = made.metadata().find(key);
      if (at == made.metadata().end() || at->second != value) {
        return make_error(ErrorCode::kCorrupt, "{}: __metadata__ has lost {}", made.path().string(), quote_name(key));
      }
    }
    return {};
  }

  void add_tasks(size_t idx) {
    const PlannedOutput& output = shard_.outputs[idx];
    if (is_by_row(output)) {
      const int64_t rows = output.source->info.shape[0], cols = output.source->info.shape[1];
      const int64_t step = cols > 0 ? std::max<int64_t>(1, kRowTaskCodes / cols) : 1;
      for (int64_t first = 0; cols > 0 && first < rows; first += step) {
        tasks_.push_back({idx, static_cast<uint64_t>(first), static_cast<uint64_t>(std::min(step, rows - first)), 0});
      }
      return;
    }
    const ChunkLayout layout = chunk_layout(output);
    for (uint64_t i = 0; i < layout.num_chunks(); ++i) {
      const uint64_t first = i * layout.chunk_elements;
      tasks_.push_back({idx, first, std::min(layout.chunk_elements, layout.num_elements - first), i});
    }
  }

  Status compare(const PlannedOutput& output, uint64_t offset, std::span<const std::byte> found,
                 std::span<const std::byte> expected) const {
    const auto at = std::mismatch(found.begin(), found.end(), expected.begin(), expected.end());
    if (at.first == found.end()) return {};
    return make_error(ErrorCode::kCorrupt,
                      "{}, byte {}: is 0x{:02X}, expected 0x{:02X}; remove the shard and run the "
                      "same command without --verify again to make it anew",
                      where(output), offset + static_cast<uint64_t>(at.first - found.begin()),
                      static_cast<unsigned>(*at.first), static_cast<unsigned>(*at.second));
  }

  Status prove_chunk(const Task& task, const PlannedOutput& output) const {
    const ChunkLayout layout = chunk_layout(output);
    const uint64_t in_offset = task.first * layout.in_bytes, out_offset = task.first * layout.out_bytes;
    ShardReader::Buffer in_buffer, out_buffer;
    std::span<const std::byte> in;
    if (layout.in_bytes > 0) {
      HADAL_ASSIGN_OR_RETURN(in, in_.read(*output.source, in_offset, task.count * layout.in_bytes, in_buffer));
    }
    HADAL_ASSIGN_OR_RETURN(const auto found,
                           out_.read(*made_.find(output.name), out_offset, task.count * layout.out_bytes, out_buffer));
    std::vector<std::byte> expected(found.size());
    if (output.action != TensorAction::kRestoreCodes) {
      define_chunk(output, plan_.map, in, expected);
      HADAL_RETURN_IF_ERROR(compare(output, out_offset, found, expected));
      return sidecar_ && output.action == TensorAction::kMapCodes ? prove_sidecar(task, output, in, found) : Status();
    }
    // What was restored must map to what it was restored from, and be what the sidecar saw.
    PlannedOutput forward = output;
    forward.action = TensorAction::kMapCodes;
    define_chunk(forward, plan_.map, found, expected);
    HADAL_RETURN_IF_ERROR(compare(output, out_offset, in, expected));
    const SidecarTensor* tensor = sidecar_->find(output.name);
    if (tensor == nullptr || task.chunk_idx >= tensor->chunks.size() ||
        tensor->chunks[task.chunk_idx].codes_hash != hash_bytes(found)) {
      return make_error(ErrorCode::kCorrupt, "{}, codes from {}: checksum differs from the original's", where(output),
                        out_offset);
    }
    return {};
  }

  // The sidecar's bits and the output give the input.
  Status prove_sidecar(const Task& task, const PlannedOutput& output, std::span<const std::byte> in,
                       std::span<const std::byte> found) const {
    const SidecarTensor* tensor = sidecar_->find(output.name);
    if (tensor == nullptr || task.chunk_idx >= tensor->chunks.size()) {
      return make_error(ErrorCode::kCorrupt, "{}: the sidecar does not have it", where(output));
    }
    HADAL_ASSIGN_OR_RETURN(const LostBits lost, sidecar_->read_chunk(*tensor, task.chunk_idx));
    std::vector<uint8_t> restored(found.size());
    const bool possible = unmap_exact_codes(codes_of(found), lost, restored);
    const auto codes = codes_of(in);
    if (possible && std::equal(restored.begin(), restored.end(), codes.begin(), codes.end()) &&
        tensor->chunks[task.chunk_idx].codes_hash == hash_bytes(in)) {
      return {};
    }
    return make_error(ErrorCode::kCorrupt, "{}, codes from {}: the sidecar does not restore the original",
                      where(output), task.first);
  }

  Status prove_rows(const Task& task, const PlannedOutput& output) const {
    const Checkpoint::Entry& weight = *output.source;
    const auto cols = static_cast<uint64_t>(weight.info.shape[1]);
    ShardReader::Buffer in_buffer, out_buffer;
    HADAL_ASSIGN_OR_RETURN(const auto in, in_.read(weight, task.first * cols, task.count * cols, in_buffer));
    std::vector<float> block_scales(output.scale->info.size_bytes() / sizeof(float));
    HADAL_RETURN_IF_ERROR(context_.checkpoint->read(*output.scale, std::as_writable_bytes(std::span(block_scales))));
    const BlockRows rows = {.codes = codes_of(in),
                            .first_row = static_cast<int64_t>(task.first),
                            .cols = static_cast<int64_t>(cols),
                            .scales = block_scales,
                            .layout = plan_.layout};
    std::vector<float> row_scales(task.count);
    compute_row_scales(rows, plan_.target, row_scales);
    std::span<const std::byte> expected = std::as_bytes(std::span(row_scales));
    uint64_t item_bytes = sizeof(float);
    std::vector<uint8_t> codes;
    if (output.action == TensorAction::kRowCodes) {
      codes.resize(in.size());
      requantise_rows(rows, plan_.target, row_scales, codes);
      expected = std::as_bytes(std::span(codes));
      item_bytes = cols;
    }
    HADAL_ASSIGN_OR_RETURN(const auto found,
                           out_.read(*made_.find(output.name), task.first * item_bytes, expected.size(), out_buffer));
    return compare(output, task.first * item_bytes, found, expected);
  }

  const VerifyContext& context_;
  const ConvertPlan& plan_;
  const Checkpoint& made_;
  const ShardReader& in_;
  const ShardReader& out_;
  const ShardPlan& shard_;
  std::optional<SidecarReader> sidecar_;
  std::vector<Task> tasks_;
};

}  // namespace

Expected<VerifyResult> verify_conversion(const VerifyContext& context) {
  HADAL_ASSIGN_OR_RETURN(const Checkpoint made, Checkpoint::open(context.output));
  const ShardReader in(*context.checkpoint, true), out(made, true);
  VerifyResult result;
  for (const ShardPlan& shard : context.plan->shards) {
    ShardProof proof(context, made, in, out, shard);
    HADAL_RETURN_IF_ERROR(proof.open());
    const std::vector<Task>& tasks = proof.tasks();
    for (size_t begin = 0; begin < tasks.size(); begin += kWaveChunks) {
      const size_t count = std::min(kWaveChunks, tasks.size() - begin);
      std::vector<Status> results(count);
      context.pool->parallel_for(
          static_cast<int64_t>(count),
          [&](int64_t first, int64_t last, int) {
            for (int64_t i = first; i < last; ++i) {
              results[static_cast<size_t>(i)] = proof.prove(tasks[begin + static_cast<size_t>(i)]);
            }
          },
          1);
      for (Status& status : results) HADAL_RETURN_IF_ERROR(std::move(status));
      if (context.on_progress) context.on_progress(shard.work_bytes * count / std::max<size_t>(1, tasks.size()));
    }
    result.num_tensors += shard.outputs.size();
    result.num_bytes += shard.output_bytes;
  }
  return result;
}

}  // namespace hadal
