// The fields of answers.
#include "server/openapi.h"

namespace hadal {
namespace {

constexpr char kString[] = R"({"type":"string"})";
constexpr char kInteger[] = R"({"type":"integer"})";
constexpr char kBoolean[] = R"({"type":"boolean"})";
constexpr char kCount[] = R"({"type":"integer","minimum":0})";
constexpr char kTokenIds[] = R"({"type":"array","items":{"type":"integer"}})";
constexpr char kFinishReason[] = R"({"enum":["stop","length","tool_calls","abort",null]})";
constexpr char kStopReason[] = R"({"type":["string","integer","null"]})";

constexpr ApiField kErrorFields[] = {
    {"error",
     R"({"type":"object","properties":{"message":{"type":"string"},"type":{"type":"string"},"param":{"type":["string","null"]},"code":{"type":"integer"}},"required":["message","type","param","code"]})",
     "", true},
};

constexpr ApiField kUsageFields[] = {
    {"prompt_tokens", kCount, "", true},
    {"completion_tokens", kCount, "", true},
    {"total_tokens", kCount, "", true},
    {"prompt_tokens_details", R"({"type":"object","properties":{"cached_tokens":{"type":"integer"}}})", ""},
    {"completion_tokens_details", R"({"type":"object","properties":{"reasoning_tokens":{"type":"integer"}}})", ""},
};

constexpr ApiField kCompletionFields[] = {
    {"id", kString, "", true},
    {"object", R"({"const":"text_completion"})", "", true},
    {"created", kInteger, "Unix seconds", true},
    {"model", kString, "", true},
    {"choices", R"({"type":"array","items":{"$ref":"#CompletionChoice"}})", "Prompt by prompt", true},
    {"usage", R"({"$ref":"#Usage"})", "", true},
};

constexpr ApiField kCompletionChoiceFields[] = {
    {"index", kCount, "", true},
    {"text", kString, "", true},
    {"logprobs", R"({"anyOf":[{"$ref":"#CompletionLogprobs"},{"type":"null"}]})", "", true},
    {"finish_reason", kFinishReason, "", true},
    {"stop_reason", kStopReason, "The stop string or id", true},
    {"prompt_logprobs", R"({"type":"array"})", ""},
    {"token_ids", kTokenIds, ""},
    {"prompt_token_ids", kTokenIds, ""},
};

constexpr ApiField kCompletionLogprobsFields[] = {
    {"tokens", R"({"type":"array","items":{"type":"string"}})", "", true},
    {"token_logprobs", R"({"type":"array","items":{"type":["number","null"]}})", "", true},
    {"top_logprobs", R"({"type":"array","items":{"type":["object","null"],"additionalProperties":{"type":"number"}}})",
     "", true},
    {"text_offset", R"({"type":"array","items":{"type":"integer"}})", "In characters", true},
};

constexpr ApiField kChatFields[] = {
    {"id", kString, "", true},
    {"object", R"({"const":"chat.completion"})", "", true},
    {"created", kInteger, "Unix seconds", true},
    {"model", kString, "", true},
    {"choices", R"({"type":"array","items":{"$ref":"#ChatChoice"}})", "", true},
    {"usage", R"({"$ref":"#Usage"})", "", true},
    {"prompt_logprobs", R"({"type":"array"})", ""},
    {"prompt_token_ids", kTokenIds, ""},
};

constexpr ApiField kChatChoiceFields[] = {
    {"index", kCount, "", true},
    {"message", R"({"$ref":"#ChatMessage"})", "", true},
    {"logprobs", R"({"anyOf":[{"$ref":"#ChatLogprobs"},{"type":"null"}]})", "", true},
    {"finish_reason", kFinishReason, "", true},
    {"stop_reason", kStopReason, "The stop string or id", true},
    {"token_ids", kTokenIds, ""},
};

constexpr ApiField kChatMessageFields[] = {
    {"role", kString, "", true},
    {"content", R"({"type":["string","null"]})", "", true},
    {"reasoning_content", R"({"type":["string","null"]})", "Reasoning text"},
    {"reasoning", R"({"type":["string","null"]})", "The same"},
    {"refusal", R"({"type":"null"})", "", true},
    {"tool_calls", R"({"type":"array","items":{"$ref":"#AnsweredToolCall"}})", "Absent without calls"},
};

constexpr ApiField kAnsweredToolCallFields[] = {
    {"id", kString, "", true},
    {"type", R"({"const":"function"})", "", true},
    {"function",
     R"({"type":"object","properties":{"name":{"type":"string"},"arguments":{"type":"string"}},"required":["name","arguments"]})",
     "", true},
};

constexpr ApiField kChatLogprobsFields[] = {
    {"content",
     R"({"type":"array","items":{"type":"object","properties":{"token":{"type":"string"},"logprob":{"type":"number"},"bytes":{"type":"array","items":{"type":"integer"}},"top_logprobs":{"type":"array","items":{"type":"object"}}},"required":["token","logprob","bytes","top_logprobs"]}})",
     "", true},
    {"refusal", R"({"type":"null"})", "", true},
};

constexpr ApiField kPromptListFields[] = {
    {"object", R"({"const":"prompt.list"})", "", true},
    {"model", kString, "", true},
    {"max_model_len", kCount, "", true},
    {"prompts",
     R"({"type":"array","items":{"type":"object","properties":{"prompt":{"type":"string"},"prompt_tokens":{"type":"integer"},"prompt_token_ids":{"type":"array","items":{"type":"integer"}}},"required":["prompt","prompt_tokens","prompt_token_ids"]}})",
     "", true},
};

constexpr ApiField kInvocationFields[] = {
    {"object", R"({"enum":["text_completion","chat.completion"]})", "Which of the two it is", true},
    {"choices", R"({"type":"array"})", "", true},
    {"usage", R"({"$ref":"#Usage"})", "", true},
};

constexpr ApiField kModelFields[] = {
    {"id", kString, "", true},
    {"object", R"({"const":"model"})", "", true},
    {"created", kInteger, "", true},
    {"owned_by", kString, "", true},
    {"root", kString, "The model folder", true},
    {"parent", R"({"type":"null"})", "", true},
    {"max_model_len", kCount, "Tokens of prompt and answer", true},
    {"permission", R"({"type":"array"})", "", true},
};

constexpr ApiField kModelListFields[] = {
    {"object", R"({"const":"list"})", "", true},
    {"data", R"({"type":"array","items":{"$ref":"#Model"}})", "", true},
};

constexpr ApiField kTokensFields[] = {
    {"count", kCount, "", true},
    {"max_model_len", kCount, "", true},
    {"tokens", kTokenIds, "", true},
    {"token_strs", R"({"type":"array","items":{"type":"string"}})", ""},
};

constexpr ApiField kTextFields[] = {{"prompt", kString, "", true}};

constexpr ApiField kTokenizerInfoFields[] = {
    {"tokenizer_class", kString, "", true},
    {"bos_token", kString, ""},
    {"eos_token", kString, ""},
    {"pad_token", kString, ""},
    {"add_bos_token", kBoolean, "", true},
    {"model_max_length", kCount, "", true},
    {"chat_template", kString, ""},
};

constexpr ApiField kVersionFields[] = {{"version", kString, "", true}};
constexpr ApiField kLoadFields[] = {{"server_load", kInteger, "", true}};
constexpr ApiField kAbortedFields[] = {{"aborted", kCount, "How many of the ids were running", true}};
constexpr ApiField kServerInfoFields[] = {{"vllm_config", R"({"type":"object"})", "Flags with value and origin"}};
constexpr ApiField kOpenApiFields[] = {{"openapi", kString, "", true}, {"paths", R"({"type":"object"})", "", true}};
constexpr ApiField kCertificateFields[] = {{"model", "{}", "", false, false}};

constexpr ApiObject kObjects[] = {
    {"Error", kErrorFields},
    {"Usage", kUsageFields},
    {"Completion", kCompletionFields},
    {"CompletionChoice", kCompletionChoiceFields},
    {"CompletionLogprobs", kCompletionLogprobsFields},
    {"ChatCompletion", kChatFields},
    {"ChatChoice", kChatChoiceFields},
    {"ChatMessage", kChatMessageFields},
    {"AnsweredToolCall", kAnsweredToolCallFields},
    {"ChatLogprobs", kChatLogprobsFields},
    {"PromptList", kPromptListFields},
    {"Invocation", kInvocationFields},
    {"Model", kModelFields},
    {"ModelList", kModelListFields},
    {"Tokens", kTokensFields},
    {"Text", kTextFields},
    {"TokenizerInfo", kTokenizerInfoFields},
    {"Version", kVersionFields},
    {"Load", kLoadFields},
    {"Aborted", kAbortedFields},
    {"ServerInfo", kServerInfoFields},
    {"OpenApi", kOpenApiFields},
    {"Certificate", kCertificateFields},
};

}  // namespace

std::span<const ApiObject> api_answer_objects() { return kObjects; }

}  // namespace hadal
