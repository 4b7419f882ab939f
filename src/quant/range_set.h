// What calibration measures: the largest magnitude of every tensor that a static scale may be made for, by logical
// tensor (head, expert, K-leaf), independent of rank and tensor-parallel degree. One set yields INC's files for any
// world size (inc_ranges.h), and the scales of a NumericsPlan (inc_plan.h). Facts: spec/gaudi-pipeline.md 3.2 to 3.5.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

// A magnitude nobody has seen. Smaller than every magnitude, so that max() with it does the right thing.
inline constexpr float kUnmeasured = -1;

// Of the model a set belongs to; config.json's names. Two sets can be merged, and a set can be used, only where equal.
struct RangeDims {
  int64_t num_hidden_layers = 0;
  int64_t first_k_dense_replace = 0;  // == num_hidden_layers when no layer is MoE
  int64_t moe_layer_freq = 1;         // of the layers from there on, those whose index it divides are MoE
  int64_t hidden_size = 0;
  int64_t num_attention_heads = 0;
  int64_t q_lora_rank = 0;  // 0: q_proj in place of q_a_proj and q_b_proj
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  int64_t intermediate_size = 0;
  int64_t moe_intermediate_size = 0;
  int64_t n_routed_experts = 0;
  int64_t n_shared_experts = 0;
  // K-leaves of down_proj (design.md 4): of dense layers, and of the shared expert (0 without one).
  int64_t dense_leaves = 0;
  int64_t shared_leaves = 0;

  bool is_moe_layer(int64_t layer) const {
    return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
  int64_t leaves_of(int64_t layer) const { return is_moe_layer(layer) ? shared_leaves : dense_leaves; }
  friend bool operator==(const RangeDims&, const RangeDims&) = default;
};

// Refuses dimensions no model has (zero heads, more leaves than width ...), naming the field.
Status check_range_dims(const RangeDims& dims);

struct RangeProvenance {
  std::string model;     // folder or name, as given to calibrate
  std::string data;      // file or dataset
  std::string numerics;  // profile that ran: "bf16", "gaudi2" ...
  std::string method;    // "hadal calibrate", or "INC files of world size 16"
  uint64_t num_prompts = 0;
  uint64_t num_tokens = 0;  // prompts and generated
  // Not 0: per-head, per-leaf and per-expert values are the maxima of the rank that owned them at this world size (read
  // from INC files), so exact for its divisors and an upper bound for other sizes.
  int64_t source_world_size = 0;
};

// All values are max |x| (F32, most are BF16 values), or kUnmeasured.
struct LayerRanges {
  float attention_in = kUnmeasured;  // input of q_a_proj and kv_a_proj_with_mqa (and of a plain q_proj)
  float q_b_in = kUnmeasured;        // q latent after its norm; of a plain q_proj its input
  float kv_b_in = kUnmeasured;       // KV latent after its norm
  float latent_value = kUnmeasured;  // latent of the cached rows that decode read: matmul_av's second input. Where
                                     // unmeasured, kv_b_in stands in (they differ in few layers)
  float latent_cache = kUnmeasured;  // whole cache row, latent and rope part; matmul_qk's second input
  float softmax = kUnmeasured;       // probabilities: 1

  // [num_attention_heads]
  std::vector<float> sdpa_q, sdpa_k, sdpa_v;  // prefill attention's inputs
  std::vector<float> sdpa_out;                // and output
  std::vector<float> o_in;                    // input of o_proj, this head's columns
  std::vector<float> absorbed_q;              // matmul_qk's first input: bf16(softmax_scale * [q_latent, q_rope])
  std::vector<float> batch2block;             // data input of batch2block_matmul
  std::vector<float> block2batch;             // data input of block2batch_matmul

  float mlp_in = kUnmeasured;  // input of gate_up_proj, of the routed experts, of the shared expert
  // [leaves_of(layer)] input of down_proj of the dense MLP or the shared expert, this leaf's columns
  std::vector<float> down_in;

  // MoE layers only. [n_routed_experts]
  std::vector<float> expert_down_in;    // 0: no token came by
  std::vector<uint64_t> expert_tokens;  // empty: not counted
  // World size -> [world size]: combined output of a rank's experts before the all-reduce.
  std::map<int64_t, std::vector<float>> moe_out;

  // Largest |weight|, dequantised to BF16.
  float q_a_weight = kUnmeasured, kv_a_weight = kUnmeasured;
  std::vector<float> q_b_weight, kv_b_weight;  // [num_attention_heads] this head's rows (q_b also of a plain q_proj)
  std::vector<float> o_weight;                 // [num_attention_heads] this head's columns
  std::vector<float> gate_up_weight;           // [leaves] this leaf's rows of gate and up
  std::vector<float> down_weight;              // [leaves] this leaf's columns
  std::vector<float> w13_weight, w2_weight;    // [n_routed_experts], MoE layers

  friend bool operator==(const LayerRanges&, const LayerRanges&) = default;
};

struct RangeSet {
  RangeDims dims;
  RangeProvenance provenance;
  std::vector<LayerRanges> layers;  // [num_hidden_layers]
};

// Everything sized for `dims`, unmeasured, no token counted. Requires valid dims.
RangeSet make_range_set(const RangeDims& dims);

// slot = max(slot, amax). NaN stays, so that check_range_set() finds it.
void raise_range(float& slot, float amax);

// Sizes fit the dims, every value is kUnmeasured or finite and >= 0. Errors: kInvalidArgument naming layer and field.
Status check_range_set(const RangeSet& set);

// Raises `into` by `from`; counts add up. Errors: kInvalidArgument naming the first dimension that differs.
Status merge_range_set(RangeSet& into, const RangeSet& from);

// The magnitudes of a set, without its counts, as one list: its length and order follow from the dims and from the
// world sizes of moe_out.
std::vector<float> range_values(const RangeSet& set);
// Raises them by those of another set. Errors: kCorrupt: another number of values; `set` is as it was.
Status raise_range_values(RangeSet& set, std::span<const float> values);

// First differing field of two dims as "n_routed_experts is 256, expected 384", or "".
std::string dims_difference(const RangeDims& found, const RangeDims& expected);

// One JSON object: {"format": "hadal ranges", "version": 1, "model": dims, "provenance": .., "layers": [..]};
// kUnmeasured is null. The reader bounds everything before it allocates and checks the set.
std::string range_set_to_json(const RangeSet& set);
Expected<RangeSet> range_set_from_json(std::string_view text);

// Errors begin with the path. Writing is atomic: an older file stays until the new one is whole.
Status write_range_set(const std::filesystem::path& path, const RangeSet& set);
Expected<RangeSet> read_range_set(const std::filesystem::path& path);

}  // namespace hadal
