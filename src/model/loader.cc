#include "model/loader.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/resource_limits.h"
#include "formats/shard_reader.h"
#include "model/weight_fill.h"

namespace hadal {
namespace {

// What one job reads at most, unless a single panel (or head) is larger.
constexpr int64_t kJobBytes = 2 << 20;
// Loading threads wait for the disk as much as they work, hence more of them than cores on small machines. At most so
// many, that their buffers stay below 1 GB (4 times a job each, for kv_b_proj in F32).
constexpr int kMinThreads = 16, kMaxThreads = 64;
// A gap between the wanted parts of two rows that is smaller than this saves no reading of the disk.
constexpr int64_t kPageBytes = 4096;
constexpr auto kProgressInterval = std::chrono::milliseconds(100);

StoredDType dtype_in(const Checkpoint& checkpoint) {
  return [&checkpoint](const PlannedTensor& tensor) {
    const Checkpoint::Entry* entry = checkpoint.find(tensor.name);
    HADAL_CHECK(entry != nullptr, "{} was not checked", tensor.name);
    return entry->info.dtype;
  };
}

struct Job {
  const WeightSource* source;
  int64_t row_begin, row_end;

  int64_t num_rows() const { return row_end - row_begin; }
  uint64_t size_bytes() const;  // that are read
};

bool reads_whole_rows(const WeightSource& source) {
  return source.stored_row_bytes() - source.row_bytes() < kPageBytes;
}

int64_t read_row_bytes(const WeightSource& source) {
  return reads_whole_rows(source) ? source.stored_row_bytes() : source.row_bytes();
}

uint64_t Job::size_bytes() const { return static_cast<uint64_t>(num_rows() * read_row_bytes(*source)); }

// Modules that share one weight scale where the plan has one per module: gate and up, all rows of anything else.
std::tuple<int64_t, int64_t, int> module_key(const PlannedTensor& tensor) {
  WeightRole role = tensor.role;
  if (role == WeightRole::kDenseUp) role = WeightRole::kDenseGate;
  if (role == WeightRole::kSharedUp) role = WeightRole::kSharedGate;
  if (role == WeightRole::kExpertUp) role = WeightRole::kExpertGate;
  return {tensor.layer, tensor.expert, static_cast<int>(role)};
}

// The jobs of one NUMA node, taken in order by threads that run on it, so that pages are first touched there.
struct NodeJobs {
  std::vector<Job> jobs;
  std::atomic<size_t> next{0};
};

class Loader {
 public:
  Loader(const ModelConfig& config, const Checkpoint& checkpoint, const NumericsPlan& numerics,
         const NodeShares& shares, const LoadProgress& progress)
      : config_(config),
        checkpoint_(checkpoint),
        numerics_(numerics),
        shares_(shares),
        progress_(progress),
        nodes_(static_cast<size_t>(shares.num_nodes)) {}

  void add(const WeightDestination& to) {
    WeightSource source{.to = to,
                        .numerics = &numerics_,
                        .entry = checkpoint_.find(to.tensor->name),
                        .stored_row_scales = config_.fp8_row_scales};
    HADAL_CHECK(source.entry != nullptr, "{} was not checked", to.tensor->name);
    const Shape& shape = to.tensor->shape;
    source.rows = to.part.rows.size();
    source.cols = to.part.cols.size();
    source.stored_cols = shape[shape.rank() - 1];
    if (to.matrix != nullptr) source.row_unit = kPanelRows;
    if (to.heads != nullptr) source.row_unit = source.rows / static_cast<int64_t>(to.heads->size());
    if (source.entry->info.dtype == DType::kF8E4M3) source.scale = checkpoint_.find(to.tensor->scale_name());
    sources_.push_back(source);
    total_bytes_ += static_cast<uint64_t>(source.rows * read_row_bytes(source));
  }

  Status load() {
    make_jobs();
    // A large checkpoint would only push the weights' own pages out; a small one is likely to be read again.
    const auto available = available_memory_bytes();
    const ShardReader reader(checkpoint_, available && total_bytes_ > *available / 4);
    if (numerics_.weight_scale_per_tensor) {
      for (const WeightSource& source : sources_) {
        if (source.is_requantised()) module_amax_[module_key(*source.to.tensor)] = 0;
      }
      phase_ = Phase::kMeasure;
      HADAL_RETURN_IF_ERROR(run_jobs(reader));
      for (NodeJobs& node : nodes_) node.next = 0;
      done_bytes_ = 0;
    }
    phase_ = Phase::kFill;
    return run_jobs(reader);
  }

