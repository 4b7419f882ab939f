// hadal eval kl: how far a numerics profile's predictions and residual stream are from the reference's, on given text.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "eval/documents.h"
#include "model/forward_model.h"
#include "model/forward_observer.h"
#include "model/weight_errors.h"

namespace hadal {

// Loads a model that shows its residual stream to the observer.
using ModelFactory = std::function<Expected<std::unique_ptr<ForwardModel>>(ForwardObserver observer)>;

struct DivergenceShape {
  int64_t num_layers = 0, hidden_size = 0, vocab_size = 0;
};

// What a model gave in one step: copies.
struct StepValues {
  std::vector<float> logits;                  // [rows, vocab]
  std::vector<std::vector<float>> residuals;  // [layers] of [tokens, hidden]
};

// All that the reference gave for given windows, kept so that profiles can be compared with it one after the other.
struct ReferenceRecording {
  DivergenceShape shape;
  std::vector<TokenWindow> windows;
  std::vector<StepValues> steps;
};

struct LayerError {
  int64_t layer = 0;
  double sqnr_db = 0;  // 10 log10(sum reference^2 / sum (reference - profile)^2); infinite when equal
};

struct DivergenceReport {
  int64_t num_tokens = 0;                         // scored
  double mean_kl = 0, kl_stderr = 0, max_kl = 0;  // KL(reference || profile) per token, nats
  int64_t max_kl_window = 0, max_kl_position = 0;
  int64_t num_same_top = 0;                   // tokens whose most likely continuation is the same
  double reference_nll = 0, profile_nll = 0;  // means, nats
  std::vector<WeightError> weights;           // worst first; filled by the caller, empty where none changes
  std::vector<LayerError> layers;             // the stream behind each layer, all tokens
  double seconds = 0;

  double top1_agreement() const { return static_cast<double>(num_same_top) / static_cast<double>(num_tokens); }
};

// Bytes that a recording of `num_tokens` tokens takes: logits and the stream behind every layer, FP32.
uint64_t recording_bytes(const DivergenceShape& shape, int64_t num_tokens);

// Errors: kInvalidArgument (no token to score), kResourceExhausted with the arithmetic when it takes more than
// memory_limit_bytes, those of the model.
Expected<ReferenceRecording> record_reference(const ModelFactory& reference, const DivergenceShape& shape,
                                              std::vector<TokenWindow> windows, uint64_t memory_limit_bytes);

// Errors: those of the model, kInternal (a logit that is no number).
Expected<DivergenceReport> measure_divergence(const ReferenceRecording& reference, const ModelFactory& profile);

// Both models in memory at once, step by step: nothing is kept. Errors: as above.
Expected<DivergenceReport> measure_divergence(const ModelFactory& reference, const ModelFactory& profile,
                                              const DivergenceShape& shape, const std::vector<TokenWindow>& windows);

// KL(p || q) of the softmaxes of two rows, in nats, and whether their largest logits are at the same id.
struct RowDivergence {
  double kl = 0;
  bool same_top = false;
};
RowDivergence row_divergence(const float* reference, const float* profile, int64_t vocab_size);

std::string divergence_text(const DivergenceReport& report);
Json divergence_json(const DivergenceReport& report);

}  // namespace hadal
