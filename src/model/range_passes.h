// Passes over activations that look for their largest magnitudes. Internal to the range observer.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "model/step_context.h"
#include "quant/range_set.h"
#include "tensor/bf16.h"

namespace hadal {

// Largest magnitude of n numbers; NaN when one is.
inline float largest_f32(const float* values, int64_t n) {
  float amax = 0;
  for (int64_t i = 0; i < n; ++i) raise_range(amax, std::fabs(values[i]));
  return amax;
}

// Largest magnitude of n act elements, as a BF16 value; NaN when one is.
inline float largest(const void* act_row, int64_t n, DType act) {
  if (act == DType::kBF16) {
    const auto* values = static_cast<const bf16_t*>(act_row);
    uint16_t bits = 0;
    for (int64_t i = 0; i < n; ++i) bits = std::max<uint16_t>(bits, values[i].bits & 0x7FFF);
    return bf16_to_f32({bits});
  }
  return round_to_bf16(largest_f32(static_cast<const float*>(act_row), n));
}

// fn(item, slots) for all items in parallel; every worker raises slots of its own, which then raise `slots`.
template <typename Fn>
void raise_in_parallel(const StepContext& step, int64_t num_items, std::span<float> slots, std::vector<float>& buffer,
                       Fn fn) {
  const auto num_threads = static_cast<size_t>(step.runner.shares().num_threads());
  buffer.assign(num_threads * slots.size(), kUnmeasured);
  step.runner.for_each(StepPhase::kNorms, num_items, [&](int64_t begin, int64_t end, int worker_idx) {
    const std::span<float> own(buffer.data() + static_cast<size_t>(worker_idx) * slots.size(), slots.size());
    for (int64_t item = begin; item < end; ++item) fn(item, own, worker_idx);
  });
  for (size_t i = 0; i < buffer.size(); ++i) raise_range(slots[i % slots.size()], buffer[i]);
}

// Of a list by heads or by leaves of the whole model, the values of this rank.
inline std::span<float> own_part(const StepContext& step, std::vector<float>& whole) {
  const RankSlice& slice = step.layout.slice;
  const size_t size = whole.size() / static_cast<size_t>(slice.world_size);
  return std::span(whole).subspan(static_cast<size_t>(slice.rank) * size, size);
}

// Scratch areas: pieces of 64 bytes in a vector that has 64 to spare.
inline int64_t align_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }

inline std::byte* aligned(std::vector<std::byte>& buffer) {
  const auto address = reinterpret_cast<uintptr_t>(buffer.data());
  return buffer.data() + (64 - address % 64) % 64;
}

inline void make_room(std::vector<std::byte>& buffer, int64_t bytes) {
  if (static_cast<int64_t>(buffer.size()) < bytes + 64) buffer.resize(static_cast<size_t>(bytes) + 64);
}

}  // namespace hadal
