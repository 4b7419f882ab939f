#include "synth_checkpoint/band_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "base/check.h"
#include "tensor/bf16.h"
#include "tensor/block_scale.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

constexpr uint64_t kGoldenRatio64 = 0x9E3779B97F4A7C15;

// The output function of splitmix64.
constexpr uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

constexpr uint64_t word_at(uint64_t key, uint64_t i) { return mix(key + (i + 1) * kGoldenRatio64); }

// Random codes: any sign, four octaves 2^-2 .. 2^2, all mantissas. Eight at a time: no carry leaves a byte.
constexpr uint64_t kE4m3Mask = 0x9F9F9F9F9F9F9F9F;
constexpr uint64_t kE4m3Base = 0x2828282828282828;
// Random bfloat16: any sign, four octaves from 2^exponent on, all mantissas. Four at a time.
constexpr uint64_t kBf16Mask = 0x81FF81FF81FF81FF;
constexpr uint64_t kOnesOf16 = 0x0001000100010001;

constexpr double mean_square_of_random_e4m3() {
  double sum = 0;
  for (int code = 0x28; code < 0x48; ++code) sum += double{kE4m3ToF32[code]} * kE4m3ToF32[code];
  return sum / 32;
}

// Fills `out` with words from `first_word` on; `make` maps random bits to elements.
template <typename Make>
void fill_words(uint64_t key, uint64_t first_word, std::span<std::byte> out, Make make) {
  uint64_t i = first_word;
  for (; out.size() >= sizeof(uint64_t); out = out.subspan(sizeof(uint64_t)), ++i) {
    const uint64_t word = make(word_at(key, i));
    std::memcpy(out.data(), &word, sizeof word);
  }
  if (!out.empty()) {
    const uint64_t word = make(word_at(key, i));
    std::memcpy(out.data(), &word, out.size());
  }
}

float round_up_to_power_of_two(float x) { return std::exp2(std::ceil(std::log2(x))); }

// t is uniform, so its root mean square is amplitude / sqrt(3); the random bits are given the same.
double root_mean_square(const TensorValues& values) { return values.amplitude / std::sqrt(3.0); }

void fill_random_e4m3(const TensorValues& values, const RowBand& band, bool power_of_two_scales, BandData& out) {
  const uint64_t first_byte = static_cast<uint64_t>(band.row_begin * band.cols);
  HADAL_CHECK(first_byte % sizeof(uint64_t) == 0, "band at row {}", band.row_begin);
  fill_words(values.key, first_byte / sizeof(uint64_t), out.elements,
             [](uint64_t bits) { return (bits & kE4m3Mask) + kE4m3Base; });
  const BlockScaleLayout layout;
  const int64_t first_scale = layout.scale_idx(band.row_begin, 0, band.cols);
  const double mean_scale = root_mean_square(values) / std::sqrt(mean_square_of_random_e4m3());
  for (size_t i = 0; i < out.scales.size(); ++i) {
    const double t = formula_unit(~values.key, static_cast<uint64_t>(first_scale) + i);
    const float scale = static_cast<float>(mean_scale * (1 + 0.25 * t));
    out.scales[i] = power_of_two_scales ? round_up_to_power_of_two(scale) : scale;
  }
}

void fill_random_bf16(const TensorValues& values, const RowBand& band, BandData& out) {
  constexpr double kMeanSquare = 7.0 / 3 * (1 + 4 + 16 + 64) / 4;  // of four equally likely octaves from 1 to 16
  const int exponent = static_cast<int>(std::lround(std::log2(root_mean_square(values) / std::sqrt(kMeanSquare))));
  const uint64_t base = kOnesOf16 * (static_cast<uint64_t>(127 + exponent) << 7);
  const uint64_t first_byte = static_cast<uint64_t>(band.row_begin * band.cols) * sizeof(bf16_t);
  HADAL_CHECK(first_byte % sizeof(uint64_t) == 0, "band at row {}", band.row_begin);
  fill_words(values.key, first_byte / sizeof(uint64_t), out.elements,
             [base](uint64_t bits) { return (bits & kBf16Mask) + base; });
}

double formula_value(const TensorValues& values, uint64_t i) {
  return values.offset + values.amplitude * formula_unit(values.key, i);
}

