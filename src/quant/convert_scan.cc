#include "quant/convert_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "formats/message_text.h"

namespace hadal {
namespace {

constexpr size_t kMaxSampledWeights = 64;
constexpr int64_t kMaxSampledCodes = int64_t{8} << 20;
constexpr size_t kScanFloats = size_t{1} << 18;

// Largest block scale whose conversion stays finite.
float max_scale(const ConvertPlan& plan) {
  constexpr float kMax = std::numeric_limits<float>::max();
  if (plan.reverse) return kMax;
  return plan.method == ConvertMethod::kExact ? kMax / 2 : kMax / 448;
}

Status check_scale(const ConvertPlan& plan, float scale) {
  const auto refuse = [&](const char* why) {
    return make_error(ErrorCode::kCorrupt,
                      "is {}: {}; no quantiser writes that, fetch the shard again and compare its checksum", scale,
                      why);
  };
  if (std::isnan(scale) || std::isinf(scale)) return refuse("not a finite number");
  if (scale < 0) return refuse("negative");
  if (scale > max_scale(plan)) return refuse("too large to convert");
  if (plan.reverse && scale / 2 * 2 != scale) {
    return make_error(ErrorCode::kCorrupt, "is {}: not twice another number; the folder was changed since", scale);
  }
  return {};
}

Status scan_tensor(const Checkpoint& checkpoint, const ConvertPlan& plan, const Checkpoint::Entry& entry,
                   ScaleScan& sums) {
  const size_t num_scales = entry.info.size_bytes() / sizeof(float);
  std::vector<float> values(std::min(num_scales, kScanFloats));
  for (size_t first = 0; first < num_scales; first += values.size()) {
    const auto part = std::span(values).first(std::min(values.size(), num_scales - first));
    HADAL_RETURN_IF_ERROR(checkpoint.read_range(entry, first * sizeof(float), std::as_writable_bytes(part)));
    for (size_t i = 0; i < part.size(); ++i) {
      if (auto status = check_scale(plan, part[i]); !status) {
        return forward_error(std::move(status),
                             fmt::format("{}: value {} of scale {}", checkpoint.shard_of(entry).path().string(),
                                         first + i, quote_name(entry.info.name)));
      }
      sums.num_zero += part[i] == 0 ? 1 : 0;
    }
  }
  sums.num_scales += num_scales;
  return {};
}

// fn(item index, worker index) -> Status for all items; the first error.
template <typename Fn>
Status for_all(ThreadPool& pool, size_t num_items, Fn fn) {
  std::vector<Status> results(num_items);
  pool.parallel_for(
      static_cast<int64_t>(num_items),
      [&](int64_t first, int64_t last, int worker_idx) {
        for (int64_t i = first; i < last; ++i) {
          const auto at = static_cast<size_t>(i);
          results[at] = fn(at, static_cast<size_t>(worker_idx));
        }
      },
      1);
  for (Status& status : results) HADAL_RETURN_IF_ERROR(std::move(status));
  return {};
}

// Block scales and their weights, in the order of the shards.
std::vector<const Checkpoint::Entry*> scales_of(const ConvertPlan& plan) {
  std::vector<const Checkpoint::Entry*> scales;
  for (const ShardPlan& shard : plan.shards) {
    for (const PlannedOutput& output : shard.outputs) {
      const bool is_weight = output.action == TensorAction::kMapCodes || output.action == TensorAction::kRestoreCodes ||
                             output.action == TensorAction::kRowCodes;
      if (is_weight) scales.push_back(output.scale);
    }
  }
  return scales;
}

std::vector<const Checkpoint::Entry*> sampled_weights(const ConvertPlan& plan) {
  std::vector<const Checkpoint::Entry*> all;
  for (const ShardPlan& shard : plan.shards) {
    for (const PlannedOutput& output : shard.outputs) {
      if (output.scale != nullptr && output.dtype == DType::kF8E4M3 && output.size_bytes() > 0) {
        all.push_back(output.source);
      }
    }
  }
  if (all.size() <= kMaxSampledWeights) return all;
  std::vector<const Checkpoint::Entry*> some;
  for (size_t i = 0; i < kMaxSampledWeights; ++i) some.push_back(all[i * all.size() / kMaxSampledWeights]);
  return some;
}

}  // namespace

Expected<ScaleScan> scan_scales(const Checkpoint& checkpoint, const ConvertPlan& plan, ThreadPool& pool) {
  const auto scales = scales_of(plan);
  std::vector<ScaleScan> sums(static_cast<size_t>(pool.num_threads()));
  HADAL_RETURN_IF_ERROR(for_all(pool, scales.size(), [&](size_t i, size_t worker) {
    return scan_tensor(checkpoint, plan, *scales[i], sums[worker]);
  }));
  ScaleScan all;
  for (const ScaleScan& part : sums) {
    all.num_scales += part.num_scales;
    all.num_zero += part.num_zero;
  }
  return all;
}

Expected<RangeEvidence> sample_codes(const Checkpoint& checkpoint, const ConvertPlan& plan, ThreadPool& pool) {
  const auto weights = sampled_weights(plan);
  std::vector<RangeEvidence> parts(static_cast<size_t>(pool.num_threads()));
  HADAL_RETURN_IF_ERROR(for_all(pool, weights.size(), [&](size_t i, size_t worker) -> Status {
    const Shape& shape = weights[i]->info.shape;
    const int64_t cols = shape[1];
    const int64_t rows = std::min({shape[0], plan.layout.block_rows, std::max<int64_t>(1, kMaxSampledCodes / cols)});
    std::vector<uint8_t> codes(static_cast<size_t>(rows * cols));
    HADAL_RETURN_IF_ERROR(checkpoint.read_range(*weights[i], 0, std::as_writable_bytes(std::span(codes))));
    parts[worker].add(codes, rows, cols, plan.layout);
    return {};
  }));
  RangeEvidence all;
  for (const RangeEvidence& part : parts) all.add(part);
  return all;
}

}  // namespace hadal
