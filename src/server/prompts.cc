#include "server/prompts.h"

#include <algorithm>

namespace hadal {
namespace {

// chat_template_kwargs plus what reasoning_effort implies for templates with a thinking switch; then the server's
// defaults for what is not said.
Json template_kwargs(const ConversationInput& input, const ChatTemplate& chat_template) {
  Json kwargs = input.chat_template_kwargs.is_object() ? input.chat_template_kwargs : Json::object();
  const auto says_thinking = [&] { return kwargs.contains("thinking") || kwargs.contains("enable_thinking"); };
  if (!input.reasoning_effort.empty() && !says_thinking()) {
    for (const char* name : {"thinking", "enable_thinking"}) {
      if (chat_template.references(name)) {
        kwargs[name] = input.reasoning_effort != "none";
        break;
      }
    }
  }
  if (!input.default_chat_template_kwargs.is_object()) return kwargs;
  const bool has_switch = says_thinking();
  for (const auto& [name, value] : input.default_chat_template_kwargs.items()) {
    const bool is_switch = name == "thinking" || name == "enable_thinking";  // two names of one thing
    if (!kwargs.contains(name) && !(is_switch && has_switch)) kwargs[name] = value;
  }
  return kwargs;
}

bool is_true(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

// Cuts the prompt behind the last message's text, so that the answer continues it.
ApiExpected<void> cut_after_final_message(const Json& messages, RenderedConversation* rendered) {
  const Json& last = messages.back();
  const auto content = last.find("content");
  if (content == last.end() || !content->is_string() || content->get_ref<const std::string&>().empty()) {
    return tl::unexpected(
        bad_request("continue_final_message", "continue_final_message needs a last message with text content"));
  }
  rendered->final_message = content->get<std::string>();
  std::string_view text = rendered->final_message;
  size_t at = rendered->text.rfind(text);
  if (at == std::string::npos) {  // templates may trim
    static constexpr std::string_view kBlanks = " \t\r\n";
    const size_t begin = text.find_first_not_of(kBlanks);
    if (begin != std::string_view::npos) {
      text = text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
      at = rendered->text.rfind(text);
    }
  }
  if (at == std::string::npos) {
    return tl::unexpected(bad_request("continue_final_message",
                                      "continue_final_message: the chat template does not "
                                      "show the last message as it is"));
  }
  rendered->text.resize(at + text.size());
  return {};
}

ApiExpected<void> check_ids(const std::vector<int32_t>& ids, int32_t vocab_size) {
  for (const int32_t id : ids) {
    if (id >= vocab_size) return tl::unexpected(bad_request("prompt", "Token id {} is out of vocabulary", id));
  }
  return {};
}

ApiExpected<void> check_sampling_ids(const SamplingParams& sampling, int32_t vocab_size) {
  const auto check = [&](const char* name, int32_t id) -> ApiExpected<void> {
    if (id < vocab_size) return {};
    return tl::unexpected(
        bad_request(name, "{}: token id {} is out of vocabulary, whose size is {}", name, id, vocab_size));
  };
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (auto ok = check("logit_bias", id); !ok) return ok;
  }
  for (const int32_t id : sampling.allowed_token_ids) {
    if (auto ok = check("allowed_token_ids", id); !ok) return ok;
  }
  return {};
}

// Each word at the start of a word and inside one, as far as the ids differ.
ApiExpected<void> add_bad_words(const Tokenizer& tokenizer, const std::vector<std::string>& words,
                                SamplingParams* sampling) {
  for (const std::string& word : words) {
    const size_t begin = std::min(word.find_first_not_of(' '), word.size());
    for (const char* prefix : {"", " "}) {
      auto ids = tokenizer.encode(prefix + word.substr(begin), {.parse_added_tokens = false});
      if (!ids) return tl::unexpected(to_api_error(ids.error()));
      const auto& known = sampling->bad_words_token_ids;
      if (!ids->empty() && std::find(known.begin(), known.end(), *ids) == known.end()) {
        sampling->bad_words_token_ids.push_back(std::move(*ids));
      }
    }
  }
  return {};
}

}  // namespace

ApiExpected<RenderedConversation> render_conversation(const ServingContext& context, const ConversationInput& input) {
  const ChatTemplate* chat_template = context.chat_template ? &*context.chat_template : nullptr;
  std::optional<ChatTemplate> own;
  if (!input.chat_template.empty()) {
    auto parsed = ChatTemplate::parse(input.chat_template);
    if (!parsed) return tl::unexpected(ApiError{400, parsed.error().message, "chat_template"});
    own = std::move(*parsed);
    chat_template = &*own;
  }
  if (chat_template == nullptr) {
    return tl::unexpected(bad_request("messages",
                                      "This model has no chat template: use /v1/completions, or start the "
                                      "server with --chat-template"));
  }
  auto messages = normalize_messages(input.messages, *chat_template);
  if (!messages) return tl::unexpected(ApiError{400, messages.error().message, "messages"});
  const Json kwargs = template_kwargs(input, *chat_template);
  RenderedConversation rendered;
  rendered.thinking = is_true(kwargs, "thinking") || is_true(kwargs, "enable_thinking");
  auto fields = template_context({.messages = *messages,
                                  .tools = input.tools,
                                  .add_generation_prompt = input.add_generation_prompt,
                                  .bos_token = context.tokenizer->bos_token(),
                                  .eos_token = context.tokenizer->eos_token(),
                                  .kwargs = kwargs},
                                 *chat_template);
  if (!fields) return tl::unexpected(ApiError{400, fields.error().message, "chat_template_kwargs"});
  auto text = chat_template->render(*fields);
  if (!text) return tl::unexpected(ApiError{400, text.error().message, "messages"});
  rendered.text = std::move(*text);
  if (input.continue_final_message) {
    if (auto cut = cut_after_final_message(*messages, &rendered); !cut) return tl::unexpected(cut.error());
  }
  return rendered;
}

ApiExpected<PreparedPrompt> prepare_prompt(const ServingContext& context, const PromptInput& input,
                                           const GenerationParams& params) {
  const Tokenizer& tokenizer = *context.tokenizer;
  PreparedPrompt prompt;
  if (input.is_text) {
    auto ids = tokenizer.encode(input.text, {.add_special_tokens = params.add_special_tokens});
    if (!ids) return tl::unexpected(to_api_error(ids.error()));
    prompt.ids = std::move(*ids);
    prompt.text = input.text;
  } else {
    if (auto ok = check_ids(input.ids, tokenizer.vocab_size()); !ok) return tl::unexpected(ok.error());
    prompt.ids = input.ids;
  }
  bool truncated = false;
  if (params.truncate_prompt_tokens) {
    const int64_t max_len = context.facts.max_model_len;
    const int64_t keep = *params.truncate_prompt_tokens == -1 ? max_len : *params.truncate_prompt_tokens;
    if (keep > max_len) {
      return tl::unexpected(bad_request("truncate_prompt_tokens",
                                        "truncate_prompt_tokens value ({}) is greater than "
                                        "max_model_len ({}). Please, select a smaller truncation size.",
                                        keep, max_len));
    }
    truncated = static_cast<int64_t>(prompt.ids.size()) > keep;
    if (truncated) prompt.ids.erase(prompt.ids.begin(), prompt.ids.end() - keep);
  }
  if (prompt.ids.empty()) return tl::unexpected(bad_request("prompt", "Prompt cannot be empty."));
  if (params.echo && (!input.is_text || truncated)) prompt.text = tokenizer.decode(prompt.ids, input.is_text);
  return prompt;
}

ApiExpected<SamplingParams> complete_sampling(const ServingContext& context, const GenerationParams& params,
                                              int64_t num_prompt_tokens) {
  SamplingParams sampling = params.sampling;
  const int64_t max_len = context.facts.max_model_len;
  if (num_prompt_tokens >= max_len && !params.max_tokens) {
    return tl::unexpected(
        bad_request("messages",
                    "This model's maximum context length is {} tokens. However, you requested {} tokens in the "
                    "messages, Please reduce the length of the messages.",
                    max_len, num_prompt_tokens));
  }
  const int64_t rest = max_len - num_prompt_tokens;
  if (params.max_tokens) {
    sampling.max_tokens = std::max<int64_t>(*params.max_tokens, 1);  // 0 with echo: one is made and dropped
    if (params.clamp_max_tokens && rest > 0) sampling.max_tokens = std::min(sampling.max_tokens, rest);
    if (sampling.max_tokens > rest) {
      const int64_t total = sampling.max_tokens > std::numeric_limits<int64_t>::max() - num_prompt_tokens
                                ? std::numeric_limits<int64_t>::max()
                                : num_prompt_tokens + sampling.max_tokens;
      return tl::unexpected(
          bad_request("max_tokens",
                      "This model's maximum context length is {} tokens. However, you requested {} tokens ({} in the "
                      "messages, {} in the completion). Please reduce the length of the messages or completion.",
                      max_len, total, num_prompt_tokens, *params.max_tokens));
    }
  } else {
    sampling.max_tokens = std::min(rest, std::max<int64_t>(context.facts.defaults.max_new_tokens.value_or(rest), 1));
  }
  if (sampling.min_tokens > sampling.max_tokens) {
    return tl::unexpected(bad_request("min_tokens", "min_tokens must be less than or equal to max_tokens={}, got {}.",
                                      sampling.max_tokens, sampling.min_tokens));
  }
  sampling.num_logprobs = std::min(sampling.num_logprobs, context.tokenizer->vocab_size());
  sampling.num_prompt_logprobs = std::min(sampling.num_prompt_logprobs, context.tokenizer->vocab_size());
  if (auto ok = check_sampling_ids(sampling, context.tokenizer->vocab_size()); !ok) return tl::unexpected(ok.error());
  if (auto ok = add_bad_words(*context.tokenizer, params.bad_words, &sampling); !ok) return tl::unexpected(ok.error());
  if (!sampling.ignore_eos) {
    for (const int32_t eos : context.facts.eos_token_ids) {
      if (std::find(sampling.stop_token_ids.begin(), sampling.stop_token_ids.end(), eos) ==
          sampling.stop_token_ids.end()) {
        sampling.stop_token_ids.push_back(eos);
      }
    }
  }
  return sampling;
}

}  // namespace hadal
