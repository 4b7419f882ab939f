// What this processor and its operating system can run. Own cpuid: compilers' built-in names lag behind (Clang 14 knows
// neither avx512_bf16 nor AMX). A feature counts only if the OS also saves its registers (XGETBV).
#pragma once

#include <string>

namespace hadal {

// All false on processors other than x86-64.
struct CpuFeatures {
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512vl = false;
  bool avx512dq = false;
  bool avx512_vbmi = false;
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool amx_tile = false;
  bool amx_bf16 = false;
  bool amx_int8 = false;
};

// Detected once; thread-safe, immutable. On Linux a process must also ask for AMX before it uses it (arch_prctl); that
// is left to the code that does.
const CpuFeatures& cpu_features();

// "avx2 fma avx512f ..." in the spelling of /proc/cpuinfo; "none" when nothing is set.
std::string describe(const CpuFeatures& features);

}  // namespace hadal
