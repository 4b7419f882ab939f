#include "quant/code_map.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/cpu_features.h"
#include "quant/code_map_loops.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

constexpr size_t kBlockGroups = 64;  // 4 KiB of codes: what the loops are given at once
// Magnitudes below are the two lowest binades, whose values are magnitude * 2^-9: halving shifts a bit out.
constexpr uint8_t kLowEnd = 0x10;
constexpr uint8_t kSign = 0x80;

const CodeMapLoops& fastest_loops() {
  static const CodeMapLoops& loops =
      cpu_features().avx2 && avx2_code_map_loops() != nullptr ? *avx2_code_map_loops() : baseline_code_map_loops();
  return loops;
}

// |new - old| / |old| by magnitude; 0 for zero and NaN.
using ErrorTable = std::array<double, 128>;
ErrorTable make_errors(RangeMap map) {
  ErrorTable errors{};
  for (uint8_t magnitude = 1; magnitude < kE4m3NaN; ++magnitude) {
    const double old = e4m3_to_f32(magnitude), mapped = e4m3_to_f32(range_map_codes(map)[magnitude]);
    errors[magnitude] = std::fabs(mapped * (map == RangeMap::kExact ? 2.0 : 448.0 / 240.0) / old - 1);
    if (!range_map_rounds(map, magnitude)) errors[magnitude] = 0;
  }
  return errors;
}
const ErrorTable& errors_of(RangeMap map) {
  static const ErrorTable exact = make_errors(RangeMap::kExact), seed = make_errors(RangeMap::kSeed);
  return map == RangeMap::kExact ? exact : seed;
}

class BlockMapper {
 public:
  BlockMapper(RangeMap map, const CodeMapLoops& loops, LostBits* lost)
      : map_(map), loops_(loops), lost_(lost), errors_(errors_of(map)) {
    sums_.rank.fill(kSeedRankExact);
  }

  // Up to kBlockGroups groups, at position `at` of the chunk.
  void run(const uint8_t* in, uint8_t* out, size_t num_groups, size_t at) {
    uint64_t masks[kBlockGroups];
    if (map_ == RangeMap::kExact) {
      loops_.exact(in, out, num_groups, masks);
    } else {
      loops_.seed(in, out, num_groups, masks, sums_);
      flush();
    }
    for (size_t group = 0; group < num_groups; ++group) {
      for (uint64_t mask = masks[group]; mask != 0; mask &= mask - 1) {
        const size_t i = group * kCodeGroup + static_cast<size_t>(std::countr_zero(mask));
        take(in[i], out[i], at + i);
      }
    }
  }

  CodeMapStats finish() {
    uint8_t rank = kSeedRankExact;
    for (const uint8_t least : sums_.rank) rank = std::min(rank, least);
    if (rank < kSeedRankExact) {
      // Codes of one rank share a relative error; kLowEnd + low bits is one of them.
      const auto low = static_cast<uint8_t>(rank == 6 ? 7 : rank);
      stats_.max_relative_error = std::max(stats_.max_relative_error, errors_[kLowEnd + low]);
    }
    return stats_;
  }

 private:
  // A code that was flagged.
  void take(uint8_t old, uint8_t mapped, size_t position) {
    const auto magnitude = static_cast<uint8_t>(old & 0x7F);
    if (magnitude == kE4m3NaN) {
      ++stats_.num_nan;
      return;
    }
    ++stats_.num_inexact;
    stats_.max_relative_error = std::max(stats_.max_relative_error, errors_[magnitude]);
    if (lost_ != nullptr) {
      const bool above = magnitude > 2 * (mapped & 0x7F);
      lost_->push_back(static_cast<uint32_t>(position << 1 | (above ? 1 : 0)));
    }
  }

  void flush() {
    for (uint8_t& count : sums_.inexact) stats_.num_inexact += std::exchange(count, uint8_t{0});
  }

  const RangeMap map_;
  const CodeMapLoops& loops_;
  LostBits* const lost_;
  const ErrorTable& errors_;
  SeedMapSums sums_;
  CodeMapStats stats_;
};

CodeMapStats map_with(const CodeMapLoops& loops, RangeMap map, std::span<const uint8_t> codes, std::span<uint8_t> out,
                      LostBits* lost) {
  if (lost != nullptr) lost->clear();
  BlockMapper mapper(map, loops, lost);
  size_t at = 0;
  while (at + kCodeGroup <= codes.size()) {
    const size_t num_groups = std::min(kBlockGroups, (codes.size() - at) / kCodeGroup);
    mapper.run(codes.data() + at, out.data() + at, num_groups, at);
    at += num_groups * kCodeGroup;
  }
  if (at < codes.size()) {
    // The rest as a group that ends in zeros, which map to themselves and are not counted.
    uint8_t in[kCodeGroup] = {}, mapped[kCodeGroup];
    std::memcpy(in, codes.data() + at, codes.size() - at);
    mapper.run(in, mapped, 1, at);
    std::memcpy(out.data() + at, mapped, codes.size() - at);
  }
  CodeMapStats stats = mapper.finish();
  stats.num_codes = codes.size();
  return stats;
}

}  // namespace

void CodeMapStats::add(const CodeMapStats& other) {
  num_codes += other.num_codes;
  num_inexact += other.num_inexact;
  num_nan += other.num_nan;
  max_relative_error = std::max(max_relative_error, other.max_relative_error);
  signal += other.signal;
  noise += other.noise;
  num_zero_rows += other.num_zero_rows;
}

CodeMapStats map_codes(RangeMap map, std::span<const uint8_t> codes, std::span<uint8_t> out, LostBits* lost) {
  HADAL_CHECK(map != RangeMap::kNone && codes.size() == out.size() && codes.size() <= kMaxMapCodes, "{} codes",
              codes.size());
  return map_with(fastest_loops(), map, codes, out, lost);
}

CodeMapStats map_codes_baseline(RangeMap map, std::span<const uint8_t> codes, std::span<uint8_t> out, LostBits* lost) {
  return map_with(baseline_code_map_loops(), map, codes, out, lost);
}

bool unmap_exact_codes(std::span<const uint8_t> codes, const LostBits& lost, std::span<uint8_t> out) {
  constexpr uint8_t kMaxMapped = 0x76;
  uint8_t impossible = 0;
  for (size_t i = 0; i < codes.size(); ++i) {
    const uint8_t code = codes[i];
    const auto magnitude = static_cast<uint8_t>(code & 0x7F);
    const auto doubled = static_cast<uint8_t>(magnitude < 8 ? 2 * magnitude : magnitude + 8);
    const bool is_nan = magnitude == kE4m3NaN;
    out[i] = static_cast<uint8_t>((is_nan ? magnitude : doubled) | (code & kSign));
    impossible |= magnitude > kMaxMapped && !is_nan ? uint8_t{1} : uint8_t{0};
  }
  if (impossible != 0) return false;
  for (const uint32_t bit : lost) {
    const size_t position = bit >> 1;
    if (position >= codes.size()) return false;
    const int magnitude = (out[position] & 0x7F) + (bit & 1 ? 1 : -1);
    // Rounding went to an even neighbour of a code in the lowest two binades.
    if (magnitude < 1 || magnitude >= kLowEnd || (out[position] & 0x3) != 0) return false;
    out[position] = static_cast<uint8_t>(magnitude | (out[position] & kSign));
  }
  return true;
}

}  // namespace hadal
