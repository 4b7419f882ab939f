// From a checked request to what the engine takes: token ids and complete sampling parameters. Runs on worker threads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/api_error.h"
#include "server/protocol.h"
#include "server/server.h"

namespace hadal {

struct PreparedPrompt {
  std::vector<int32_t> ids;
  std::string text;  // completions: what `echo` shows; chat: the rendered prompt
};

struct RenderedConversation {
  std::string text;
  std::string final_message;  // continue_final_message: the text that the answer goes on from
  bool thinking = false;      // asked for by the template arguments
};

// Errors: 400 with the template's message; continue_final_message whose text the template does not show.
ApiExpected<RenderedConversation> render_conversation(const ServingContext& context, const ConversationInput& input);

// Truncates as asked and checks ids against the vocabulary. Errors: 400.
ApiExpected<PreparedPrompt> prepare_prompt(const ServingContext& context, const PromptInput& input,
                                           const GenerationParams& params);

// max_tokens within the context (vLLM's texts when it does not fit), EOS and bad_words as ids. Errors: 400.
ApiExpected<SamplingParams> complete_sampling(const ServingContext& context, const GenerationParams& params,
                                              int64_t num_prompt_tokens);

}  // namespace hadal
