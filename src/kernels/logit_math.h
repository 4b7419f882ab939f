// What is asked of one row of logits: one pass by blocks (kernels/row_math.h) reads all of it, everything
// after it looks only into blocks whose maximum says that something is there. Each sum has an order fixed by the row's
// length, so a row gives the same bits whatever runs beside it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/row_math.h"

namespace hadal {

struct Candidate {
  float value = 0;
  int32_t token_id = 0;
};

// Higher value first, then lower id.
inline bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.token_id < b.token_id;
}

// A row and the maxima and sums of its blocks. Single-owner. Views the row: it must stay as scanned while anything
// below is called. No allocation once warm.
class LogitBlocks {
 public:
  explicit LogitBlocks(const RowMath& math) : math_(&math) {}

  // Reads the row, which may be empty. Returns whether every value is finite or -infinity; nothing else may be called
  // when not. exp_scale > 0: the exponentials below are of the logits times it; 0: there are none.
  bool scan(std::span<const float> row, float exp_scale);

  // What scan() found, in place of a scan: of a row of which only some logits are known. maxima and, with exponentials,
  // sums: of all its blocks; known: of each block its maximum where it holds known logits, and then -infinity in the
  // place of the others, -infinity where it does not. Everything below but draw() may be called, and sees the known
  // logits only; max() and exp_sum() are the whole row's. The row is viewed, the rest copied.
  void adopt(std::span<const float> row, float exp_scale, std::span<const float> maxima, std::span<const float> sums,
             std::span<const float> known);

  std::span<const float> maxima() const { return maxima_; }  // [blocks]
  std::span<const float> sums() const { return sums_; }      // [blocks], relative to the maxima; with exponentials only
  float exp_scale() const { return exp_scale_; }
  float max() const { return max_; }  // -infinity when all are
  int32_t first_of_max() const;       // its lowest id; requires a row that is not empty
  int64_t size() const { return static_cast<int64_t>(row_.size()); }

  // Sum of exp((logit - max) * exp_scale). Requires max finite and >= max(), and exponentials.
  double exp_sum(float max);
  // The inverse of the cumulative distribution that exponentials define, at `noise` in [0, 1). A token of probability
  // zero is never drawn. Requires max() finite, and exponentials.
  int32_t draw(double noise);

  // How many logits rank before `token`: greater ones, and equal ones of lower id.
  int64_t count_better(const Candidate& token) const;
  // All logits >= threshold, ids ascending. out: replaced.
  void select_at_least(float threshold, std::vector<Candidate>& out) const;
  // The k best above -infinity (or as many as there are), best first. out: replaced.
  void select_top(int64_t k, std::vector<Candidate>& out);

 private:
  const std::vector<float>& known() const { return is_partial_ ? known_ : maxima_; }
  int64_t num_blocks() const { return static_cast<int64_t>(maxima_.size()); }
  std::span<const float> block(int64_t idx) const;

  const RowMath* math_;
  std::span<const float> row_;
  float exp_scale_ = 0;
  float max_ = 0;
  bool is_partial_ = false;
  std::vector<float> maxima_;    // of each block
  std::vector<float> known_;     // as adopted
  std::vector<float> sums_;      // of each block, relative to its maximum
  std::vector<float> factors_;   // reused: e^(scaled block maximum less max), or ranked maxima
  std::vector<double> weights_;  // of each block, as exp_sum() added them
};

// Replaces the candidates' values by exp((value - max) * scale) and returns their sum. scratch: reused.
double weigh_candidates(const RowMath& math, float max, float scale, std::vector<Candidate>& candidates,
                        std::vector<float>& scratch);

// All that may be in the nucleus of a row scanned with exponentials of scale 1 / temperature: whatever lies above a
// threshold and together has top_p of the mass, weighed as above. Returns the mass of the whole row; nothing when that
// needs logits that are not above `floor`. out: replaced.
std::optional<double> select_likely(const RowMath& math, LogitBlocks& row, float temperature, float top_p, float floor,
                                    std::vector<Candidate>& out, std::vector<float>& scratch);

// Reduces candidates to the fewest best ones whose sum reaches `mass` (all, when none does), order kept. Linear time.
void keep_nucleus(std::vector<Candidate>& candidates, double mass, std::vector<Candidate>& scratch);

}  // namespace hadal
