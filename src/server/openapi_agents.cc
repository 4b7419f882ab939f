// The fields of /v1/responses and /v1/messages.
#include "server/openapi.h"

namespace hadal {
namespace {

constexpr char kString[] = R"({"type":"string"})";
constexpr char kInteger[] = R"({"type":"integer"})";
constexpr char kBoolean[] = R"({"type":"boolean"})";
constexpr char kCount[] = R"({"type":"integer","minimum":0})";
constexpr char kPositive[] = R"({"type":"integer","minimum":1,"maximum":9223372036854775807})";
constexpr char kAnyObject[] = R"({"type":"object"})";
constexpr char kTemperature[] = R"({"type":"number","minimum":0})";
constexpr char kTopP[] = R"({"type":"number","exclusiveMinimum":0,"maximum":1})";
constexpr char kModelMeaning[] = "A served name; absent or empty: the first one";

constexpr ApiField kResponsesRequestFields[] = {
    {"model", kString, kModelMeaning},
    {"input", R"({"anyOf":[{"type":"string"},{"type":"array","items":{"$ref":"#ResponseInputItem"},"minItems":1}]})",
     "A text of the user, or items", true},
    {"instructions", kString, "The system's message, for this response only"},
    {"previous_response_id", kString, "A stored response that this one goes on from"},
    {"store", kBoolean, "true by default; the oldest stored responses are forgotten"},
    {"max_output_tokens", kPositive, "By default the rest of the context"},
    {"temperature", kTemperature, ""},
    {"top_p", kTopP, ""},
    {"top_logprobs", R"({"type":"integer","minimum":0,"maximum":20})", "Alternatives per token of the text"},
    {"stream", kBoolean, "Server-sent events, numbered from 0"},
    {"tools", R"({"type":"array","items":{"$ref":"#ResponseTool"},"maxItems":512})", "Functions that the client runs"},
    {"tool_choice",
     R"({"anyOf":[{"enum":["none","auto","required"]},{"type":"object","properties":{"type":{"const":"function"},"name":{"type":"string"}},"required":["type","name"]}]})",
     "auto when there are tools"},
    {"parallel_tool_calls", kBoolean, "false: the first call only"},
    {"reasoning",
     R"({"type":"object","properties":{"effort":{"enum":["none","minimal","low","medium","high","xhigh","max",null]}}})",
     "Its effort: none switches thinking off where the template can"},
    {"text", R"({"type":"object","properties":{"format":{"$ref":"#ResponseTextFormat"}}})",
     "What the answer has to be"},
    {"truncation", R"({"const":"disabled"})", "Nothing of a conversation is dropped"},
    {"background", R"({"const":false})", ""},
    {"metadata", kAnyObject, "Given back"},
    {"user", kString, "Given back"},
};

constexpr ApiField kResponseTextFormatFields[] = {
    {"type", R"({"enum":["text","json_object","json_schema"]})", "", true},
    {"name", kString, ""},
    {"schema", kAnyObject, "With type json_schema"},
    {"strict", kBoolean, ""},
};

constexpr ApiField kResponseInputItemFields[] = {
    {"type", R"({"enum":["message","reasoning","function_call","function_call_output"]})", "message by default"},
    {"role", R"({"enum":["system","developer","user","assistant"]})", "Of a message"},
    {"content", R"({"anyOf":[{"type":"string"},{"type":"array","items":{"$ref":"#ResponseTextPart"}}]})",
     "Of a message or of reasoning"},
    {"call_id", kString, "Of a call and of its output"},
    {"name", kString, "Of a call"},
    {"arguments", kString, "Of a call: JSON as a string"},
    {"status", kString, "A call that is incomplete is left out"},
    {"output", R"({"anyOf":[{"type":"string"},{"type":"array","items":{"$ref":"#ResponseTextPart"}}]})",
     "Of a function_call_output"},
};

constexpr ApiField kResponseTextPartFields[] = {
    {"type", R"({"enum":["input_text","output_text","text","summary_text","reasoning_text"]})", "", true},
    {"text", kString, "", true},
};

constexpr ApiField kResponseToolFields[] = {
    {"type", R"({"const":"function"})", "", true},
    {"name", R"({"type":"string","minLength":1,"maxLength":64})", "", true},
    {"description", kString, ""},
    {"parameters", kAnyObject, "JSON schema of the arguments"},
    {"strict", kBoolean, "Arguments satisfy the schema"},
};

constexpr ApiField kResponseFields[] = {
    {"id", kString, "", true},
    {"object", R"({"const":"response"})", "", true},
    {"created_at", kInteger, "Unix seconds", true},
    {"status", R"({"enum":["completed","incomplete","failed","in_progress"]})", "", true},
    {"model", kString, "", true},
    {"output",
     R"({"type":"array","items":{"type":"object","properties":{"type":{"enum":["message","reasoning","function_call"]},"id":{"type":"string"}},"required":["type","id"]}})",
     "Reasoning, messages and calls in the order of the text", true},
    {"error", R"({"type":["object","null"]})", "", true},
    {"incomplete_details", R"({"type":["object","null"]})", "", true},
    {"instructions", R"({"type":["string","null"]})", "", true},
    {"metadata", kAnyObject, "", true},
    {"parallel_tool_calls", kBoolean, "", true},
    {"temperature", R"({"type":["number","null"]})", "", true},
    {"top_p", R"({"type":["number","null"]})", "", true},
    {"tool_choice", R"({"type":["string","object"]})", "", true},
    {"tools", R"({"type":"array"})", "", true},
    {"usage", kAnyObject, ""},
};

constexpr ApiField kDeletedResponseFields[] = {
    {"id", kString, "", true},
    {"object", R"({"const":"response"})", "", true},
    {"deleted", R"({"const":true})", "", true},
};

constexpr ApiField kMessagesFields[] = {
    {"model", kString, kModelMeaning},
    {"messages", R"({"type":"array","items":{"$ref":"#AgentMessage"},"minItems":1})", "", true},
    {"system", R"({"anyOf":[{"type":"string"},{"type":"array","items":{"$ref":"#TextBlock"}}]})", ""},
    {"tools", R"({"type":"array","items":{"$ref":"#AgentTool"},"maxItems":512})", "Functions that the client runs"},
    {"tool_choice",
     R"({"type":"object","properties":{"type":{"enum":["auto","any","tool","none"]},"name":{"type":"string"},"disable_parallel_tool_use":{"type":"boolean"}},"required":["type"]})",
     ""},
    {"thinking",
     R"({"type":"object","properties":{"type":{"enum":["enabled","disabled","adaptive"]}},"required":["type"]})",
     "For templates that can switch it"},
};

constexpr ApiField kMessagesSamplingFields[] = {
    {"max_tokens", kPositive, "", true},
    {"temperature", kTemperature, ""},
    {"top_p", kTopP, ""},
    {"top_k", R"({"type":"integer","minimum":-1,"maximum":2147483647})", ""},
    {"stop_sequences", R"({"type":"array","items":{"type":"string","minLength":1,"maxLength":256},"maxItems":64})", ""},
    {"stream", kBoolean, "Server-sent events"},
    {"metadata", kAnyObject, "Ignored"},
};

constexpr ApiField kAgentMessageFields[] = {
    {"role", kString, "assistant; any other counts as user", true},
    {"content", R"({"anyOf":[{"type":"string"},{"type":"array","items":{"$ref":"#AgentBlock"}}]})", "", true},
};

constexpr ApiField kAgentBlockFields[] = {
    {"type", R"({"enum":["text","thinking","tool_use","tool_result"]})", "", true},
    {"text", kString, ""},
    {"thinking", kString, ""},
    {"id", kString, "Of a tool_use"},
    {"name", kString, "Of a tool_use"},
    {"input", kAnyObject, "Of a tool_use"},
    {"tool_use_id", kString, "Of a tool_result"},
    {"content", R"({"anyOf":[{"type":"string"},{"type":"array","items":{"$ref":"#TextBlock"}}]})", "Of a tool_result"},
};

constexpr ApiField kTextBlockFields[] = {
    {"type", R"({"const":"text"})", "", true},
    {"text", kString, "", true},
};

constexpr ApiField kAgentToolFields[] = {
    {"name", R"({"type":"string","minLength":1,"maxLength":64})", "", true},
    {"description", kString, ""},
    {"input_schema", kAnyObject, "JSON schema of the input", true},
};

constexpr ApiField kMessagesAnswerFields[] = {
    {"id", kString, "", true},
    {"type", R"({"const":"message"})", "", true},
    {"role", R"({"const":"assistant"})", "", true},
    {"model", kString, "", true},
    {"content",
     R"({"type":"array","items":{"type":"object","properties":{"type":{"enum":["text","thinking","tool_use"]}},"required":["type"]}})",
     "", true},
    {"stop_reason", R"({"enum":["end_turn","max_tokens","stop_sequence","tool_use"]})", "", true},
    {"stop_sequence", R"({"type":["string","null"]})", "", true},
    {"usage",
     R"({"type":"object","properties":{"input_tokens":{"type":"integer"},"output_tokens":{"type":"integer"},"cache_creation_input_tokens":{"type":"integer"},"cache_read_input_tokens":{"type":"integer"}},"required":["input_tokens","output_tokens"]})",
     "input_tokens does not count what the prefix cache held", true},
};

constexpr ApiField kTokenCountFields[] = {{"input_tokens", kCount, "", true}};

constexpr ApiField kMessagesErrorFields[] = {
    {"type", R"({"const":"error"})", "", true},
    {"error",
     R"({"type":"object","properties":{"type":{"type":"string"},"message":{"type":"string"}},"required":["type","message"]})",
     "", true},
};

constexpr ApiObject kObjects[] = {
    {"ResponsesRequest", kResponsesRequestFields},
    {"ResponseTextFormat", kResponseTextFormatFields},
    {"ResponseInputItem", kResponseInputItemFields},
    {"ResponseTextPart", kResponseTextPartFields},
    {"ResponseTool", kResponseToolFields},
    {"Response", kResponseFields},
    {"DeletedResponse", kDeletedResponseFields},
    {"MessagesRequest", kMessagesFields, kMessagesSamplingFields},
    {"CountTokensRequest", kMessagesFields},
    {"AgentMessage", kAgentMessageFields},
    {"AgentBlock", kAgentBlockFields},
    {"TextBlock", kTextBlockFields},
    {"AgentTool", kAgentToolFields},
    {"MessagesAnswer", kMessagesAnswerFields},
    {"TokenCount", kTokenCountFields},
    {"MessagesError", kMessagesErrorFields},
};

}  // namespace

std::span<const ApiObject> api_agent_objects() { return kObjects; }

}  // namespace hadal