 private:
  enum class Phase { kMeasure, kFill };

  Status run_jobs(const ShardReader& reader) {
    const int num_threads = std::clamp(shares_.num_threads(), kMinThreads, kMaxThreads);
    num_running_ = num_threads;
    std::vector<std::thread> threads;
    for (int i = 0; i < num_threads; ++i) {
      const int node = shares_.node_of_worker[static_cast<size_t>(i) % shares_.node_of_worker.size()];
      threads.emplace_back([this, &reader, node] { run_thread(reader, node); });
    }
    report_until_done();
    for (std::thread& thread : threads) thread.join();
    return std::move(result_);
  }

  void make_jobs() {
    // Layers ascending, inside a layer in the order of the files: reading is sequential, and what a first step needs
    // comes first. The top level comes before layer 0, except what is needed last.
    const auto order = [](const WeightSource& source) {
      const PlannedTensor& tensor = *source.to.tensor;
      const bool last = tensor.role == WeightRole::kFinalNorm || tensor.role == WeightRole::kLmHead;
      return std::tuple(last, tensor.layer, source.entry->shard_idx, source.entry->info.data_begin);
    };
    std::sort(sources_.begin(), sources_.end(),
              [&](const WeightSource& a, const WeightSource& b) { return order(a) < order(b); });
    for (const WeightSource& source : sources_) {
      const int64_t lead = source.row_lead();
      const int64_t units = (lead + source.rows + source.row_unit - 1) / source.row_unit;
      for (int node = 0; node < shares_.num_nodes; ++node) {
        add_jobs(source, node, shares_.begin(units, node) * source.row_unit,
                 std::min(lead + source.rows, shares_.begin(units, node + 1) * source.row_unit));
      }
    }
  }

  // Rows are counted from the beginning of the first unit, row_lead() before the first row.
  void add_jobs(const WeightSource& source, int node, int64_t row_begin, int64_t row_end) {
    const int64_t unit_bytes = source.row_unit * read_row_bytes(source), lead = source.row_lead();
    const int64_t rows = source.row_unit * std::max<int64_t>(1, kJobBytes / std::max<int64_t>(1, unit_bytes));
    for (int64_t row = row_begin; row < row_end; row += rows) {
      nodes_[static_cast<size_t>(node)].jobs.push_back(
          {&source, std::max<int64_t>(row - lead, 0), std::min(row + rows, row_end) - lead});
    }
  }

  void run_thread(const ShardReader& reader, int node) {
    shares_.bind_current_thread(node);
    ShardReader::Buffer buffer;
    FillScratch scratch;
    NodeJobs& mine = nodes_[static_cast<size_t>(node)];
    Status status;
    for (size_t i; !failed_.load(std::memory_order_relaxed) && (i = mine.next.fetch_add(1)) < mine.jobs.size();) {
      status = run_job(reader, mine.jobs[i], buffer, scratch);
      if (!status) break;
      done_bytes_.fetch_add(mine.jobs[i].size_bytes(), std::memory_order_relaxed);
    }
    const std::lock_guard lock(mutex_);
    if (!status && result_) result_ = std::move(status);
    if (!result_) failed_ = true;
    if (--num_running_ == 0) all_done_.notify_one();
  }

  Status run_job(const ShardReader& reader, const Job& job, ShardReader::Buffer& buffer, FillScratch& scratch) {
    const WeightSource& source = *job.source;
    const auto amax = module_amax_.find(module_key(*source.to.tensor));
    if (phase_ == Phase::kMeasure && amax == module_amax_.end()) return {};
    if (source.scale != nullptr) {
      scratch.scales.resize(static_cast<size_t>(source.scale->info.shape.num_elements()));
      HADAL_RETURN_IF_ERROR(checkpoint_.read(*source.scale, std::as_writable_bytes(std::span(scratch.scales))));
    }
    HADAL_ASSIGN_OR_RETURN(const auto stored, read_rows(reader, job, buffer, scratch));
    if (phase_ == Phase::kMeasure) {
      raise(amax->second, largest_weight(source, stored.data(), job.row_begin, job.num_rows(), scratch));
    } else {
      std::optional<float> module_amax;
      if (amax != module_amax_.end()) module_amax = std::bit_cast<float>(amax->second.load());
      fill_weights(source, stored.data(), job.row_begin, job.num_rows(), scratch, module_amax);
    }
    return {};
  }

