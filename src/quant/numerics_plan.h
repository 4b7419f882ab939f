// What a numerics profile does to every module of a model: how its weight is held and how its input is quantised.
// A plain value that `quant` makes (from a profile, or from measurements and an INC config) and `model` executes.
// Modes A to D: spec/gaudi-pipeline.md 5.1.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "quant/range_map.h"
#include "quant/scale_rule.h"

namespace hadal {

enum class NumericsProfile : uint8_t { kBf16, kReference, kFp8Dynamic, kGaudi2, kGaudi3 };

enum class GaudiMode : uint8_t {
  kNone,            // not a Gaudi profile
  kRuntimeDequant,  // A: weights dequantised to BF16
  kDynamic,         // B: weights per row, inputs per token, both requantised by this program
  kStatic,          // C: weights and input scales of a per-channel checkpoint
  kInc,             // D: INC: weights per row, inputs by measured scales
};

enum class WeightFormat : uint8_t {
  kStored,  // as the checkpoint has it
  kBf16,    // bf16(bf16(code) * bf16(block scale))
  kRowF8,   // FP8 with one scale a row, quantised from the above (or taken from a per-channel checkpoint)
};

enum class InputQuantKind : uint8_t {
  kNone,
  kStatic,  // cast(x * inv) with InputQuant::scale
  kToken,   // one scale a token: bf16((amax + 1e-8) / full scale)
  kGroup,   // one FP32 scale a token and 128 columns: amax / 448 (DeepSeek's act_quant)
};

struct InputQuant {
  InputQuantKind kind = InputQuantKind::kNone;
  StaticScale scale;  // kStatic
};

struct ModuleQuant {
  WeightFormat weight = WeightFormat::kStored;
  InputQuant input;
};

// Attention in FP8, as INC patches it. Each part is absent when its module is not quantised (blocked, or no INC).
struct AttentionQuant {
  ModuleQuant kv_b;                         // prefill's expansion of the latent; decode keeps kBf16 matrices always
  std::optional<StaticScale> latent_cache;  // FP8 cache rows = cast(value * inv); read as bf16(code * scale)
  // fused_scaled_dot_product_attention (prefill): q, k, v, probabilities, output.
  std::optional<std::array<StaticScale, 5>> sdpa;
  // Decode's matmuls, inputs 0 and 1 each.
  std::optional<std::array<StaticScale, 2>> matmul_qk, matmul_av, batch2block, block2batch;
};

struct LayerQuant {
  ModuleQuant q_a, kv_a;
  ModuleQuant q_b;  // q_proj where q_lora_rank is 0
  ModuleQuant o;
  ModuleQuant gate_up, down;  // dense layers: the MLP; MoE layers: the shared expert
  ModuleQuant experts;        // weights of all routed experts; input of their gate and up
  InputQuantKind expert_down = InputQuantKind::kNone;
  std::vector<StaticScale> expert_down_scales;  // [n_routed_experts] when expert_down is kStatic
  AttentionQuant attention;
};

struct NumericsPlan {
  NumericsProfile profile = NumericsProfile::kBf16;
  GaudiMode mode = GaudiMode::kNone;
  FpRange range = FpRange::kGaudi3;      // of every cast: 240 or 448
  RangeMap range_map = RangeMap::kNone;  // applied to stored codes before anything else
  ScaleRule weight_rule;                 // kRowF8
  bool weight_scale_per_tensor = false;  // one scale for all rows of a module (gate and up together), else per row
  bool group_scale_pow2 = false;         // kGroup: scales rounded up to powers of two (scale_fmt "ue8m0")
  bool bf16_results = false;             // outputs of linears and the residual stream are rounded to BF16
  // kRowF8: of every weight, in place of weight_rule (INC's UNIT_SCALE and HW_ALIGNED_SINGLE_SCALE).
  std::optional<StaticScale> fixed_weight_scale;
  std::vector<LayerQuant> layers;  // [num_hidden_layers]; empty: nothing is quantised
};

}  // namespace hadal
