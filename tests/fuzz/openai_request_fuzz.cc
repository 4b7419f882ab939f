// The request parsers of the OpenAI API, and the grammars that requests ask for: no body crashes them, and what they
// accept keeps its bounds.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/protocol.h"
#include "server/structured_output.h"

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
  using Kind = hadal::StructuredOutput::Kind;
  const hadal::StructuredOutput& output = params.structured_output;
  require((output.kind == Kind::kNone) == output.field.empty());
  require(output.kind != Kind::kJsonSchema || output.schema.is_object() || output.schema.is_boolean());
  require(output.kind != Kind::kChoice || !output.choices.empty());
}

// Small sources only: compiling large ones is the grammar fuzzers' business.
void compile(const hadal::StructuredOutput& output) {
  if (output.source.size() > 256 || hadal::dump_json(output.schema).size() > 1024) return;
  if (const auto grammar = hadal::compile_structured_output(output); !grammar) {
    require(grammar.error().status == 400 && !grammar.error().message.empty());
  }
}

void compile(const hadal::ChatRequest& request) {
  const hadal::Json& tools = request.conversation.tools;
  require(request.tool_use.choice == hadal::ToolUse::Choice::kNone || tools.is_array());
  if (hadal::dump_json(tools).size() > 1024) return;
  const hadal::ToolFormat* format = hadal::find_tool_format("deepseek_v31");
  if (const auto grammar = hadal::compile_tool_use(request.tool_use, tools, format); !grammar) {
    require(grammar.error().status == 400);
  }
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
    compile(request->params.structured_output);
  }
  if (const auto request = hadal::parse_chat_request(*body, options)) {
    require(request->conversation.messages.is_array());
    check(request->params, options);
    compile(*request);
  }
  if (const auto request = hadal::parse_tokenize_request(*body, options))
    require(!request->is_chat || request->prompt.size() < size);
  if (const auto request = hadal::parse_detokenize_request(*body)) {
    for (const int32_t id : request->tokens) require(id >= 0);
  }
  return 0;
}