template <typename T, typename Convert>
void fill_formula(const TensorValues& values, const RowBand& band, BandData& out, Convert convert) {
  const uint64_t first = static_cast<uint64_t>(band.row_begin * band.cols);
  for (uint64_t i = 0; i < out.elements.size() / sizeof(T); ++i) {
    const T element = convert(static_cast<float>(formula_value(values, first + i)));
    std::memcpy(out.elements.data() + i * sizeof(T), &element, sizeof(T));
  }
}

// Quantises the bfloat16 weights: scale = max|w| of the block / 448, code = w / scale rounded to E4M3.
void fill_formula_e4m3(const TensorValues& values, const RowBand& band, bool power_of_two_scales, BandData& out) {
  const BlockScaleLayout layout;
  std::vector<float> weights(out.elements.size());
  const uint64_t first = static_cast<uint64_t>(band.row_begin * band.cols);
  std::fill(out.scales.begin(), out.scales.end(), 0.0F);
  const auto scale_of = [&](size_t i) -> float& {
    const int64_t row = static_cast<int64_t>(i) / band.cols;
    return out.scales[static_cast<size_t>(layout.scale_idx(row, static_cast<int64_t>(i) % band.cols, band.cols))];
  };
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = round_to_bf16(static_cast<float>(formula_value(values, first + i)));
    scale_of(i) = std::max(scale_of(i), std::fabs(weights[i]));
  }
  for (float& scale : out.scales) {
    scale = scale > 0 ? scale / kE4m3Max : 1.0F;
    if (power_of_two_scales) scale = round_up_to_power_of_two(scale);
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    out.elements[i] = static_cast<std::byte>(f32_to_e4m3(weights[i] / scale_of(i)));
  }
}

// The copies that the MTP layer carries hold the values of what they copy.
std::string_view value_name(const PlannedTensor& tensor) {
  if (tensor.role == WeightRole::kMtpEmbedTokens) return "model.embed_tokens.weight";
  if (tensor.role == WeightRole::kMtpHead) return "lm_head.weight";
  return tensor.name;
}

}  // namespace

uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

double formula_unit(uint64_t name_hash, uint64_t i) {
  return 2.0 * (static_cast<double>(word_at(name_hash, i) >> 40) / 0x1p24) - 1.0;
}

TensorValues values_of(const PlannedTensor& tensor, SynthValues kind, uint64_t seed) {
  TensorValues values;
  values.key = hash_name(value_name(tensor));
  if (kind == SynthValues::kRandom) values.key ^= mix(seed + kGoldenRatio64);
  if (tensor.role == WeightRole::kRouterBias) {
    // Trained biases balance the experts; random tokens then visit them nearly uniformly.
    values.amplitude = kind == SynthValues::kRandom ? 0.05 : 0.2;
  } else if (tensor.shape.rank() == 1) {
    values.offset = 1;
    values.amplitude = 0.2;
  } else if (tensor.role == WeightRole::kEmbedTokens || tensor.role == WeightRole::kMtpEmbedTokens) {
    values.amplitude = std::sqrt(3.0);
  } else {
    values.amplitude = std::sqrt(3.0 / static_cast<double>(tensor.shape[1]));
  }
  return values;
}

void fill_band(const TensorValues& values, SynthValues kind, DType dtype, const RowBand& band, bool power_of_two_scales,
               BandData& out) {
  const int64_t rows = band.row_end - band.row_begin;
  const BlockScaleLayout layout;
  out.elements.resize(static_cast<size_t>(rows * band.cols) * dtype_size_bytes(dtype));
  out.scales.resize(dtype == DType::kF8E4M3
                        ? static_cast<size_t>(layout.num_row_blocks(rows) * layout.num_col_blocks(band.cols))
                        : 0);
  // Vectors are small and have an offset: the formula serves both kinds.
  const bool random = kind == SynthValues::kRandom && values.offset == 0;
  switch (dtype) {
    case DType::kF8E4M3:
      return random ? fill_random_e4m3(values, band, power_of_two_scales, out)
                    : fill_formula_e4m3(values, band, power_of_two_scales, out);
    case DType::kBF16:
      return random ? fill_random_bf16(values, band, out)
                    : fill_formula<bf16_t>(values, band, out, [](float x) { return f32_to_bf16(x); });
    case DType::kF32:
      return fill_formula<float>(values, band, out, [](float x) { return x; });
    default:
      HADAL_CHECK(false, "no synthetic values of {}", dtype_name(dtype));
  }
}

}  // namespace hadal