  // The wanted columns of a job's rows, side by side.
  static Expected<std::span<const std::byte>> read_rows(const ShardReader& reader, const Job& job,
                                                        ShardReader::Buffer& buffer, FillScratch& scratch) {
    const WeightSource& source = *job.source;
    const int64_t row_bytes = source.row_bytes(), stored_bytes = source.stored_row_bytes();
    const int64_t skipped = source.to.part.cols.begin * source.element_bytes();
    const auto offset = static_cast<uint64_t>((source.to.part.rows.begin + job.row_begin) * stored_bytes);
    if (row_bytes == stored_bytes) return reader.read(*source.entry, offset, job.size_bytes(), buffer);
    scratch.gathered.resize(static_cast<size_t>(job.num_rows() * row_bytes));
    std::byte* to = scratch.gathered.data();
    if (reads_whole_rows(source)) {
      HADAL_ASSIGN_OR_RETURN(const auto rows, reader.read(*source.entry, offset, job.size_bytes(), buffer));
      for (int64_t row = 0; row < job.num_rows(); ++row) {
        std::memcpy(to + row * row_bytes, rows.data() + row * stored_bytes + skipped, static_cast<size_t>(row_bytes));
      }
    } else {
      for (int64_t row = 0; row < job.num_rows(); ++row) {
        const uint64_t at = offset + static_cast<uint64_t>(row * stored_bytes + skipped);
        HADAL_ASSIGN_OR_RETURN(const auto part, reader.read(*source.entry, at, static_cast<size_t>(row_bytes), buffer));
        std::memcpy(to + row * row_bytes, part.data(), static_cast<size_t>(row_bytes));
      }
    }
    return std::span<const std::byte>(scratch.gathered);
  }

  // bits: of a float that is not negative, which order as the float does.
  static void raise(std::atomic<uint32_t>& bits, float value) {
    uint32_t old = bits.load();
    while (std::bit_cast<uint32_t>(value) > old && !bits.compare_exchange_weak(old, std::bit_cast<uint32_t>(value))) {
    }
  }

  void report_until_done() {
    std::unique_lock lock(mutex_);
    while (!all_done_.wait_for(lock, kProgressInterval, [this] { return num_running_ == 0; })) {
      if (progress_) progress_(done_bytes_.load(std::memory_order_relaxed), total_bytes_);
    }
    if (progress_ && result_) progress_(total_bytes_, total_bytes_);
  }

  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  const NumericsPlan& numerics_;
  const NodeShares& shares_;
  const LoadProgress& progress_;
  std::vector<WeightSource> sources_;
  std::vector<NodeJobs> nodes_;
  std::map<std::tuple<int64_t, int64_t, int>, std::atomic<uint32_t>> module_amax_;  // bits of a float
  Phase phase_ = Phase::kFill;
  uint64_t total_bytes_ = 0;
  std::atomic<uint64_t> done_bytes_{0};
  std::atomic<bool> failed_{false};

  std::mutex mutex_;  // guards what follows while threads run
  std::condition_variable all_done_;
  int num_running_ = 0;
  Status result_;
};

}  // namespace

uint64_t weight_memory_bytes(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                             const Checkpoint& checkpoint, DType act_dtype, const NumericsPlan& numerics,
                             const RankSlice& slice) {
  const std::vector<uint64_t> arenas =
      weight_arena_bytes(config, plan, numerics, dtype_in(checkpoint), act_dtype, slice);
  return std::accumulate(arenas.begin(), arenas.end(), uint64_t{0});
}

Expected<ModelWeights> load_weights(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                                    const Checkpoint& checkpoint, DType act_dtype, const NodeShares& shares,
                                    const LoadProgress& progress, NumericsPlan numerics, const RankSlice& slice) {
  ModelWeights weights;
  weights.numerics = std::move(numerics);
  HADAL_ASSIGN_OR_RETURN(const std::vector<WeightDestination> destinations,
                         place_weights(config, plan, dtype_in(checkpoint), act_dtype, weights, slice));
  Loader loader(config, checkpoint, weights.numerics, shares, progress);
  for (const WeightDestination& to : destinations) loader.add(to);
  HADAL_RETURN_IF_ERROR(loader.load());
  return weights;
}

}  // namespace hadal
