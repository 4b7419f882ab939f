// Passes over one row of logits. Each sums and compares in an order fixed by the code, so a row gives the same bits
// whatever runs beside it. Single-threaded, four lanes wide on every processor.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hadal {

struct Candidate {
  float value = 0;
  int32_t token_id = 0;
};

// Higher value first, then lower id.
inline bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.token_id < b.token_id;
}

struct LogitScan {
  float max = 0;         // -infinity when all are
  bool is_valid = true;  // false: some value is NaN or +infinity
};
LogitScan scan_logits(std::span<const float> logits);

// The first index of the value `max`, which must occur.
int32_t first_index_of(std::span<const float> logits, float max);

// How many logits rank before logits[token_id]: greater ones, and equal ones of lower id.
int32_t count_better(std::span<const float> logits, const Candidate& token);

// Elements that one block sum covers.
inline constexpr int64_t kExpBlock = 256;
// probs[i] = exp((logits[i] - max) * scale), exactly 0 below exp(-87); relative error about 2^-22. probs may be null or
// equal logits. block_sums, if not null: replaced by one sum for each kExpBlock elements. Returns the sum of all.
// Requires max >= every logit, max finite, scale > 0.
double exp_pass(std::span<const float> logits, float max, float scale, float* probs, std::vector<double>* block_sums);

// The k best, best first. out: replaced. Requires no NaN. k may exceed the number of logits.
void select_top(std::span<const float> logits, int64_t k, std::vector<Candidate>& out);

// All values >= threshold, ids ascending. out: replaced.
void select_at_least(std::span<const float> values, float threshold, std::vector<Candidate>& out);

// Reduces candidates to the fewest best ones whose sum reaches `mass` (all, when none does), order kept. Linear time.
void keep_nucleus(std::vector<Candidate>& candidates, double mass, std::vector<Candidate>& scratch);

}  // namespace hadal
