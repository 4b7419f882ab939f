#include "model/logit_digest.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace hadal {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint32_t kUnsound = 0xffffffff;

// Then: maxima [blocks], sums [blocks], Candidate [num_best]; room for kDigestLogits.
struct DigestHead {
  uint32_t isa = kUnsound;  // whose sums these are; kUnsound: a logit is NaN or infinite
  uint32_t num_best = 0;
};

int64_t blocks_in(int64_t size) { return (size + kLogitBlock - 1) / kLogitBlock; }

// A share's ids below num_valid and from it on, and where their blocks are among those of the row.
struct Parts {
  IndexRange valid, other;
  int64_t num_valid_blocks = 0, num_other_blocks = 0;
  int64_t valid_block = 0, other_block = 0;

  Parts(const IndexRange& share, int64_t num_valid)
      : valid{std::min(share.begin, num_valid), std::min(share.end, num_valid)},
        other{std::max(share.begin, num_valid), std::max(share.end, num_valid)},
        num_valid_blocks(blocks_in(valid.size())),
        num_other_blocks(blocks_in(other.size())),
        valid_block(valid.begin / kLogitBlock),
        other_block((other.begin - num_valid) / kLogitBlock) {}
};

}  // namespace

bool shares_are_blocks(const ModelConfig& config, int world_size, int64_t num_valid) {
  for (int rank = 1; rank < world_size; ++rank) {
    const int64_t border = vocab_share(config, world_size, rank).begin;
    if (border == config.vocab_size) break;
    if (border % kLogitBlock != 0 || border > num_valid) return false;
  }
  return true;
}

int64_t digest_bytes(const IndexRange& share) {
  const int64_t num_blocks = blocks_in(share.size()) + 1;  // one is two where num_valid cuts it
  return static_cast<int64_t>(sizeof(DigestHead)) + num_blocks * 2 * static_cast<int64_t>(sizeof(float)) +
         kDigestLogits * static_cast<int64_t>(sizeof(Candidate));
}

void DigestWriter::write(std::span<const float> logits, const IndexRange& share, const LogitWant& want,
                         std::byte* out) {
  const Parts parts(share, want.num_valid);
  const auto num_valid = static_cast<size_t>(parts.valid.size());
  DigestHead head;
  std::memset(out, 0, static_cast<size_t>(digest_bytes(share)));
  if (valid_.scan(logits.first(num_valid), want.exp_scale) && other_.scan(logits.subspan(num_valid), want.exp_scale)) {
    head.isa = static_cast<uint32_t>(isa_);
    valid_.select_top(kDigestLogits, best_);
    head.num_best = static_cast<uint32_t>(best_.size());
    std::byte* to = out + sizeof head;
    const auto put = [&to](const void* data, size_t num_bytes) {
      if (num_bytes > 0) std::memcpy(to, data, num_bytes);
      to += num_bytes;
    };
    for (const LogitBlocks* blocks : {&valid_, &other_}) put(blocks->maxima().data(), blocks->maxima().size_bytes());
    if (want.exp_scale > 0) {
      for (const LogitBlocks* blocks : {&valid_, &other_}) put(blocks->sums().data(), blocks->sums().size_bytes());
    }
    for (Candidate& best : best_) best.token_id += static_cast<int32_t>(share.begin);
    put(best_.data(), best_.size() * sizeof(Candidate));
  }
  std::memcpy(out, &head, sizeof head);
}

void RowDigest::begin(int64_t vocab_size, const LogitWant& want) {
  want_ = want;
  is_partial_ = false;
  is_sound_ = true;
  floor_ = -kInfinity;
  const auto num_valid_blocks = static_cast<size_t>(blocks_in(want.num_valid));
  const auto num_other_blocks = static_cast<size_t>(blocks_in(vocab_size - want.num_valid));
  maxima_.assign(num_valid_blocks, -kInfinity);
  known_.assign(num_valid_blocks, -kInfinity);
  other_maxima_.assign(num_other_blocks, -kInfinity);
  sums_.assign(want.exp_scale > 0 ? num_valid_blocks : 0, 0);
  other_sums_.assign(want.exp_scale > 0 ? num_other_blocks : 0, 0);
}

