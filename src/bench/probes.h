// Loops that do one thing as fast as an instruction set allows: read memory, or multiply in registers. One file per
// instruction set, compiled with its flags; those files include this header, read_loop.h and <immintrin.h> only (the
// rule on weak symbols in kernels/README.md). Internal to bench/.
#pragma once

#include <cstdint>

namespace hadal {

// Reads [data, data + num_bytes) once, ascending, and returns something that depends on all of it.
// data is 64-byte aligned, num_bytes a multiple of 256.
struct ReadLoop {
  const char* variant;  // "avx512 t0+4096": instructions, then cache hint and prefetch distance in bytes
  uint64_t (*run)(const char* data, int64_t num_bytes);
};

enum class MultiplyKind { kBf16, kFp32, kInt8 };

// Multiply-adds on registers only, in enough independent chains to hide the latency.
struct MultiplyLoop {
  MultiplyKind kind;
  const char* variant;
  double ops_per_round;  // 2 per multiply-add
  float (*run)(int64_t num_rounds);
};

// What one instruction set offers. Arrays end with an entry whose run is null; empty where the compiler lacks the
// instructions.
struct ProbeLoops {
  const ReadLoop* reads;
  const MultiplyLoop* multiplies;
};

inline constexpr ReadLoop kNoReads[] = {{nullptr, nullptr}};
inline constexpr MultiplyLoop kNoMultiplies[] = {{MultiplyKind::kFp32, nullptr, 0, nullptr}};

// Run them only where cpu_features() has the instructions. AMX tiles are left out: no kernel of this program uses them.
extern const ProbeLoops kBaselineProbes;
extern const ProbeLoops kAvx2Probes;        // avx2 fma
extern const ProbeLoops kAvx512Probes;      // avx512f avx512vl
extern const ProbeLoops kAvx512Bf16Probes;  // avx512_bf16
extern const ProbeLoops kAvx512VnniProbes;  // avx512_vnni

}  // namespace hadal
