// The errors of a plan's weights against a computation from the checkpoint's own bytes.
#include "model/weight_errors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "quant/profile_plan.h"
#include "quant/range_map.h"
#include "support/test_files.h"
#include "tensor/bf16.h"
#include "tensor/block_scale.h"
#include "tensor/fp8.h"
#include "tiny_model.h"

namespace hadal {
namespace {

struct Sums {
  double signal = 0, noise = 0, product = 0;
};

// FP32 code * scale against bf16(bf16(mapped code) * bf16(mapped scale)), of a block-FP8 tensor.
Sums device_sums(const StoredTensors& tensors, const std::string& name, RangeMap map) {
  const StoredTensor& tensor = tensors.at(name);
  const int64_t rows = tensor.shape[0], cols = tensor.shape[1];
  const auto* scales = reinterpret_cast<const std::byte*>(tensors.at(name + "_scale_inv").bytes.data());
  Sums sums;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      const auto code = static_cast<uint8_t>(tensor.bytes[static_cast<size_t>(row * cols + col)]);
      float scale = 0;
      std::memcpy(&scale, scales + BlockScaleLayout{}.scale_idx(row, col, cols) * 4, sizeof(scale));
      const double expected = e4m3_to_f32(code) * scale;
      const double found =
          round_to_bf16(e4m3_to_f32(range_map_codes(map)[code]) * round_to_bf16(range_map_scale(map, scale)));
      sums.signal += expected * expected;
      sums.noise += (expected - found) * (expected - found);
      sums.product += expected * found;
    }
  }
  return sums;
}

class WeightErrors : public ::testing::Test {
 protected:
  WeightErrors() { write_tiny_checkpoint(dir_.path() / "model", tiny_config(), SynthWeights::kFp8); }

  std::vector<WeightError> measure(const ProfileOptions& profile, DType act_dtype = DType::kBF16) {
    ProfileOptions options = profile;
    options.num_layers = tiny_config()["num_hidden_layers"];
    auto errors =
        measure_weight_errors(dir_.path() / "model",
                              {.numerics = make_profile_plan(options), .act_dtype = act_dtype, .max_experts = 1 << 20});
    EXPECT_TRUE(errors) << errors.error().message;
    return errors ? *std::move(errors) : std::vector<WeightError>();
  }

  TempDir dir_;
};

TEST_F(WeightErrors, EqualTheFormulaForEveryTensorThatChanges) {
  const StoredTensors stored = read_all_tensors(dir_.path() / "model");
  for (const RangeMap map : {RangeMap::kExact, RangeMap::kSeed}) {
    const auto errors =
        measure({.profile = NumericsProfile::kGaudi2, .mode = GaudiMode::kRuntimeDequant, .range_map = map});
    ASSERT_GT(errors.size(), 20u);
    for (size_t i = 0; i < errors.size(); ++i) {
      const Sums sums = device_sums(stored, errors[i].name, map);
      // Sums of at most 2^18 products in double, of values read back in FP32: far below 1e-6.
      EXPECT_NEAR(errors[i].sqnr_db, 10 * std::log10(sums.signal / sums.noise), 1e-6) << errors[i].name;
      EXPECT_NEAR(errors[i].gain, sums.product / sums.signal, 1e-9) << errors[i].name;
      EXPECT_GE(errors[i].sqnr_db, errors[i > 0 ? i - 1 : 0].sqnr_db);  // worst first
    }
  }
}

TEST_F(WeightErrors, OnlyKvBChangesInBf16AndNothingInTheReference) {
  const auto errors = measure({.profile = NumericsProfile::kBf16});
  EXPECT_FALSE(errors.empty());
  for (const WeightError& error : errors) {
    EXPECT_NE(error.name.find("kv_b_proj"), std::string::npos) << error.name;
    EXPECT_GT(error.sqnr_db, 50);  // one rounding to 8 bits of significand
  }
  EXPECT_TRUE(measure({.profile = NumericsProfile::kReference}, DType::kF32).empty());
}

TEST_F(WeightErrors, AFolderThatIsNoneIsRefused) { EXPECT_FALSE(measure_weight_errors(dir_.path() / "absent", {})); }

}  // namespace
}  // namespace hadal
