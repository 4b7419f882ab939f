// The fields of request bodies. Limits that depend on the model or on flags (vocabulary, context, --max-logprobs) are
// not part of the description; requests beyond them get 400.
#include "server/openapi.h"

namespace hadal {
namespace {

constexpr char kString[] = R"({"type":"string"})";
constexpr char kBoolean[] = R"({"type":"boolean"})";
constexpr char kAnyObject[] = R"({"type":"object"})";
constexpr char kTokenIds[] =
    R"({"type":"array","items":{"type":"integer","minimum":0,"maximum":2147483647},"maxItems":4096})";
constexpr char kNonNegative[] = R"({"type":"integer","minimum":0,"maximum":9223372036854775807})";
constexpr char kPositive[] = R"({"type":"integer","minimum":1,"maximum":9223372036854775807})";
constexpr char kPenalty[] = R"({"type":"number","minimum":-2,"maximum":2})";

constexpr ApiField kGenerationFields[] = {
    {"model", kString, "A served name; absent or empty: the first one"},
    {"n", R"({"type":"integer","minimum":1,"maximum":128})", "Answers per prompt, 1 by default"},
    {"temperature", R"({"type":"number","minimum":0})", "0: the most likely token; by default the model's, else 1"},
    {"top_p", R"({"type":"number","exclusiveMinimum":0,"maximum":1})", "By default the model's, else 1"},
    {"top_k", R"({"type":"integer","minimum":-1,"maximum":2147483647})", "-1 or 0: off"},
    {"min_p", R"({"type":"number","minimum":0,"maximum":1})", "Least probability, relative to the most likely token's"},
    {"presence_penalty", kPenalty, ""},
    {"frequency_penalty", kPenalty, ""},
    {"repetition_penalty", R"({"type":"number","exclusiveMinimum":0})", "Over prompt and answer"},
    {"seed", R"({"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807})",
     "The same seed gives the same answer, whatever else runs"},
    {"stop",
     R"({"anyOf":[{"type":"string","minLength":1,"maxLength":256},{"type":"array","items":{"type":"string","minLength":1,"maxLength":256},"maxItems":64}]})",
     "The answer ends before any of these"},
    {"stop_token_ids", kTokenIds, "The answer ends at any of these"},
    {"include_stop_str_in_output", kBoolean, ""},
    {"ignore_eos", kBoolean, "Go on to max_tokens"},
    {"min_tokens", kNonNegative, "Nothing ends the answer before"},
    {"logit_bias",
     R"({"type":"object","propertyNames":{"pattern":"^(0|[1-9][0-9]{0,8})$"},"additionalProperties":{"type":"number"},"maxProperties":4096})",
     "Token id to what is added to its logit, within [-100, 100]"},
    {"allowed_token_ids", R"({"type":"array","items":{"type":"integer","minimum":0},"minItems":1,"maxItems":4096})",
     "No other token is sampled"},
    {"bad_words", R"({"type":"array","items":{"type":"string","minLength":1,"maxLength":256},"maxItems":64})",
     "Never in the answer"},
    {"skip_special_tokens", kBoolean, "true by default"},
    {"spaces_between_special_tokens", kBoolean, "Without effect"},
    {"add_special_tokens", kBoolean, "BOS before a text prompt; completions: true, chat: false by default"},
    {"truncate_prompt_tokens", R"({"type":"integer","minimum":-1,"not":{"const":0},"maximum":9223372036854775807})",
     "Keep the last so many; -1: as many as the context holds"},
    {"prompt_logprobs", kNonNegative, "Alternatives per prompt token; above 0 not with stream"},
    {"stream", kBoolean, "Server-sent events, ended by [DONE]"},
    {"stream_options", R"({"$ref":"#StreamOptions"})", "Only with stream"},
    {"response_format", R"({"$ref":"#ResponseFormat"})", "What the answer has to be"},
    {"guided_json", R"({"anyOf":[{"type":"object"},{"type":"string"}]})", "JSON schema that the answer satisfies"},
    {"guided_regex", kString, "Pattern that the whole answer matches"},
    {"guided_choice", R"({"type":"array","items":{"type":"string","minLength":1},"minItems":1})",
     "The answer is one of these"},
    {"guided_grammar", kString, "EBNF"},
    {"structured_outputs", kAnyObject, "One of json, regex, choice, grammar, json_object"},
    {"priority", R"({"type":"integer","minimum":-2147483648,"maximum":2147483647})",
     "Lower runs first; other than 0 only with priority scheduling"},
    {"user", kString, "Ignored"},
    {"return_tokens_as_token_ids", kBoolean, "token_id:N instead of texts in logprobs"},
    {"return_token_ids", kBoolean, ""},
    {"cache_salt", R"({"type":"string","minLength":1,"maxLength":1024})",
     "The prefix cache is shared among equal salts"},
    {"request_id", R"({"type":"string","maxLength":256})", "Unless the header X-Request-Id is given"},
    {"echo", kBoolean, "The answer begins with the prompt, or with the message that it continues"},
};

constexpr ApiField kCompletionFields[] = {
    {"prompt",
     R"({"anyOf":[{"type":"string","minLength":1},{"type":"array","items":{"type":"string","minLength":1},"minItems":1,"maxItems":1024},{"type":"array","items":{"type":"integer","minimum":0,"maximum":2147483647},"minItems":1},{"type":"array","items":{"type":"array","items":{"type":"integer","minimum":0,"maximum":2147483647},"minItems":1},"minItems":1,"maxItems":1024}]})",
     "Text or token ids, one prompt or several; ids are used as they are", true},
    {"max_tokens", kNonNegative, "16 by default; 0 only with echo"},
    {"logprobs", kNonNegative, "Alternatives per token"},
    {"best_of", R"({"type":"integer","minimum":1,"maximum":1})", "Only 1"},
};

constexpr ApiField kChatFields[] = {
    {"messages", R"({"type":"array","items":{"$ref":"#Message"},"minItems":1})", "", true},
    {"max_completion_tokens", kPositive, "By default the rest of the context"},
    {"max_tokens", kPositive, "The older name of max_completion_tokens"},
    {"logprobs", kBoolean, ""},
    {"top_logprobs", kNonNegative, "Alternatives per token; needs logprobs"},
    {"tools", R"({"type":"array","items":{"$ref":"#Tool"},"maxItems":512})", "Functions that the model may call"},
    {"tool_choice", R"({"anyOf":[{"enum":["none","auto","required"]},{"$ref":"#NamedTool"}]})",
     "auto when there are tools"},
    {"parallel_tool_calls", kBoolean, "false: the first call only"},
    {"add_generation_prompt", kBoolean, "true by default"},
    {"continue_final_message", kBoolean, "The answer goes on from the last message"},
    {"chat_template", kString, "Instead of the model's, where the server allows it"},
    {"chat_template_kwargs", kAnyObject, "Arguments of the template: thinking, enable_thinking"},
    {"reasoning_effort", R"({"enum":["none","minimal","low","medium","high","xhigh","max"]})",
     "none switches thinking off where the template can"},
    {"include_reasoning", kBoolean, "false: reasoning text is left out of the answer"},
};

constexpr ApiField kInvocationFields[] = {
    {"messages", R"({"type":"array","items":{"$ref":"#Message"},"minItems":1})", "Makes it a chat request"},
    {"prompt", R"({"type":"string","minLength":1})", "Needed without messages"},
};

constexpr ApiField kTokenizeFields[] = {
    {"model", kString, "A served name; absent or empty: the first one"},
    {"prompt", kString, "Needed without messages"},
    {"messages", R"({"type":"array","items":{"$ref":"#Message"},"minItems":1})", "Instead of prompt"},
    {"add_special_tokens", kBoolean, "prompt: true, messages: false by default"},
    {"return_token_strs", kBoolean, ""},
};

constexpr ApiField kDetokenizeFields[] = {
    {"model", kString, "A served name; absent or empty: the first one"},
    {"tokens", R"({"type":"array","items":{"type":"integer","minimum":0,"maximum":2147483647}})", "", true},
};

constexpr ApiField kAbortFields[] = {
    {"request_ids",
     R"({"anyOf":[{"type":"string","minLength":1,"maxLength":4096},{"type":"array","items":{"type":"string","minLength":1,"maxLength":4096}}]})",
     "As in `id` of the answers or in X-Request-Id", true},
};

constexpr ApiField kMessageFields[] = {
    {"role", kString, "system, user, assistant, tool, or what the template knows", true},
    {"content", R"({"anyOf":[{"type":"string"},{"type":"array","items":{"type":["string","object"]}}]})",
     "Text, or parts that are text: {type: text, text: ...}"},
    {"reasoning_content", "{}", "Earlier reasoning; `reasoning` is the same; templates decide", false, false},
    {"tool_calls", "{}", "Earlier calls of the assistant, as answers have them; templates decide", false, false},
    {"tool_call_id", "{}", "Of a tool message: the call that it answers; templates decide", false, false},
};

constexpr ApiField kStreamOptionFields[] = {
    {"include_usage", kBoolean, "A last event with the usage"},
    {"continuous_usage_stats", kBoolean, "Usage in every event"},
};

constexpr ApiField kResponseFormatFields[] = {
    {"type", R"({"enum":["text","json_object","json_schema"]})", "", true},
    {"json_schema", R"({"type":"object","properties":{"name":{"type":"string"},"schema":{"type":"object"}}})",
     "With type json_schema: its `schema`"},
};

constexpr ApiField kToolFields[] = {
    {"type", R"({"const":"function"})", "", true},
    {"function", R"({"$ref":"#Function"})", "", true},
};

constexpr ApiField kFunctionFields[] = {
    {"name", R"({"type":"string","minLength":1,"maxLength":64})", "", true},
    {"description", kString, ""},
    {"parameters", kAnyObject, "JSON schema of the arguments"},
    {"strict", kBoolean, "Arguments satisfy the schema"},
};

constexpr ApiField kNamedToolFields[] = {
    {"type", R"({"const":"function"})", "", true},
    {"function", R"({"type":"object","properties":{"name":{"type":"string"}},"required":["name"]})", "", true},
};

constexpr ApiObject kObjects[] = {
    {"ChatRequest", kChatFields, kGenerationFields},
    {"CompletionRequest", kCompletionFields, kGenerationFields},
    {"InvocationRequest", kInvocationFields, kGenerationFields},
    {"TokenizeRequest", kTokenizeFields},
    {"DetokenizeRequest", kDetokenizeFields},
    {"AbortRequest", kAbortFields},
    {"Message", kMessageFields},
    {"StreamOptions", kStreamOptionFields},
    {"ResponseFormat", kResponseFormatFields},
    {"Tool", kToolFields},
    {"Function", kFunctionFields},
    {"NamedTool", kNamedToolFields},
};

}  // namespace

std::span<const ApiObject> api_request_objects() { return kObjects; }

}  // namespace hadal
