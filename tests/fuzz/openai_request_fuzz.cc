// The request parsers of the OpenAI API: no body crashes them, and what they accept keeps its bounds.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/protocol.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const hadal::GenerationParams& params, const hadal::ProtocolOptions& options) {
  const hadal::SamplingParams& sampling = params.sampling;
  require(params.n >= 1 && params.n <= options.max_n);
  require(sampling.temperature >= 0 && sampling.top_p > 0 && sampling.top_p <= 1);
  require(sampling.min_p >= 0 && sampling.min_p <= 1 && sampling.top_k >= 0 && sampling.repetition_penalty > 0);
  require(sampling.num_logprobs >= -1 && sampling.num_logprobs <= options.max_logprobs);
  require(sampling.num_prompt_logprobs >= -1 && sampling.num_prompt_logprobs <= options.max_logprobs);
  require(sampling.min_tokens >= 0 && (!params.max_tokens || sampling.min_tokens <= *params.max_tokens));
  for (const auto& stop : params.stop) require(!stop.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 65536) return 0;
  const auto body = hadal::parse_body({reinterpret_cast<const char*>(data), size});
  if (!body) return 0;
  const hadal::ProtocolOptions options;
  if (const auto request = hadal::parse_completion_request(*body, options)) {
    require(!request->prompts.empty());
    check(request->params, options);
  }
  if (const auto request = hadal::parse_chat_request(*body, options)) {
    require(request->conversation.messages.is_array());
    check(request->params, options);
  }
  if (const auto request = hadal::parse_tokenize_request(*body, options))
    require(!request->is_chat || request->prompt.size() < size);
  if (const auto request = hadal::parse_detokenize_request(*body)) {
    for (const int32_t id : request->tokens) require(id >= 0);
  }
  return 0;
}
