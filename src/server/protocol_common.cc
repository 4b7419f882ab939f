#include "server/protocol_common.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace hadal {
namespace {

constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();
constexpr int64_t kMinInt64 = std::numeric_limits<int64_t>::min();
constexpr float kGreedyBelow = 1e-5F;     // temperatures that mean "greedy"
constexpr float kMinTemperature = 0.01F;  // smaller ones overflow the logits
constexpr int64_t kMaxIds = 65536;        // of stop_token_ids and allowed_token_ids

struct NumberRule {
  const char* name;
  float SamplingParams::*field;
  std::optional<float> SamplingDefaults::*model_default;  // null: the built-in default
  NumberRange range;
};

const NumberRule kNumberRules[] = {
    {"temperature",
     &SamplingParams::temperature,
     &SamplingDefaults::temperature,
     {0, std::numeric_limits<float>::max(), false, "must be non-negative"}},
    {"top_p", &SamplingParams::top_p, &SamplingDefaults::top_p, {0, 1, true, "must be in (0, 1]"}},
    {"min_p", &SamplingParams::min_p, &SamplingDefaults::min_p, {0, 1, false, "must be in [0, 1]"}},
    {"presence_penalty", &SamplingParams::presence_penalty, nullptr, {-2, 2, false, "must be in [-2, 2]"}},
    {"frequency_penalty", &SamplingParams::frequency_penalty, nullptr, {-2, 2, false, "must be in [-2, 2]"}},
    {"repetition_penalty",
     &SamplingParams::repetition_penalty,
     &SamplingDefaults::repetition_penalty,
     {0, std::numeric_limits<float>::max(), true, "must be greater than zero"}},
};

constexpr RefusedField kRefusedEverywhere[] = {
    {"use_beam_search", "use_beam_search is not currently supported"},
    {"logits_processors", "logits_processors are not accepted in requests"},
    {"prompt_embeds", "prompt_embeds is not currently supported"},
    {"thinking_token_budget", "thinking_token_budget is not currently supported"},
};

// Of OpenAI's or vLLM's API, without effect here.
constexpr const char* kIgnored[] = {
    "user",
    "spaces_between_special_tokens",
    "guided_decoding_backend",
    "guided_whitespace_pattern",
    "length_penalty",
    "kv_transfer_params",
    "vllm_xargs",
    "session_id",
    "repetition_detection",
    "stream_interval",
    "logprob_token_ids",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "best_of",
    "documents",
    "verbosity",
    "mm_processor_kwargs",
    "modalities",
};

bool is_empty(const Json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.is_array() && value.empty();
}

void read_top_k(FieldReader& reader, const ProtocolOptions& options, SamplingParams* sampling) {
  std::optional<int64_t> top_k;
  reader.integer("top_k", kMinInt64, kMaxInt64, &top_k);
  if (!top_k) top_k = options.defaults.top_k.value_or(0);
  if (*top_k < -1) {
    return reader.fail(bad_request("top_k", "top_k must be -1 or 0 (disable), or at least 1, got {}.", *top_k));
  }
  sampling->top_k = static_cast<int32_t>(std::clamp<int64_t>(*top_k, 0, std::numeric_limits<int32_t>::max()));
}

void read_seed(FieldReader& reader, SamplingParams* sampling) {
  std::optional<int64_t> seed;
  reader.integer("seed", kMinInt64, kMaxInt64, &seed);
  if (seed && *seed != -1) sampling->seed = static_cast<uint64_t>(*seed);
}

// {"id": bias}: keys are token ids in decimal.
void read_logit_bias(FieldReader& reader, const ProtocolOptions& options, SamplingParams* sampling) {
  const Json* object = reader.find("logit_bias");
  if (object == nullptr) return;
  if (!object->is_object() || object->size() > static_cast<size_t>(options.max_logit_bias)) {
    return reader.fail(
        bad_request("logit_bias", "logit_bias must be an object of at most {} entries", options.max_logit_bias));
  }
  for (const auto& [key, value] : object->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0) {
      return reader.fail(bad_request("logit_bias", "logit_bias keys must be token ids, got \"{}\"", key.substr(0, 80)));
    }
    if (!value.is_number()) {
      return reader.fail(bad_request("logit_bias", "logit_bias of token {} must be a number", id));
    }
    sampling->logit_bias.emplace_back(id, static_cast<float>(std::clamp(value.get<double>(), -100.0, 100.0)));
  }
}

