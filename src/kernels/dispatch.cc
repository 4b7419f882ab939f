#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "base/check.h"
#include "base/cpu_features.h"
#include "base/names.h"
#include "kernels/cpu/tables.h"
#include "kernels/kernels.h"
#include "kernels/ref/reference.h"

namespace hadal {
namespace {

struct Entry {
  Isa isa;
  const char* name;
  const KernelTable* table;  // null: not in this build
  bool (*runs_here)();
};

bool always() { return true; }

bool has_avx2() {
  const CpuFeatures& cpu = cpu_features();
  return cpu.avx2 && cpu.fma && cpu.f16c;
}

bool has_avx512() {
  const CpuFeatures& cpu = cpu_features();
  return has_avx2() && cpu.avx512f && cpu.avx512bw && cpu.avx512vl && cpu.avx512dq;
}

bool has_avx512_bf16() { return has_avx512() && cpu_features().avx512_vbmi && cpu_features().avx512_bf16; }

// Slowest first.
const Entry kEntries[] = {
    {Isa::kReference, "reference", &reference::kTable, always},
    {Isa::kPortable, "portable", &cpu::portable_table(), always},
    {Isa::kAvx2, "avx2", cpu::avx2_table(), has_avx2},
    {Isa::kAvx512, "avx512", cpu::avx512_table(), has_avx512},
    {Isa::kAvx512Bf16, "avx512-bf16", cpu::avx512_bf16_table(), has_avx512_bf16},
};

bool available(const Entry& entry) { return entry.table != nullptr && entry.runs_here(); }

const Entry& entry_of(Isa isa) {
  for (const Entry& entry : kEntries) {
    if (entry.isa == isa) return entry;
  }
  HADAL_CHECK(false, "unknown isa {}", static_cast<int>(isa));
}

tl::unexpected<Error> unknown_name(std::string_view what, std::string_view name,
                                   const std::vector<std::string>& names) {
  const std::string nearest = closest_name(name, names);
  const std::string hint = nearest.empty() ? "." : ", did you mean '" + nearest + "'?";
  return make_error(ErrorCode::kInvalidArgument, "unknown {} '{}'{} Use one of: {}", what, name, hint,
                    fmt::join(names, ", "));
}

}  // namespace

const char* isa_name(Isa isa) { return entry_of(isa).name; }

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Entry& entry : kEntries) {
    if (available(entry)) isas.push_back(entry.isa);
  }
  return isas;
}

const KernelTable& kernels_for(Isa isa) {
  const Entry& entry = entry_of(isa);
  HADAL_CHECK(available(entry), "{} kernels cannot run on this processor", entry.name);
  return *entry.table;
}

Expected<const KernelTable*> select_kernels(std::string_view isa) {
  if (isa == "auto") return &kernels_for(available_isas().back());
  std::vector<std::string> names = {"auto"};
  for (const Entry& entry : kEntries) {
    if (isa == entry.name) {
      if (available(entry)) return entry.table;
      return make_error(ErrorCode::kUnsupported, "{} kernels: this processor has only: {}", isa,
                        describe(cpu_features()));
    }
    names.emplace_back(entry.name);
  }
  return unknown_name("instruction set", isa, names);
}

Expected<DType> select_kv_dtype(std::string_view name, const KernelTable& kernels) {
  if (name == "auto" || name == "bfloat16") return kernels.act_dtype;
  if (name == "fp8" || name == "fp8_e4m3") return DType::kF8E4M3;
  return unknown_name("KV cache dtype", name, {"auto", "bfloat16", "fp8", "fp8_e4m3"});
}

}  // namespace hadal
