#include <gtest/gtest.h>

#include <algorithm>

#include "base/cpu_features.h"
#include "kernels/kernels.h"

namespace hadal {
namespace {

TEST(Dispatch, AutoPicksTheFastestAvailable) {
  const auto selected = select_kernels("auto");
  ASSERT_TRUE(selected.has_value());
  EXPECT_EQ((*selected)->isa, available_isas().back());
}

TEST(Dispatch, ReferenceAndPortableRunAnywhere) {
  for (Isa isa : {Isa::kReference, Isa::kPortable}) {
    const auto selected = select_kernels(isa_name(isa));
    ASSERT_TRUE(selected.has_value());
    EXPECT_EQ((*selected)->isa, isa);
    EXPECT_STREQ((*selected)->name, isa_name(isa));
  }
  EXPECT_EQ(kernels_for(Isa::kReference).act_dtype, DType::kF32);
  EXPECT_EQ(kernels_for(Isa::kPortable).act_dtype, DType::kBF16);
}

TEST(Dispatch, RefusesWhatTheProcessorLacks) {
  const CpuFeatures& cpu = cpu_features();
  const auto isas = available_isas();
  for (const auto& [isa, needs] : {std::pair{Isa::kAvx2, cpu.avx2 && cpu.fma && cpu.f16c},
                                   {Isa::kAvx512, cpu.avx512f && cpu.avx512bw},
                                   {Isa::kAvx512Bf16, cpu.avx512_bf16}}) {
    const auto selected = select_kernels(isa_name(isa));
    if (std::find(isas.begin(), isas.end(), isa) != isas.end()) {
      ASSERT_TRUE(selected.has_value());
      EXPECT_EQ((*selected)->isa, isa);
      EXPECT_TRUE(needs) << isa_name(isa);
    } else {
      ASSERT_FALSE(selected.has_value());
      EXPECT_EQ(selected.error().code, ErrorCode::kUnsupported);
    }
  }
}

TEST(Dispatch, NamesTheNearestSpelling) {
  const auto selected = select_kernels("avx512_bf61");
  ASSERT_FALSE(selected.has_value());
  EXPECT_EQ(selected.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(selected.error().message.find("did you mean 'avx512-bf16'?"), std::string::npos)
      << selected.error().message;
}

TEST(Dispatch, KvDTypeByVllmsNames) {
  for (const Isa isa : {Isa::kReference, Isa::kPortable}) {
    const KernelTable& kernels = kernels_for(isa);
    for (const char* name : {"auto", "bfloat16"}) EXPECT_EQ(select_kv_dtype(name, kernels).value(), kernels.act_dtype);
    for (const char* name : {"fp8", "fp8_e4m3"}) EXPECT_EQ(select_kv_dtype(name, kernels).value(), DType::kF8E4M3);
  }
  for (const char* name : {"fp8_e5m2", "fp8_inc", "float16", ""}) {
    const auto refused = select_kv_dtype(name, kernels_for(Isa::kPortable));
    ASSERT_FALSE(refused.has_value()) << name;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(refused.error().message.find("Use one of: auto, bfloat16, fp8, fp8_e4m3"), std::string::npos)
        << refused.error().message;
  }
}

TEST(CpuFeatures, DescribesItself) {
  EXPECT_EQ(describe({}), "none");
  EXPECT_EQ(describe({.avx2 = true, .avx512_bf16 = true}), "avx2 avx512_bf16");
  // No processor has the later extension without its base.
  const CpuFeatures& cpu = cpu_features();
  EXPECT_TRUE(!cpu.avx512_bf16 || cpu.avx512f);
  EXPECT_TRUE(!cpu.avx512f || cpu.avx2);
}

}  // namespace
}  // namespace hadal