void read_stop(FieldReader& reader, const ProtocolOptions& options, GenerationParams* params) {
  reader.strings("stop", static_cast<size_t>(options.max_stop_strings), static_cast<size_t>(options.max_stop_bytes),
                 true, &params->stop);
  reader.strings("bad_words", static_cast<size_t>(options.max_stop_strings),
                 static_cast<size_t>(options.max_stop_bytes), true, &params->bad_words);
  reader.token_ids("stop_token_ids", kMaxIds, &params->sampling.stop_token_ids);
  reader.token_ids("allowed_token_ids", kMaxIds, &params->sampling.allowed_token_ids);
  if (reader.find("allowed_token_ids") != nullptr && params->sampling.allowed_token_ids.empty()) {
    reader.fail(bad_request("allowed_token_ids", "allowed_token_ids must not be empty"));
  }
  reader.boolean("include_stop_str_in_output", &params->include_stop_str_in_output);
  reader.boolean("ignore_eos", &params->sampling.ignore_eos);
  reader.integer("min_tokens", 0, kMaxInt64, &params->sampling.min_tokens);
}

void read_stream(FieldReader& reader, const ProtocolOptions& options, GenerationParams* params) {
  reader.boolean("stream", &params->stream);
  params->include_usage = params->stream && options.force_include_usage;
  const Json* stream_options = reader.find("stream_options");
  if (stream_options == nullptr) return;
  if (!params->stream) {
    return reader.fail(bad_request("stream_options", "Stream options can only be defined when `stream=True`."));
  }
  FieldReader inner(*stream_options);
  params->include_usage = true;
  inner.boolean("include_usage", &params->include_usage);
  inner.boolean("continuous_usage_stats", &params->continuous_usage_stats);
  if (inner.error()) reader.fail({400, "stream_options: " + inner.error()->message, "stream_options"});
  if (options.force_include_usage) params->include_usage = true;
}

void read_prompt_logprobs(FieldReader& reader, const ProtocolOptions& options, GenerationParams* params) {
  std::optional<int64_t> count;
  reader.integer("prompt_logprobs", kMinInt64, kMaxInt64, &count);
  if (!count) return;
  if (*count < -1) {
    return reader.fail(bad_request("prompt_logprobs",
                                   "prompt_logprobs must be non-negative, or -1 for the whole "
                                   "vocabulary, got {}.",
                                   *count));
  }
  if (options.max_logprobs >= 0 && (*count > options.max_logprobs || *count < 0)) {
    return reader.fail(bad_request("prompt_logprobs",
                                   "Requested prompt logprobs of {}, which is greater than max allowed: {}", *count,
                                   options.max_logprobs));
  }
  if (params->stream && *count != 0) {
    return reader.fail(bad_request("prompt_logprobs", "`prompt_logprobs` are not available when `stream=True`."));
  }
  // More than a vocabulary holds means all of it: see complete_sampling.
  constexpr int64_t kWhole = std::numeric_limits<int32_t>::max();
  params->sampling.num_prompt_logprobs = static_cast<int32_t>(*count < 0 ? kWhole : std::min(*count, kWhole));
}

void read_extras(FieldReader& reader, const ProtocolOptions& options, GenerationParams* params) {
  int64_t priority = 0;
  reader.integer("priority", std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max(), &priority);
  if (priority != 0 && !options.priority_scheduling) {
    reader.fail(bad_request("priority",
                            "Priority scheduling is not enabled: start the server with --scheduling-policy priority, "
                            "got priority {}",
                            priority));
  }
  params->priority = static_cast<int32_t>(priority);
  params->clamp_max_tokens = options.clamp_max_tokens;
  params->sampling.processed_logprobs = options.processed_logprobs;
  params->return_tokens_as_token_ids = options.return_tokens_as_token_ids;
  reader.string("cache_salt", 1024, &params->cache_salt);
  reader.string("request_id", 256, &params->request_id);
  reader.string("model", 4096, &params->model);
  reader.boolean("skip_special_tokens", &params->skip_special_tokens);
  reader.boolean("add_special_tokens", &params->add_special_tokens);
  reader.boolean("return_tokens_as_token_ids", &params->return_tokens_as_token_ids);
  reader.boolean("return_token_ids", &params->return_token_ids);
  reader.boolean("echo", &params->echo);
  reader.integer("truncate_prompt_tokens", -1, kMaxInt64, &params->truncate_prompt_tokens);
  if (params->truncate_prompt_tokens == 0) {
    reader.fail(bad_request("truncate_prompt_tokens", "truncate_prompt_tokens must be -1 or at least 1, got 0."));
  }
}

