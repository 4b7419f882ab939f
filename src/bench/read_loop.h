// The read loop, once for all vector widths. Internal to probes_*.cc: static, so that no copy compiled for one
// instruction set can be linked into another's place.
#pragma once

#include <cstdint>

#include "bench/probes.h"

namespace hadal {

// Vectors for the loop's loads. may_alias: they read chars.
struct Vectors128 {
  typedef uint64_t Vector __attribute__((vector_size(16), may_alias));
};
struct Vectors256 {
  typedef uint64_t Vector __attribute__((vector_size(32), may_alias));
};
struct Vectors512 {
  typedef uint64_t Vector __attribute__((vector_size(64), may_alias));
};

// kAhead: prefetch distance in bytes, 0 for none. kLocality as in __builtin_prefetch: 3 all caches, 0 non-temporal.
template <typename Vectors, int kAhead, int kLocality>
static uint64_t read_loop(const char* data, int64_t num_bytes) {
  using Vector = typename Vectors::Vector;
  constexpr int kVectorBytes = sizeof(Vector);
  constexpr int kStride = 256, kLine = 64, kSums = 4;
  Vector sums[kSums] = {};
  for (int64_t offset = 0; offset < num_bytes; offset += kStride) {
    const char* at = data + offset;
    if constexpr (kAhead > 0) {
#pragma GCC unroll 4
      for (int line = 0; line < kStride; line += kLine) __builtin_prefetch(at + kAhead + line, 0, kLocality);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kStride / kVectorBytes; ++i) {
      sums[i % kSums] ^= *reinterpret_cast<const Vector*>(at + i * kVectorBytes);
    }
  }
  const Vector all = (sums[0] ^ sums[1]) ^ (sums[2] ^ sums[3]);
  uint64_t result = 0;
  for (int i = 0; i < kVectorBytes / 8; ++i) result ^= all[i];
  return result;
}

}  // namespace hadal

// The variants of one vector type, for a ReadLoop array.
#define HADAL_READ_LOOPS(name, vectors)                                   \
  {name " plain", ::hadal::read_loop<::hadal::vectors, 0, 3>},            \
      {name " t0+1024", ::hadal::read_loop<::hadal::vectors, 1024, 3>},   \
      {name " t0+4096", ::hadal::read_loop<::hadal::vectors, 4096, 3>}, { \
    name " nta+2048", ::hadal::read_loop<::hadal::vectors, 2048, 0>       \
  }
