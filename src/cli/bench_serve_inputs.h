// From the flags of `hadal bench serve` to what it measures: the server, its model, a tokenizer, prompts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/serve_dataset.h"
#include "bench/serve_load.h"
#include "cli/bench_serve_options.h"

namespace hadal {

struct BenchServeInputs {
  ServeTarget target;
  std::string model_id, tokenizer_dir;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::vector<ServePrompt> prompts;
  NumpyRandom random{0};  // as the data set leaves it: gaps are drawn from here on
};

// Asks the server for its models where the flags do not say all. Errors: kInvalidArgument naming a flag; those of files
// and of HTTP.
Expected<BenchServeInputs> prepare_bench_serve(const BenchServeOptions& options, HttpClient& client);

}  // namespace hadal