void read_template_options(FieldReader& reader, const ProtocolOptions& options, ConversationInput* conversation) {
  reader.string("chat_template", size_t{1} << 20, &conversation->chat_template);
  if (!conversation->chat_template.empty() && !options.trust_request_chat_template) {
    return reader.fail(bad_request("chat_template", "chat_template is not accepted in requests by this server"));
  }
  if (const Json* kwargs = reader.find("chat_template_kwargs")) {
    if (!kwargs->is_object()) {
      return reader.fail(bad_request("chat_template_kwargs", "chat_template_kwargs must be an object"));
    }
    conversation->chat_template_kwargs = *kwargs;
  }
  conversation->default_chat_template_kwargs = options.default_chat_template_kwargs;
  static constexpr const char* kEfforts[] = {"", "none", "minimal", "low", "medium", "high", "xhigh", "max"};
  reader.string("reasoning_effort", 32, &conversation->reasoning_effort);
  if (std::find(std::begin(kEfforts), std::end(kEfforts), conversation->reasoning_effort) == std::end(kEfforts)) {
    reader.fail(bad_request("reasoning_effort",
                            "reasoning_effort must be none, minimal, low, medium, high, xhigh or max, got \"{}\"",
                            conversation->reasoning_effort));
  }
}

}  // namespace

void refuse_fields(FieldReader& reader, const RefusedField* begin, const RefusedField* end) {
  for (const RefusedField* field = begin; field != end; ++field) {
    const Json* value = reader.find(field->name);
    if (value != nullptr && !is_empty(*value)) reader.fail({400, field->message, field->name});
  }
}

void read_generation_params(FieldReader& reader, const ProtocolOptions& options, GenerationParams* params) {
  refuse_fields(reader, std::begin(kRefusedEverywhere), std::end(kRefusedEverywhere));
  reader.integer("n", 1, options.max_n, &params->n);
  for (const NumberRule& rule : kNumberRules) {
    float& value = params->sampling.*rule.field;
    if (rule.model_default != nullptr) value = (options.defaults.*rule.model_default).value_or(value);
    reader.number(rule.name, rule.range, &value);
  }
  float& temperature = params->sampling.temperature;
  temperature = temperature < kGreedyBelow ? 0 : std::max(temperature, kMinTemperature);
  read_top_k(reader, options, &params->sampling);
  read_seed(reader, &params->sampling);
  read_logit_bias(reader, options, &params->sampling);
  read_stop(reader, options, params);
  read_stream(reader, options, params);
  read_prompt_logprobs(reader, options, params);
  read_structured_output(reader, &params->structured_output);
  read_extras(reader, options, params);
  for (const char* name : kIgnored) reader.find(name);
}

void read_conversation(FieldReader& reader, const ProtocolOptions& options, ConversationInput* conversation) {
  const Json* messages = reader.find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty()) {
    return reader.fail(bad_request("messages", "messages must be a list with at least one message"));
  }
  conversation->messages = *messages;
  read_tools(reader, options, conversation);
  read_template_options(reader, options, conversation);
  bool add_generation_prompt_given = reader.find("add_generation_prompt") != nullptr;
  reader.boolean("add_generation_prompt", &conversation->add_generation_prompt);
  reader.boolean("continue_final_message", &conversation->continue_final_message);
  if (conversation->continue_final_message) {
    if (add_generation_prompt_given && conversation->add_generation_prompt) {
      return reader.fail(bad_request("continue_final_message",
                                     "Cannot set both `continue_final_message` and "
                                     "`add_generation_prompt` to True."));
    }
    conversation->add_generation_prompt = false;
  }
}

}  // namespace hadal
