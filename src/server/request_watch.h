// What the server does about a generating request besides answering it: its log line, its deadline, and signs of life
// in a silent stream.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/answer.h"
#include "server/state.h"

namespace hadal {

// On the IO thread, before the request is given to the engine. `sampling`: one per prompt.
void watch_request(const Server::State& state, const std::shared_ptr<Generation>& generation,
                   const AnswerContext& context, const std::vector<SamplingParams>& sampling);

// "Received request cmpl-7: prompt: 12 tokens, params: SamplingParams(n=1, ...)". `max_log_len`: characters of the
// prompt's text to show, 0: none.
std::string describe_request(const AnswerContext& context, const std::vector<SamplingParams>& sampling,
                             int64_t max_log_len);

}  // namespace hadal
