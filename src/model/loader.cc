#include "model/loader.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/resource_limits.h"
#include "tensor/bf16.h"
#include "tensor/block_scale.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

// What one job reads at most, unless a single panel (or head) is larger.
constexpr int64_t kJobBytes = 4 << 20;

StoredDType dtype_in(const Checkpoint& checkpoint) {
  return [&checkpoint](const PlannedTensor& tensor) {
    const Checkpoint::Entry* entry = checkpoint.find(tensor.name);
    HADAL_CHECK(entry != nullptr, "{} was not checked", tensor.name);
    return entry->info.dtype;
  };
}

struct Source {
  WeightDestination to;
  const Checkpoint::Entry* entry = nullptr;
  const Checkpoint::Entry* scale = nullptr;  // F8_E4M3 only
  int64_t rows = 0, cols = 0;                // a vector is one row
  int64_t row_unit = 1;                      // jobs begin and end at multiples of this
  int64_t row_bytes() const { return cols * static_cast<int64_t>(dtype_size_bytes(entry->info.dtype)); }
};

struct Job {
  const Source* source;
  int64_t row_begin, row_end;
};

// Buffers of one worker, grown to the largest job and reused.
struct Staging {
  std::vector<std::byte> raw;        // as stored
  std::vector<std::byte> converted;  // F32 or BF16
  std::vector<float> scales;         // of the whole tensor: 1 / 16,384 of its bytes
};

// rows [row_begin, + num_rows) of a tensor as F32, scales applied.
void dequantise_rows(const Source& source, const Staging& staging, int64_t row_begin, int64_t num_rows, float* out) {
  const BlockScaleLayout layout;
  const int64_t cols = source.cols;
  for (int64_t row = 0; row < num_rows; ++row, out += cols) {
    switch (source.entry->info.dtype) {
      case DType::kF8E4M3: {
        const auto* codes = reinterpret_cast<const uint8_t*>(staging.raw.data()) + row * cols;
        const float* scales = staging.scales.data() + layout.scale_idx(row_begin + row, 0, cols);
        for (int64_t col = 0; col < cols; ++col) out[col] = e4m3_to_f32(codes[col]) * scales[col / layout.block_cols];
        break;
      }
      case DType::kBF16: {
        const auto* values = reinterpret_cast<const bf16_t*>(staging.raw.data()) + row * cols;
        for (int64_t col = 0; col < cols; ++col) out[col] = bf16_to_f32(values[col]);
        break;
      }
      case DType::kF32:
        std::memcpy(out, staging.raw.data() + row * source.row_bytes(), static_cast<size_t>(source.row_bytes()));
        break;
      default:
        HADAL_CHECK(false, "{} was not checked", source.entry->info.name);
    }
  }
}

// Points `staging.converted` at rows of `dtype`, converting when they are stored otherwise.
const std::byte* rows_as(const Source& source, Staging& staging, DType dtype, int64_t row_begin, int64_t num_rows) {
  if (source.entry->info.dtype == dtype) return staging.raw.data();
  const size_t count = static_cast<size_t>(num_rows * source.cols);
  staging.converted.resize(count * sizeof(float));
  auto* values = reinterpret_cast<float*>(staging.converted.data());
  dequantise_rows(source, staging, row_begin, num_rows, values);
  if (dtype == DType::kF32) return staging.converted.data();
  HADAL_CHECK(dtype == DType::kBF16, "{}: no conversion to {}", source.entry->info.name, dtype_name(dtype));
  // In place: element i of the result lies at or before element i of the source.
  for (size_t i = 0; i < count; ++i) {
    const bf16_t rounded = f32_to_bf16(values[i]);
    std::memcpy(staging.converted.data() + i * sizeof(bf16_t), &rounded, sizeof(rounded));
  }
  return staging.converted.data();
}

std::byte* writable(const std::byte* arena_memory) { return const_cast<std::byte*>(arena_memory); }

