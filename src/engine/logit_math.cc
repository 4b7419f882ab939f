#include "engine/logit_math.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace hadal {
namespace {

// The compilers' own vectors: every target has four lanes, and no sum depends on what an optimiser may do.
using F4 = float __attribute__((vector_size(16)));
using I4 = int32_t __attribute__((vector_size(16)));
constexpr int64_t kLanes = 4;
constexpr int64_t kGroup = 16;  // elements handled between two branches

constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline F4 load(const float* from) {
  F4 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline F4 splat(float value) { return F4{value, value, value, value}; }
inline F4 select(I4 mask, F4 a, F4 b) { return (F4)((mask & (I4)a) | (~mask & (I4)b)); }
inline bool any(I4 mask) {
  uint64_t halves[2];
  std::memcpy(halves, &mask, sizeof halves);
  return (halves[0] | halves[1]) != 0;
}

// exp(z) for z in [kSmallestExponent, 0]; 0 below. Taylor series to degree 7 on [-ln2/2, ln2/2] after z = n ln2 + f.
inline F4 exp_nonpositive(F4 z) {
  constexpr float kSmallestExponent = -87;       // exp of it is still a normal float
  constexpr float kRoundingShift = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const I4 in_range = z > splat(kSmallestExponent);
  const F4 clamped = select(in_range, z, splat(kSmallestExponent));
  const F4 shifted = clamped * splat(1.44269504f) + splat(kRoundingShift);
  const I4 n = (I4)shifted - (I4)splat(kRoundingShift);
  const F4 n_float = shifted - splat(kRoundingShift);
  const F4 f = (clamped - n_float * splat(0.693359375f)) + n_float * splat(2.12194440e-4f);  // ln2 in two parts
  F4 sum = splat(1.0f / 5040);
  for (const float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    sum = sum * f + splat(coefficient);
  }
  return (F4)(((I4)sum + (n << 23)) & in_range);
}

// A whole block; probs may be null.
double exp_block(const float* logits, float max, float scale, float* probs) {
  F4 sums[kGroup / kLanes] = {};
  for (int64_t i = 0; i < kExpBlock; i += kGroup) {
    for (int64_t part = 0; part < kGroup / kLanes; ++part) {
      const int64_t at = i + part * kLanes;
      const F4 value = exp_nonpositive((load(logits + at) - splat(max)) * splat(scale));
      if (probs) std::memcpy(probs + at, &value, sizeof value);
      sums[part] += value;
    }
  }
  double total = 0;
  for (const F4& sum : sums) {
    for (int64_t lane = 0; lane < kLanes; ++lane) total += sum[lane];
  }
  return total;
}

// Calls visit(i) for each i >= begin, ascending, whose value matches; skips whole groups in which none does.
// matches(F4) gives a mask and matches_one(float) its scalar twin; both may change between calls of visit.
template <typename Matches, typename MatchesOne, typename Visit>
inline void visit_matching(std::span<const float> values, int64_t begin, Matches matches, MatchesOne matches_one,
                           Visit visit) {
  const int64_t size = static_cast<int64_t>(values.size());
  for (int64_t i = begin; i < size; i += kGroup) {
    const float* group = values.data() + i;
    if (i + kGroup <= size &&
        !any(matches(load(group)) | matches(load(group + 4)) | matches(load(group + 8)) | matches(load(group + 12)))) {
      continue;
    }
    for (int64_t j = i; j < std::min(i + kGroup, size); ++j) {
      if (matches_one(values[j])) visit(j);
    }
  }
}

}  // namespace

LogitScan scan_logits(std::span<const float> logits) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  const int64_t size = static_cast<int64_t>(logits.size());
  F4 best[kGroup / kLanes];
  I4 num_good[kGroup / kLanes];
  std::fill(std::begin(best), std::end(best), splat(-kInfinity));
  std::fill(std::begin(num_good), std::end(num_good), I4{-1, -1, -1, -1});
  int64_t i = 0;
  for (; i + kGroup <= size; i += kGroup) {
    for (int64_t part = 0; part < kGroup / kLanes; ++part) {
      const F4 value = load(logits.data() + i + part * kLanes);
      best[part] = select(value > best[part], value, best[part]);
      num_good[part] &= value <= splat(kLargest);
    }
  }
  LogitScan scan{.max = -kInfinity};
  for (int64_t part = 0; part < kGroup / kLanes; ++part) {
    for (int64_t lane = 0; lane < kLanes; ++lane) scan.max = std::max(scan.max, best[part][lane]);
    scan.is_valid = scan.is_valid && !any(~num_good[part]);
  }
  for (; i < size; ++i) {
    scan.max = std::max(scan.max, logits[i]);
    scan.is_valid = scan.is_valid && logits[i] <= kLargest;
  }
  return scan;
}

