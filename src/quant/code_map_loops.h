// The loops of code_map.cc for one width of vectors; each instruction set instantiates its own in a file of its own.
// GCC's and Clang's portable vectors. Internal to quant/.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace hadal {

inline constexpr size_t kCodeGroup = 64;  // codes that are looked at together

// Over the codes of many groups, by place in the group.
struct SeedMapSums {
  alignas(64) std::array<uint8_t, kCodeGroup> inexact{};  // normal codes that changed; overflows after 255 groups
  alignas(64) std::array<uint8_t, kCodeGroup> rank{};     // minimum of seed_error_rank
};

// What the seed map does to a normal code depends on its low three bits. Ranks order them by error, largest first: the
// low bits themselves, but 7 before 6, which is exact.
inline constexpr uint8_t kSeedRankExact = 7;

struct CodeMapLoops {
  // Maps num_groups groups of 64 codes; bit i of masks[g] says that code i of group g needs a closer look: it is NaN,
  // or a code below 0x10 that rounds. `in` and `out` do not overlap.
  void (*exact)(const uint8_t* in, uint8_t* out, size_t num_groups, uint64_t* masks);
  void (*seed)(const uint8_t* in, uint8_t* out, size_t num_groups, uint64_t* masks, SeedMapSums& sums);
};

const CodeMapLoops& baseline_code_map_loops();
const CodeMapLoops* avx2_code_map_loops();  // null where the compiler has no such instructions

template <size_t kVecBytes>
class CodeMapVectors {
 public:
  static void exact(const uint8_t* in, uint8_t* out, size_t num_groups, uint64_t* masks) {
    for (size_t group = 0; group < num_groups; ++group, in += kCodeGroup, out += kCodeGroup) {
      alignas(kVecBytes) uint8_t flags[kCodeGroup];
      Vec all = {};
      for (size_t at = 0; at < kCodeGroup; at += kVecBytes) {
        const Vec code = load(in + at), magnitude = code & 0x7F;
        const Vec half = (magnitude + ((magnitude >> 1) & 1)) >> 1;  // ties to even
        const Vec low = is_below(magnitude, kLowEnd), nan = is_equal(magnitude, kNaN);
        // Above the two lowest binades the exponent goes down by one; NaN - 8 gets its bit back.
        store(select(low, half, (magnitude - 8) | (nan & 8)) | (code & kSign), out + at);
        const Vec flag = (low & (magnitude & 1)) | (nan & 1);
        store(flag, flags + at);
        all |= flag;
      }
      masks[group] = is_zero(all) ? 0 : mask_of(flags);
    }
  }

  static void seed(const uint8_t* in, uint8_t* out, size_t num_groups, uint64_t* masks, SeedMapSums& sums) {
    for (size_t group = 0; group < num_groups; ++group, in += kCodeGroup, out += kCodeGroup) {
      alignas(kVecBytes) uint8_t flags[kCodeGroup];
      Vec all = {};
      for (size_t at = 0; at < kCodeGroup; at += kVecBytes) {
        const Vec code = load(in + at), magnitude = code & 0x7F;
        const Vec low = is_below(magnitude, kLowEnd), nan = is_equal(magnitude, kNaN);
        const Vec rounded = ((magnitude + 1) >> 1) + (is_equal(magnitude, 0x0E) & 1);
        const Vec mapped = select(is_below(magnitude, 0x0F), rounded, (magnitude - 7) | (nan & kNaN));
        store(mapped | (code & kSign), out + at);
        const Vec flag = (low & ~is_equal(magnitude, 0) & 1) | (nan & 1);
        store(flag, flags + at);
        all |= flag;
        const Vec bits = magnitude & 7;
        const Vec rank = (bits ^ (~is_below(bits, 6) & 1)) | ((low | nan) & kSeedRankExact);
        const Vec least = load(sums.rank.data() + at);
        store(select(is_less(rank, least), rank, least), sums.rank.data() + at);
        store(load(sums.inexact.data() + at) + (~is_equal(rank, kSeedRankExact) & 1), sums.inexact.data() + at);
      }
      masks[group] = is_zero(all) ? 0 : mask_of(flags);
    }
  }

 private:
  typedef uint8_t Vec __attribute__((vector_size(kVecBytes)));
  typedef int8_t SignedVec __attribute__((vector_size(kVecBytes)));  // SSE2 and AVX2 compare signed bytes only

  // Magnitudes below are the two lowest binades, whose values are magnitude * 2^-9.
  static constexpr uint8_t kLowEnd = 0x10, kSign = 0x80, kNaN = 0x7F;

  [[gnu::always_inline]] static Vec load(const uint8_t* at) {
    Vec value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  [[gnu::always_inline]] static void store(Vec value, uint8_t* at) { std::memcpy(at, &value, sizeof value); }
  // All ones where true. Of values up to 0x7F.
  [[gnu::always_inline]] static Vec is_less(Vec a, Vec b) {
    return reinterpret_cast<Vec>(reinterpret_cast<SignedVec>(a) < reinterpret_cast<SignedVec>(b));
  }
  [[gnu::always_inline]] static Vec is_below(Vec a, uint8_t b) { return is_less(a, Vec{} + b); }
  [[gnu::always_inline]] static Vec is_equal(Vec a, uint8_t b) { return reinterpret_cast<Vec>(a == Vec{} + b); }
  [[gnu::always_inline]] static Vec select(Vec mask, Vec yes, Vec no) { return (mask & yes) | (~mask & no); }
  [[gnu::always_inline]] static bool is_zero(Vec value) {
    uint64_t words[kVecBytes / 8], all = 0;
    std::memcpy(words, &value, sizeof words);
    for (const uint64_t word : words) all |= word;
    return all == 0;
  }
  // Bit i is flags[i], which is 0 or 1.
  [[gnu::always_inline]] static uint64_t mask_of(const uint8_t (&flags)[kCodeGroup]) {
    uint64_t mask = 0;
    for (size_t i = 0; i < kCodeGroup / 8; ++i) {
      uint64_t word;
      std::memcpy(&word, flags + 8 * i, sizeof word);
      mask |= ((word * 0x0102040810204080u) >> 56) << (8 * i);
    }
    return mask;
  }
};

}  // namespace hadal
