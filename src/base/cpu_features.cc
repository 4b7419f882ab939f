#include "base/cpu_features.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace hadal {
namespace {

struct NamedFeature {
  const char* name;
  bool CpuFeatures::*field;
};

constexpr NamedFeature kNames[] = {
    {"avx2", &CpuFeatures::avx2},
    {"fma", &CpuFeatures::fma},
    {"f16c", &CpuFeatures::f16c},
    {"avx512f", &CpuFeatures::avx512f},
    {"avx512bw", &CpuFeatures::avx512bw},
    {"avx512vl", &CpuFeatures::avx512vl},
    {"avx512dq", &CpuFeatures::avx512dq},
    {"avx512vbmi", &CpuFeatures::avx512_vbmi},
    {"avx512_vnni", &CpuFeatures::avx512_vnni},
    {"avx512_bf16", &CpuFeatures::avx512_bf16},
    {"amx_tile", &CpuFeatures::amx_tile},
    {"amx_bf16", &CpuFeatures::amx_bf16},
    {"amx_int8", &CpuFeatures::amx_int8},
};

#if defined(__x86_64__)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Zeros where the processor has no such leaf.
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

constexpr bool bit(uint32_t word, int index) { return (word >> index) & 1u; }

// XCR0: which register states the operating system saves. 0 when it does not say.
uint32_t enabled_states(const Registers& leaf1) {
  constexpr int kOsxsave = 27;
  if (!bit(leaf1.ecx, kOsxsave)) return 0;
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

CpuFeatures detect() {
  // Bits of XCR0 (Intel SDM vol. 1, 13.3): SSE 1, AVX 2; opmask 5, upper ZMM 6, ZMM16-31 7; tile config 17, data 18.
  constexpr uint32_t kAvxStates = 0x6, kAvx512States = 0xE6, kAmxStates = 0x60000;
  const Registers leaf1 = cpuid(1, 0), leaf7 = cpuid(7, 0), leaf7_1 = cpuid(7, 1);
  const uint32_t states = enabled_states(leaf1);

  CpuFeatures f;
  if ((states & kAvxStates) == kAvxStates) {
    f.fma = bit(leaf1.ecx, 12);
    f.f16c = bit(leaf1.ecx, 29);
    f.avx2 = bit(leaf7.ebx, 5);
  }
  if ((states & kAvx512States) == kAvx512States) {
    f.avx512f = bit(leaf7.ebx, 16);
    f.avx512dq = bit(leaf7.ebx, 17);
    f.avx512bw = bit(leaf7.ebx, 30);
    f.avx512vl = bit(leaf7.ebx, 31);
    f.avx512_vbmi = bit(leaf7.ecx, 1);
    f.avx512_vnni = bit(leaf7.ecx, 11);
    f.avx512_bf16 = bit(leaf7_1.eax, 5);
  }
  if ((states & kAmxStates) == kAmxStates) {
    f.amx_bf16 = bit(leaf7.edx, 22);
    f.amx_tile = bit(leaf7.edx, 24);
    f.amx_int8 = bit(leaf7.edx, 25);
  }
  return f;
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::string describe(const CpuFeatures& features) {
  std::string text;
  for (const NamedFeature& feature : kNames) {
    if (!(features.*feature.field)) continue;
    if (!text.empty()) text += ' ';
    text += feature.name;
  }
  return text.empty() ? "none" : text;
}

}  // namespace hadal
