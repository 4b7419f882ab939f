#include "server/protocol.h"

#include "server/protocol_common.h"

namespace hadal {
namespace {

constexpr int64_t kMaxTokens = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxLogprobs = std::numeric_limits<int32_t>::max();  // vocabularies are smaller
constexpr size_t kMaxNameBytes = 4096;
constexpr size_t kAnyLength = std::numeric_limits<size_t>::max();

constexpr RefusedField kRefusedInCompletions[] = {
    {"suffix", "suffix is not currently supported"},
};

template <typename T>
ApiExpected<T> result_of(const FieldReader& reader, T value) {
  if (reader.error()) return tl::unexpected(*reader.error());
  return value;
}

// string | [string] | [int] | [[int]]
void read_prompts(FieldReader& reader, const ProtocolOptions& options, std::vector<PromptInput>* prompts) {
  const Json* prompt = reader.find("prompt");
  if (prompt == nullptr) return reader.fail(bad_request("prompt", "prompt is required"));
  const auto wrong_type = [&] {
    reader.fail(bad_request("prompt",
                            "prompt must be a string, a list of strings, a list of token ids or a list of "
                            "lists of token ids"));
  };
  const auto empty = [&] { reader.fail(bad_request("prompt", "Prompt cannot be empty.")); };
  if (prompt->is_string()) {
    prompts->push_back({true, prompt->get<std::string>(), {}});
    if (prompts->back().text.empty()) empty();
    return;
  }
  if (!prompt->is_array()) return wrong_type();
  if (prompt->empty()) return empty();
  if (prompt->front().is_number()) {
    prompts->push_back({false, {}, {}});
    if (!read_token_ids(*prompt, &prompts->back().ids)) wrong_type();
    return;
  }
  if (prompt->size() > static_cast<size_t>(options.max_prompts)) {
    return reader.fail(
        bad_request("prompt", "prompt must hold at most {} prompts, got {}", options.max_prompts, prompt->size()));
  }
  const bool is_text = prompt->front().is_string();
  for (const Json& item : *prompt) {
    PromptInput input{is_text, {}, {}};
    if (is_text ? !item.is_string() : !item.is_array() || !read_token_ids(item, &input.ids)) return wrong_type();
    if (is_text) input.text = item.get<std::string>();
    if (is_text && input.text.empty()) return empty();
    prompts->push_back(std::move(input));
  }
}

void check_logprobs(FieldReader& reader, const ProtocolOptions& options, const char* name, int64_t count) {
  if (options.max_logprobs >= 0 && count > options.max_logprobs) {
    reader.fail(bad_request(name,
                            "Requested sample logprobs of {}, which is greater than max allowed: {} "
                            "(field {})",
                            count, options.max_logprobs, name));
  }
}

void check_min_tokens(FieldReader& reader, const GenerationParams& params) {
  if (params.max_tokens && params.sampling.min_tokens > *params.max_tokens) {
    reader.fail(bad_request("min_tokens", "min_tokens must be less than or equal to max_tokens={}, got {}.",
                            *params.max_tokens, params.sampling.min_tokens));
  }
}

void read_chat_logprobs(FieldReader& reader, const ProtocolOptions& options, GenerationParams* params) {
  bool logprobs = false;
  std::optional<int64_t> top_logprobs;
  reader.boolean("logprobs", &logprobs);
  reader.integer("top_logprobs", std::numeric_limits<int64_t>::min(), kMaxTokens, &top_logprobs);
  if (top_logprobs && *top_logprobs < 0) {
    return reader.fail(bad_request("top_logprobs", "`top_logprobs` must be a positive value, got {}.", *top_logprobs));
  }
  if (top_logprobs.value_or(0) > 0 && !logprobs) {
    return reader.fail(bad_request("top_logprobs", "when using `top_logprobs`, `logprobs` must be set to true."));
  }
  check_logprobs(reader, options, "top_logprobs", top_logprobs.value_or(0));
  if (logprobs) params->sampling.num_logprobs = static_cast<int32_t>(std::min(top_logprobs.value_or(0), kMaxLogprobs));
}

}  // namespace

ApiExpected<Json> parse_body(std::string_view body) {
  // 32 prompts of 256k token ids; without this bound a body of "[0,0,..." would take 20 times its size in memory.
  constexpr size_t kMaxValues = size_t{8} << 20;
  auto parsed = parse_json(
      body, {.max_bytes = kAnyLength, .max_depth = 128, .max_values = kMaxValues, .refuse_duplicate_keys = true});
  if (!parsed) return tl::unexpected(bad_request("", "JSON decode error: {}", parsed.error().message));
  return std::move(*parsed);
}

ApiExpected<CompletionRequest> parse_completion_request(const Json& body, const ProtocolOptions& options) {
  FieldReader reader(body);
  CompletionRequest request;
  GenerationParams& params = request.params;
  refuse_fields(reader, std::begin(kRefusedInCompletions), std::end(kRefusedInCompletions));
  read_generation_params(reader, options, &params);
  read_prompts(reader, options, &request.prompts);
  params.max_tokens = 16;
  reader.integer("max_tokens", params.echo ? 0 : 1, kMaxTokens, &params.max_tokens);
  std::optional<int64_t> best_of;
  reader.integer("best_of", 1, kMaxTokens, &best_of);
  if (best_of && *best_of > 1) {
    reader.fail(
        bad_request("best_of", "best_of must be 1, larger values are not currently supported, got {}.", *best_of));
  }
  std::optional<int64_t> logprobs;
  reader.integer("logprobs", 0, kMaxTokens, &logprobs);
  if (logprobs) {
    check_logprobs(reader, options, "logprobs", *logprobs);
    params.sampling.num_logprobs = static_cast<int32_t>(std::min(*logprobs, kMaxLogprobs));
  }
  check_min_tokens(reader, params);
  params.unknown_fields = reader.unread_fields();
  return result_of(reader, std::move(request));
}

ApiExpected<ChatRequest> parse_chat_request(const Json& body, const ProtocolOptions& options) {
  FieldReader reader(body);
  ChatRequest request;
  GenerationParams& params = request.params;
  params.add_special_tokens = false;
  read_generation_params(reader, options, &params);
  read_conversation(reader, options, &request.conversation);
  reader.integer("max_tokens", 1, kMaxTokens, &params.max_tokens);
  reader.integer("max_completion_tokens", 1, kMaxTokens, &params.max_tokens);
  read_chat_logprobs(reader, options, &params);
  read_tool_use(reader, options, &request.conversation, &request.tool_use);
  reader.boolean("include_reasoning", &request.include_reasoning);
  check_min_tokens(reader, params);
  params.unknown_fields = reader.unread_fields();
  return result_of(reader, std::move(request));
}

ApiExpected<TokenizeRequest> parse_tokenize_request(const Json& body, const ProtocolOptions& options) {
  FieldReader reader(body);
  TokenizeRequest request;
  request.is_chat = reader.find("messages") != nullptr;
  request.add_special_tokens = !request.is_chat;
  if (request.is_chat) {
    read_conversation(reader, options, &request.conversation);
  } else if (reader.find("prompt") == nullptr) {
    reader.fail(bad_request("prompt", "prompt or messages is required"));
  }
  reader.string("prompt", kAnyLength, &request.prompt);
  reader.string("model", kMaxNameBytes, &request.model);
  reader.boolean("add_special_tokens", &request.add_special_tokens);
  reader.boolean("return_token_strs", &request.return_token_strs);
  return result_of(reader, std::move(request));
}

ApiExpected<DetokenizeRequest> parse_detokenize_request(const Json& body) {
  FieldReader reader(body);
  DetokenizeRequest request;
  if (reader.find("tokens") == nullptr) reader.fail(bad_request("tokens", "tokens is required"));
  reader.token_ids("tokens", kAnyLength, &request.tokens);
  reader.string("model", kMaxNameBytes, &request.model);
  return result_of(reader, std::move(request));
}

}  // namespace hadal
