#include "eval/numerics_hash.h"

#include <bit>
#include <concepts>
#include <optional>
#include <type_traits>

#include "eval/content_hash.h"

namespace hadal {
namespace {

// Writes values one after the other, floats by their bits, so that nothing is lost.
class PlanWriter {
 public:
  template <typename T>
  requires std::integral<T> || std::is_enum_v<T>
  void add(T value) { text_ += fmt::format("{} ", static_cast<int64_t>(value)); }
  void add(float value) { add(std::bit_cast<uint32_t>(value)); }
  void add(const StaticScale& scale) { add(scale.scale), add(scale.inv); }
  void add(const ScaleRule& rule) {
    add(rule.range), add(rule.rounding), add(rule.backoff), add(rule.epsilon), add(rule.bf16);
  }
  void add(const ModuleQuant& module) { add(module.weight), add(module.input.kind), add(module.input.scale); }
  template <typename Range>
  requires requires(const Range& range) { range.begin(), range.size(); }
  void add(const Range& range) {
    add(range.size());
    for (const auto& value : range) add(value);
  }
  template <typename T>
  void add(const std::optional<T>& value) {
    add(value.has_value());
    if (value) add(*value);
  }
  void add(const AttentionQuant& attention) {
    add(attention.kv_b), add(attention.latent_cache), add(attention.sdpa);
    add(attention.matmul_qk), add(attention.matmul_av), add(attention.batch2block), add(attention.block2batch);
  }
  void add(const LayerQuant& layer) {
    add(layer.q_a), add(layer.kv_a), add(layer.q_b), add(layer.o), add(layer.gate_up), add(layer.down);
    add(layer.experts), add(layer.expert_down), add(layer.expert_down_scales), add(layer.attention);
  }

  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

std::string numerics_hash(const NumericsPlan& plan) {
  PlanWriter writer;
  writer.add(plan.profile);
  writer.add(plan.mode);
  writer.add(plan.range);
  writer.add(plan.range_map);
  writer.add(plan.weight_rule);
  writer.add(plan.weight_scale_per_tensor);
  writer.add(plan.group_scale_pow2);
  writer.add(plan.bf16_results);
  writer.add(plan.fixed_weight_scale);
  writer.add(plan.layers);
  return content_hash(writer.text());
}

}  // namespace hadal