int32_t first_index_of(std::span<const float> logits, float max) {
  int64_t first = -1;
  const int64_t size = static_cast<int64_t>(logits.size());
  for (int64_t i = 0; i < size && first < 0; i += kExpBlock) {
    visit_matching(
        logits.first(std::min(i + kExpBlock, size)), i, [&](F4 values) { return values == splat(max); },
        [&](float value) { return value == max; }, [&](int64_t id) { first = first < 0 ? id : first; });
  }
  return static_cast<int32_t>(first);
}

int32_t count_better(std::span<const float> logits, const Candidate& token) {
  int32_t count = 0;
  visit_matching(
      logits, 0, [&](F4 values) { return values >= splat(token.value); },
      [&](float value) { return value >= token.value; },
      [&](int64_t id) { count += logits[id] > token.value || id < token.token_id; });
  return count;
}

double exp_pass(std::span<const float> logits, float max, float scale, float* probs, std::vector<double>* block_sums) {
  const int64_t size = static_cast<int64_t>(logits.size());
  if (block_sums) block_sums->clear();
  double total = 0;
  for (int64_t begin = 0; begin < size; begin += kExpBlock) {
    const int64_t count = std::min(kExpBlock, size - begin);
    const float* from = logits.data() + begin;
    double sum;
    if (count == kExpBlock) {
      sum = exp_block(from, max, scale, probs ? probs + begin : nullptr);
    } else {
      float padded[kExpBlock];
      std::fill(std::copy_n(from, count, padded), std::end(padded), -kInfinity);
      sum = exp_block(padded, max, scale, padded);
      if (probs) std::copy_n(padded, count, probs + begin);
    }
    if (block_sums) block_sums->push_back(sum);
    total += sum;
  }
  return total;
}

void select_top(std::span<const float> logits, int64_t k, std::vector<Candidate>& out) {
  // Beyond this a heap costs more than selecting from a copy of everything.
  constexpr int64_t kMaxHeap = 2048;
  const int64_t size = static_cast<int64_t>(logits.size());
  k = std::min(k, size);
  out.clear();
  if (k <= 0) return;
  const int64_t num_copied = k <= kMaxHeap ? k : size;
  for (int64_t i = 0; i < num_copied; ++i) out.push_back({logits[i], static_cast<int32_t>(i)});
  if (k > kMaxHeap) {
    std::nth_element(out.begin(), out.begin() + (k - 1), out.end(), ranks_before);
    out.resize(k);
  } else {
    // A heap whose front is the worst of the best so far. Ids ascend, so an equal value later never displaces it.
    std::make_heap(out.begin(), out.end(), ranks_before);
    float worst = out.front().value;
    visit_matching(
        logits, k, [&](F4 values) { return values > splat(worst); }, [&](float value) { return value > worst; },
        [&](int64_t id) {
          std::pop_heap(out.begin(), out.end(), ranks_before);
          out.back() = {logits[id], static_cast<int32_t>(id)};
          std::push_heap(out.begin(), out.end(), ranks_before);
          worst = out.front().value;
        });
  }
  std::sort(out.begin(), out.end(), ranks_before);
}

void select_at_least(std::span<const float> values, float threshold, std::vector<Candidate>& out) {
  out.clear();
  visit_matching(
      values, 0, [&](F4 four) { return four >= splat(threshold); }, [&](float value) { return value >= threshold; },
      [&](int64_t id) {
        out.push_back({values[id], static_cast<int32_t>(id)});
      });
}

void keep_nucleus(std::vector<Candidate>& candidates, double mass, std::vector<Candidate>& scratch) {
  if (candidates.empty()) return;
  scratch = candidates;
  // The candidate at which the sum crosses lies in [begin, end), once ranked; all before begin have `sum_before` <
  // mass.
  auto begin = scratch.begin(), end = scratch.end();
  double sum_before = 0;
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, ranks_before);
    double sum = sum_before;
    for (auto it = begin; it != middle; ++it) sum += it->value;
    if (sum >= mass) {
      end = middle;
    } else {
      begin = middle;
      sum_before = sum;
    }
  }
  const Candidate last = *begin;
  std::erase_if(candidates, [&](const Candidate& candidate) { return ranks_before(last, candidate); });
}

}  // namespace hadal
