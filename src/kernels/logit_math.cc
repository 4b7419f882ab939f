#include "kernels/logit_math.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

namespace hadal {
namespace {

// Inside a block: the compilers' own vectors, since every target has four lanes.
using F4 = float __attribute__((vector_size(16)));
using I4 = int32_t __attribute__((vector_size(16)));
constexpr int32_t kGroup = 16;  // elements looked at between two branches

constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline F4 load(const float* from) {
  F4 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline F4 splat(float value) { return F4{value, value, value, value}; }
inline bool any(I4 mask) {
  uint64_t halves[2];
  std::memcpy(halves, &mask, sizeof halves);
  return (halves[0] | halves[1]) != 0;
}

// Appends the values >= threshold of one block; ids count from `first_id`. Skips whole groups in which there is none
// and goes through the others without branches, which nobody could predict.
void append_at_least(std::span<const float> block, int32_t first_id, float threshold, std::vector<Candidate>& out) {
  const auto size = static_cast<int32_t>(block.size());
  const F4 bound = splat(threshold);
  Candidate found[kLogitBlock];
  int64_t num_found = 0;
  for (int32_t i = 0; i < size; i += kGroup) {
    const float* group = block.data() + i;
    if (i + kGroup <= size && !any((load(group) >= bound) | (load(group + 4) >= bound) | (load(group + 8) >= bound) |
                                   (load(group + 12) >= bound))) {
      continue;
    }
    for (int32_t j = i; j < std::min(i + kGroup, size); ++j) {
      found[num_found] = {block[j], first_id + j};
      num_found += block[j] >= threshold;
    }
  }
  out.insert(out.end(), found, found + num_found);
}

// How many values are > bound, or >= bound.
template <bool kOrEqual>
inline int64_t count_above(std::span<const float> values, float bound) {
  const int64_t size = static_cast<int64_t>(values.size());
  I4 counts = {};
  int64_t i = 0;
  for (; i + 4 <= size; i += 4) {
    const F4 four = load(values.data() + i);
    counts -= kOrEqual ? four >= splat(bound) : four > splat(bound);  // true is -1
  }
  int64_t count = int64_t{counts[0]} + counts[1] + counts[2] + counts[3];
  for (; i < size; ++i) count += kOrEqual ? values[i] >= bound : values[i] > bound;
  return count;
}

}  // namespace

bool LogitBlocks::scan(std::span<const float> row, float exp_scale) {
  row_ = row;
  exp_scale_ = exp_scale;
  is_partial_ = false;
  max_ = -kInfinity;
  maxima_.resize((row.size() + kLogitBlock - 1) / kLogitBlock);
  if (row.empty()) return true;
  if (exp_scale > 0) {
    sums_.resize(maxima_.size());
    if (!math_->block_softmax(row.data(), size(), exp_scale, maxima_.data(), sums_.data())) return false;
  } else if (!math_->block_maxima(row.data(), size(), maxima_.data())) {
    return false;
  }
  max_ = *std::max_element(maxima_.begin(), maxima_.end());
  return true;
}

void LogitBlocks::adopt(std::span<const float> row, float exp_scale, std::span<const float> maxima,
                        std::span<const float> sums, std::span<const float> known) {
  row_ = row;
  exp_scale_ = exp_scale;
  is_partial_ = true;
  maxima_.assign(maxima.begin(), maxima.end());
  sums_.assign(sums.begin(), sums.end());
  known_.assign(known.begin(), known.end());
  max_ = maxima_.empty() ? -kInfinity : *std::max_element(maxima_.begin(), maxima_.end());
}

std::span<const float> LogitBlocks::block(int64_t idx) const {
  const int64_t begin = idx * kLogitBlock;
  return row_.subspan(begin, std::min(kLogitBlock, size() - begin));
}

int32_t LogitBlocks::first_of_max() const {
  const int64_t idx = std::find(known().begin(), known().end(), max_) - known().begin();
  const auto values = block(idx);
  return static_cast<int32_t>(idx * kLogitBlock + (std::find(values.begin(), values.end(), max_) - values.begin()));
}

double LogitBlocks::exp_sum(float max) {
  factors_.resize(maxima_.size());
  weights_.resize(maxima_.size());
  math_->exp_row(maxima_.data(), num_blocks(), max, exp_scale_, factors_.data());
  double total = 0;
  for (int64_t idx = 0; idx < num_blocks(); ++idx) {
    weights_[idx] = double{sums_[idx]} * factors_[idx];
    total += weights_[idx];
  }
  return total;
}

int32_t LogitBlocks::draw(double noise) {
  const double target = noise * exp_sum(max_);
  double sum = 0;
  int64_t idx = 0;
  for (; idx + 1 < num_blocks() && sum + weights_[idx] <= target; ++idx) sum += weights_[idx];
  int64_t last = -1;
  // Rounding may leave nothing in that block beyond the target: then the next token with any probability is it.
  for (; idx < num_blocks(); ++idx) {
    const auto values = block(idx);
    float probs[kLogitBlock];
    math_->exp_row(values.data(), static_cast<int64_t>(values.size()), max_, exp_scale_, probs);
    for (size_t i = 0; i < values.size(); ++i) {
      if (probs[i] <= 0) continue;
      sum += probs[i];
      last = idx * kLogitBlock + static_cast<int64_t>(i);
      if (sum > target) return static_cast<int32_t>(last);
    }
  }
  return last >= 0 ? static_cast<int32_t>(last) : first_of_max();
}

int64_t LogitBlocks::count_better(const Candidate& token) const {
  int64_t count = 0;
  for (int64_t idx = 0; idx < num_blocks(); ++idx) {
    if (known()[idx] < token.value) continue;
    const auto values = block(idx);
    // Those of lower id, which win ties, then the others.
    const auto num_lower =
        std::clamp(token.token_id - idx * kLogitBlock, int64_t{0}, static_cast<int64_t>(values.size()));
    count += count_above<true>(values.first(num_lower), token.value);
    count += count_above<false>(values.subspan(num_lower), token.value);
  }
  return count;
}

void LogitBlocks::select_at_least(float threshold, std::vector<Candidate>& out) const {
  out.clear();
  for (int64_t idx = 0; idx < num_blocks(); ++idx) {
    if (known()[idx] < threshold) continue;
    append_at_least(block(idx), static_cast<int32_t>(idx * kLogitBlock), threshold, out);
  }
}

void LogitBlocks::select_top(int64_t k, std::vector<Candidate>& out) {
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  out.clear();
  if (k <= 0 || size() == 0) return;
  // At least k logits reach the k-th largest maximum of blocks. With fewer blocks than that the smallest maximum is a
  // good guess, since a block holds many more logits than its maximum.
  factors_.assign(known().begin(), known().end());
  const auto kth = factors_.begin() + (std::min(k, num_blocks()) - 1);
  std::nth_element(factors_.begin(), kth, factors_.end(), std::greater<>());
  const float threshold = std::max(*kth, kLowest);
  select_at_least(threshold, out);
  if (static_cast<int64_t>(out.size()) < k && threshold > kLowest) select_at_least(kLowest, out);
  if (k < static_cast<int64_t>(out.size())) {
    std::nth_element(out.begin(), out.begin() + (k - 1), out.end(), ranks_before);
    out.resize(k);
  }
  std::sort(out.begin(), out.end(), ranks_before);
}

double weigh_candidates(const RowMath& math, float max, float scale, std::vector<Candidate>& candidates,
                        std::vector<float>& scratch) {
  scratch.resize(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) scratch[i] = candidates[i].value;
  math.exp_row(scratch.data(), static_cast<int64_t>(scratch.size()), max, scale, scratch.data());
  double sum = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    candidates[i].value = scratch[i];
    sum += scratch[i];
  }
  return sum;
}

// The first threshold leaves few tokens where a model is sure of itself; lower ones follow while the mass is not
// reached.
std::optional<double> select_likely(const RowMath& math, LogitBlocks& row, float temperature, float top_p, float floor,
                                    std::vector<Candidate>& out, std::vector<float>& scratch) {
  constexpr double kFirstDepth = 8, kDeeper = 1.1;  // depth: of the threshold below the maximum, as exponents
  constexpr float kLowest = std::numeric_limits<float>::lowest();  // of a token that is not forbidden
  const double total = row.exp_sum(row.max());
  // All tokens below it together have less than half of the mass that top-p drops, so the nucleus ends above it; the
  // other half leaves room for rounding.
  const double negligible = 0.5 * (1 - double{top_p}) * total / static_cast<double>(row.size());
  const double deepest = -std::log(negligible);
  double mass = 0;
  for (double depth = kFirstDepth; mass < double{top_p} * total; depth *= kDeeper) {
    const double threshold = row.max() - double{temperature} * std::min(depth, deepest);
    const float lowest = static_cast<float>(std::max(threshold, double{kLowest}));
    if (lowest <= floor) return std::nullopt;
    row.select_at_least(lowest, out);
    mass = weigh_candidates(math, row.max(), row.exp_scale(), out, scratch);
    if (depth >= deepest) break;
  }
  return total;
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
