// hadal eval perplexity: how surprised a model is by a text.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "eval/documents.h"
#include "model/forward_model.h"

namespace hadal {

struct PerplexityReport {
  int64_t num_documents = 0, num_windows = 0;
  int64_t num_tokens = 0;  // scored
  int64_t num_bytes = 0;   // of text that the scored tokens stand for
  double nll = 0;          // mean over tokens, nats
  double nll_stderr = 0;   // sample deviation over tokens / sqrt(n): tokens taken as independent
  double seconds = 0;

  double perplexity() const;
  double perplexity_stderr() const;  // first order: perplexity * nll_stderr
  double bits_per_byte() const;      // summed bits / bytes
};

// num_bytes: count_scored_bytes(). Errors: kInvalidArgument (no token to score), those of the
// model, kInternal (a logit that is no number).
Expected<PerplexityReport> measure_perplexity(std::unique_ptr<ForwardModel> model,
                                              const std::vector<TokenWindow>& windows, int64_t num_bytes);

std::string perplexity_text(const PerplexityReport& report);
Json perplexity_json(const PerplexityReport& report);

}  // namespace hadal
