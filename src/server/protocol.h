// The requests of the OpenAI API with vLLM's extensions, as checked structs. Parsing knows no model: names, defaults
// and limits come in ProtocolOptions; token ids are checked against the vocabulary later (prompts.h). Field rules,
// limits and messages are vLLM's where clients match on them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/request.h"
#include "server/api_error.h"

namespace hadal {

// The keys of generation_config.json that stand in for absent request fields.
struct SamplingDefaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<int64_t> max_new_tokens;  // chat without max_tokens
};

struct ProtocolOptions {
  SamplingDefaults defaults;
  int64_t max_logprobs = 20;  // negative: no limit
  int64_t max_prompts = 1024;
  int64_t max_n = 128;
  int64_t max_stop_strings = 64;
  int64_t max_stop_bytes = 1024;
  int64_t max_logit_bias = 4096;
  int64_t max_tools = 512;
  bool trust_request_chat_template = false;
  bool priority_scheduling = false;  // else a non-zero `priority` is an error
  bool processed_logprobs = false;
  bool clamp_max_tokens = false;
  bool force_include_usage = false;         // in streams that ask for none
  bool return_tokens_as_token_ids = false;  // for requests that do not say
  bool exclude_tools_when_tool_choice_none = false;
  Json default_chat_template_kwargs;  // object or null
};

// Structured output as asked for, not yet compiled.
struct StructuredOutput {
  enum class Kind { kNone, kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar };
  static constexpr size_t kMaxRegexBytes = size_t{16} << 10;
  Kind kind = Kind::kNone;
  std::string field;   // that asked for it: "guided_json"
  Json schema;         // kJsonSchema: object or boolean
  std::string source;  // kRegex, kGrammar
  std::vector<std::string> choices;
  bool any_whitespace = true;  // in JSON
};

// What completions and chat have in common.
struct GenerationParams {
  std::string model;       // "": the first served name
  std::string request_id;  // "": the server makes one
  int64_t n = 1;
  SamplingParams sampling;            // without max_tokens, EOS and bad_words, which need the model
  std::optional<int64_t> max_tokens;  // as requested
  std::vector<std::string> stop;
  std::vector<std::string> bad_words;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  bool add_special_tokens = true;
  std::optional<int64_t> truncate_prompt_tokens;  // keep the last k; -1: as many as the context holds
  int32_t priority = 0;
  std::string cache_salt;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage_stats = false;
  bool echo = false;
  bool return_tokens_as_token_ids = false;
  bool return_token_ids = false;
  bool clamp_max_tokens = false;  // to the context, instead of an error
  StructuredOutput structured_output;
  std::vector<int32_t> shown_special_ids;   // of markers that are read from the text; set by prepare_chat
  std::vector<std::string> unknown_fields;  // of the body, ignored
};

// Exactly one of the two is meant.
struct PromptInput {
  bool is_text = true;
  std::string text;
  std::vector<int32_t> ids;  // used verbatim: nothing is added
};

struct CompletionRequest {
  GenerationParams params;           // sampling.num_logprobs is `logprobs`; num_prompt_logprobs that of prompt_logprobs
  std::vector<PromptInput> prompts;  // 1 .. max_prompts
};

// The part of a chat request that makes the prompt; /tokenize takes it too.
struct ConversationInput {
  Json messages;
  Json tools;  // array or null
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  std::string chat_template;          // "": the model's
  Json chat_template_kwargs;          // object or null
  Json default_chat_template_kwargs;  // the server's: object or null
  std::string reasoning_effort;
};

// tool_choice, and what goes with it.
struct ToolUse {
  enum class Choice { kNone, kAuto, kRequired, kNamed };
  Choice choice = Choice::kNone;
  std::string named_tool;
  bool parallel = true;  // false: one call at most
};

struct ChatRequest {
  GenerationParams params;
  ConversationInput conversation;
  ToolUse tool_use;
  bool include_reasoning = true;
};

struct TokenizeRequest {
  std::string model;
  bool is_chat = false;
  std::string prompt;
  ConversationInput conversation;
  bool add_special_tokens = true;
  bool return_token_strs = false;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<int32_t> tokens;
};

// The JSON of a request body. Errors: 400 "JSON decode error: ...".
ApiExpected<Json> parse_body(std::string_view body);

ApiExpected<CompletionRequest> parse_completion_request(const Json& body, const ProtocolOptions& options);
ApiExpected<ChatRequest> parse_chat_request(const Json& body, const ProtocolOptions& options);
ApiExpected<TokenizeRequest> parse_tokenize_request(const Json& body, const ProtocolOptions& options);
ApiExpected<DetokenizeRequest> parse_detokenize_request(const Json& body);

}  // namespace hadal
