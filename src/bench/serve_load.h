// Sends the requests of a serving benchmark at a given rate and concurrency and records every answer.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "bench/numpy_random.h"
#include "bench/serve_dataset.h"
#include "bench/serve_stream.h"
#include "net/http_client.h"

namespace hadal {

// Who is asked, and how.
struct ServeTarget {
  ServeRoute route = ServeRoute::kCompletions;
  std::string url;    // of the route
  std::string model;  // its name in the API
  std::string api_key;
  std::vector<std::pair<std::string, std::string>> headers;
  bool ignore_eos = false;
  int64_t best_of = 1;              // completions only
  std::optional<int64_t> logprobs;  // most likely tokens to return for each token
  double temperature = 0;
  Json extra = Json::object();  // further fields of the body; they win
};

// The call that asks for one answer, as a stream with a usage chunk at its end.
HttpCall serve_call(const ServeTarget& target, const ServePrompt& prompt);

// Asks one prompt and waits for the end: the test before a run, and warm-up.
ServeRecord serve_once(HttpClient& client, const ServeTarget& target, const ServePrompt& prompt);

struct ServeLoad {
  // Requests a second; infinite: all at once. Gaps between them follow a gamma distribution with this shape; 1 is a
  // Poisson process, below 1 more bursty.
  double request_rate = std::numeric_limits<double>::infinity();
  double burstiness = 1.0;
  std::optional<int64_t> max_concurrency;  // requests under way at most; waiting for a place is not latency
};

struct ServeRun {
  double duration_s = 0;             // from the first request to the end of the last answer
  std::vector<ServeRecord> records;  // in the order of the prompts
};

// Blocks until every answer ended, well or not; no call takes longer than six hours. `progress` is called on this
// thread with the number of answers that ended.
ServeRun run_serve_load(HttpClient& client, const ServeTarget& target, const std::vector<ServePrompt>& prompts,
                        const ServeLoad& load, NumpyRandom& random, const std::function<void(size_t)>& progress);

// Servers without a usage chunk: counts the tokens of what they generated instead.
void count_missing_tokens(ServeRun& run, const Tokenizer& tokenizer);

}  // namespace hadal