void fill_matrix(const Source& source, Staging& staging, int64_t row_begin, int64_t num_rows) {
  const PackedMatrix& matrix = *source.to.matrix;
  const std::byte* rows = rows_as(source, staging, matrix.dtype, row_begin, num_rows);
  PackedMatrix part = matrix;
  part.rows = num_rows;
  const std::byte* panels = matrix.panels + row_begin / kPanelRows * matrix.panel_bytes();
  pack_panels(part, rows, source.cols, writable(panels), 0, part.num_panels());
  if (matrix.dtype == DType::kF8E4M3 && row_begin == 0) {
    pack_scales(matrix, staging.scales.data(), const_cast<float*>(matrix.scales));
  }
}

void fill_heads(const Source& source, Staging& staging, int64_t row_begin, int64_t num_rows) {
  std::vector<HeadWeights>& heads = *source.to.heads;
  const DType dtype = heads[0].w_uk.dtype;
  const int64_t row_bytes = source.cols * static_cast<int64_t>(dtype_size_bytes(dtype));
  const std::byte* rows = rows_as(source, staging, dtype, row_begin, num_rows);
  for (int64_t row = 0; row < num_rows; row += source.row_unit, rows += source.row_unit * row_bytes) {
    const HeadWeights& head = heads[static_cast<size_t>((row_begin + row) / source.row_unit)];
    pack_panels(head.w_uk, rows, source.cols, writable(head.w_uk.panels), 0, head.w_uk.num_panels());
    pack_panels_transposed(head.w_uk_t, rows, source.cols, writable(head.w_uk_t.panels), 0, head.w_uk_t.num_panels());
    pack_panels(head.w_uv, rows + head.w_uk.rows * row_bytes, source.cols, writable(head.w_uv.panels), 0,
                head.w_uv.num_panels());
  }
}

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, ThreadPool& pool, const LoadProgress& progress)
      : checkpoint_(checkpoint), pool_(pool), progress_(progress) {}

  void add(const WeightDestination& to) {
    Source source{.to = to, .entry = checkpoint_.find(to.tensor->name)};
    HADAL_CHECK(source.entry != nullptr, "{} was not checked", to.tensor->name);
    const Shape& shape = to.tensor->shape;
    source.rows = shape.rank() == 2 ? shape[0] : 1;
    source.cols = shape[shape.rank() - 1];
    if (to.matrix != nullptr) source.row_unit = kPanelRows;
    if (to.heads != nullptr) source.row_unit = source.rows / static_cast<int64_t>(to.heads->size());
    if (source.entry->info.dtype == DType::kF8E4M3) source.scale = checkpoint_.find(to.tensor->scale_name());
    sources_.push_back(source);
    total_bytes_ += source.entry->info.size_bytes();
  }

  Status load() {
    make_jobs();
    const auto available = available_memory_bytes();
    // A large checkpoint would only push the weights' own pages out; a small one is likely to be read again.
    drop_page_cache_ = available && total_bytes_ > *available / 4;
    std::vector<Staging> staging(static_cast<size_t>(pool_.num_threads()));
    std::vector<Status> results(staging.size());
    std::atomic<bool> failed{false};
    std::atomic<uint64_t> done_bytes{0};
    pool_.parallel_for(
        static_cast<int64_t>(jobs_.size()),
        [&](int64_t begin, int64_t end, int worker_idx) {
          for (int64_t i = begin; i < end && !failed.load(std::memory_order_relaxed); ++i) {
            const Job& job = jobs_[static_cast<size_t>(i)];
            if (Status status = run_job(job, staging[static_cast<size_t>(worker_idx)]); !status) {
              results[static_cast<size_t>(worker_idx)] = std::move(status);
              failed = true;
              return;
            }
            const uint64_t bytes = static_cast<uint64_t>((job.row_end - job.row_begin) * job.source->row_bytes());
            const uint64_t done = done_bytes.fetch_add(bytes) + bytes;
            if (worker_idx == 0 && progress_) progress_(done, total_bytes_);
          }
        },
        1);
    for (Status& result : results) HADAL_RETURN_IF_ERROR(std::move(result));
    if (progress_) progress_(total_bytes_, total_bytes_);
    return {};
  }

 private:
  void make_jobs() {
    // In the order of the files, so that reading is sequential.
    std::sort(sources_.begin(), sources_.end(), [](const Source& a, const Source& b) {
      return std::pair(a.entry->shard_idx, a.entry->info.data_begin) <
             std::pair(b.entry->shard_idx, b.entry->info.data_begin);
    });
    for (const Source& source : sources_) {
      const int64_t unit_bytes = source.row_unit * source.row_bytes();
      const int64_t rows = source.row_unit * std::max<int64_t>(1, kJobBytes / std::max<int64_t>(1, unit_bytes));
      for (int64_t row = 0; row < source.rows; row += rows) {
        jobs_.push_back({&source, row, std::min(row + rows, source.rows)});
      }
    }
  }

  Status run_job(const Job& job, Staging& staging) {
    const Source& source = *job.source;
    const int64_t num_rows = job.row_end - job.row_begin;
    const uint64_t offset = static_cast<uint64_t>(job.row_begin * source.row_bytes());
    staging.raw.resize(static_cast<size_t>(num_rows * source.row_bytes()));
    if (source.to.rows != nullptr) {
      return checkpoint_.read_range(*source.entry, offset, {source.to.rows + offset, staging.raw.size()});
    }
    HADAL_RETURN_IF_ERROR(checkpoint_.read_range(*source.entry, offset, staging.raw));
    if (source.scale != nullptr) {
      staging.scales.resize(static_cast<size_t>(source.scale->info.shape.num_elements()));
      HADAL_RETURN_IF_ERROR(checkpoint_.read(*source.scale, std::as_writable_bytes(std::span(staging.scales))));
    }
    if (drop_page_cache_) {
      ::posix_fadvise(checkpoint_.shard_of(*source.entry).file().fd(),
                      static_cast<off_t>(source.entry->info.data_begin + offset),
                      static_cast<off_t>(staging.raw.size()), POSIX_FADV_DONTNEED);
    }
    if (source.to.matrix != nullptr) fill_matrix(source, staging, job.row_begin, num_rows);
    if (source.to.heads != nullptr) fill_heads(source, staging, job.row_begin, num_rows);
    if (source.to.vector != nullptr) dequantise_rows(source, staging, job.row_begin, num_rows, source.to.vector);
    return {};
  }

  const Checkpoint& checkpoint_;
  ThreadPool& pool_;
  const LoadProgress& progress_;
  std::vector<Source> sources_;
  std::vector<Job> jobs_;
  uint64_t total_bytes_ = 0;
  bool drop_page_cache_ = false;
};

}  // namespace

uint64_t weight_memory_bytes(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                             const Checkpoint& checkpoint, DType act_dtype) {
  const std::vector<uint64_t> arenas = weight_arena_bytes(config, plan, dtype_in(checkpoint), act_dtype);
  return std::accumulate(arenas.begin(), arenas.end(), uint64_t{0});
}

Expected<ModelWeights> load_weights(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                                    const Checkpoint& checkpoint, DType act_dtype, ThreadPool& pool,
                                    const LoadProgress& progress) {
  ModelWeights weights;
  HADAL_ASSIGN_OR_RETURN(const std::vector<WeightDestination> destinations,
                         place_weights(config, plan, dtype_in(checkpoint), act_dtype, weights));
  Loader loader(checkpoint, pool, progress);
  for (const WeightDestination& to : destinations) loader.add(to);
  HADAL_RETURN_IF_ERROR(loader.load());
  return weights;
}

}  // namespace hadal