bool RowDigest::add(const IndexRange& share, std::span<const std::byte> digest, bool is_here, float* row) {
  DigestHead head;
  std::memcpy(&head, digest.data(), sizeof head);
  if (head.isa != static_cast<uint32_t>(isa_)) {
    is_sound_ = false;
    return true;
  }
  const Parts parts(share, want_.num_valid);
  if (head.num_best > kDigestLogits || head.num_best > parts.valid.size()) return false;
  const std::byte* from = digest.data() + sizeof head;
  const auto take = [&from](std::vector<float>& to, int64_t begin, int64_t count) {
    if (count > 0) std::memcpy(to.data() + begin, from, static_cast<size_t>(count) * sizeof(float));
    from += static_cast<size_t>(count) * sizeof(float);
  };
  take(maxima_, parts.valid_block, parts.num_valid_blocks);
  take(other_maxima_, parts.other_block, parts.num_other_blocks);
  if (want_.exp_scale > 0) {
    take(sums_, parts.valid_block, parts.num_valid_blocks);
    take(other_sums_, parts.other_block, parts.num_other_blocks);
  }
  const auto is_logit = [](float value) { return value < kInfinity; };
  const auto is_sum = [](float value) { return value >= 0 && value < kInfinity; };
  if (!std::all_of(maxima_.begin(), maxima_.end(), is_logit) ||
      !std::all_of(other_maxima_.begin(), other_maxima_.end(), is_logit) ||
      !std::all_of(sums_.begin(), sums_.end(), is_sum) ||
      !std::all_of(other_sums_.begin(), other_sums_.end(), is_sum)) {
    return false;
  }
  if (is_here) {
    std::copy_n(maxima_.begin() + parts.valid_block, parts.num_valid_blocks, known_.begin() + parts.valid_block);
    return true;
  }
  float best = -kInfinity;
  for (uint32_t i = 0; i < head.num_best; ++i, from += sizeof(Candidate)) {
    Candidate candidate;
    std::memcpy(&candidate, from, sizeof candidate);
    if (!parts.valid.contains(candidate.token_id) || !std::isfinite(candidate.value)) return false;
    put(candidate, row);
    best = std::max(best, candidate.value);
    if (i + 1 == kDigestLogits && parts.valid.size() > kDigestLogits) floor_ = std::max(floor_, candidate.value);
  }
  const auto maxima = maxima_.begin() + parts.valid_block;
  return parts.num_valid_blocks == 0 || best == *std::max_element(maxima, maxima + parts.num_valid_blocks);
}

void RowDigest::put(const Candidate& candidate, float* row) {
  const int64_t block = candidate.token_id / kLogitBlock;
  float& known = known_[static_cast<size_t>(block)];
  if (known == -kInfinity) {
    const int64_t begin = block * kLogitBlock;
    std::fill_n(row + begin, std::min(kLogitBlock, want_.num_valid - begin), -kInfinity);
  }
  row[candidate.token_id] = candidate.value;
  known = std::max(known, candidate.value);
}

bool RowDigest::finish(std::span<const float> row) {
  if (!is_sound_) return false;
  blocks_.adopt(row.first(static_cast<size_t>(want_.num_valid)), want_.exp_scale, maxima_, sums_, known_);
  is_partial_ = blocks_.max() > -kInfinity && (floor_ == -kInfinity || is_known());
  return is_partial_;
}

// Whether all that is wanted lies above the floor.
bool RowDigest::is_known() {
  if (want_.depth > 0 && blocks_.max() - want_.depth <= floor_) return false;
  if (want_.num_best > 0) {
    blocks_.select_top(want_.num_best, best_);
    if (static_cast<int64_t>(best_.size()) < want_.num_best || best_.back().value <= floor_) return false;
  }
  return want_.nucleus == 0 ||
         select_likely(row_math_for(isa_), blocks_, want_.temperature, want_.nucleus, floor_, best_, scratch_);
}

PartialLogits RowDigest::view() const {
  if (!is_partial_) return {};
  return {.maxima = maxima_, .sums = sums_, .known = known_, .other_maxima = other_maxima_, .other_sums = other_sums_};
}

}  // namespace hadal
