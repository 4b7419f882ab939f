#include "server/protocol.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

const ProtocolOptions kOptions;

TEST(Protocol, CompletionErrorsNameTheFieldAndTheValue) {
  const struct {
    const char* body;
    const char* param;
    const char* fragment;
  } kCases[] = {
      {R"([])", "", "object"},
      {R"({})", "prompt", "required"},
      {R"({"prompt": null})", "prompt", "required"},
      {R"({"prompt": []})", "prompt", "Prompt cannot be empty"},
      {R"({"prompt": ""})", "prompt", "Prompt cannot be empty"},
      {R"({"prompt": ["a", ""]})", "prompt", "Prompt cannot be empty"},
      {R"({"prompt": 5})", "prompt", "string"},
      {R"({"prompt": [1, "a"]})", "prompt", "list"},
      {R"({"prompt": ["a", 1]})", "prompt", "list"},
      {R"({"prompt": [[1], "a"]})", "prompt", "list"},
      {R"({"prompt": [1.5]})", "prompt", "list"},
      {R"({"prompt": [-1]})", "prompt", "list"},
      {R"({"prompt": [4294967296]})", "prompt", "list"},
      {R"({"prompt": [{}]})", "prompt", "list"},
      {R"({"prompt": "a", "temperature": -1})", "temperature", "must be non-negative, got -1"},
      {R"({"prompt": "a", "temperature": "1"})", "temperature", "number"},
      {R"({"prompt": "a", "temperature": 1e300})", "temperature", "got"},
      {R"({"prompt": "a", "top_p": 0})", "top_p", "must be in (0, 1], got 0"},
      {R"({"prompt": "a", "top_p": 1.5})", "top_p", "must be in"},
      {R"({"prompt": "a", "top_k": -2})", "top_k", "got -2"},
      {R"({"prompt": "a", "top_k": 1.5})", "top_k", "integer"},
      {R"({"prompt": "a", "min_p": -0.1})", "min_p", "must be in [0, 1]"},
      {R"({"prompt": "a", "presence_penalty": 2.5})", "presence_penalty", "must be in [-2, 2]"},
      {R"({"prompt": "a", "frequency_penalty": -3})", "frequency_penalty", "must be in [-2, 2]"},
      {R"({"prompt": "a", "repetition_penalty": 0})", "repetition_penalty", "greater than zero"},
      {R"({"prompt": "a", "n": 0})", "n", "must be at least 1, got 0"},
      {R"({"prompt": "a", "n": 129})", "n", "must be in [1, 128], got 129"},
      {R"({"prompt": "a", "n": true})", "n", "integer"},
      {R"({"prompt": "a", "seed": 9223372036854775808})", "seed", "less_than_equal"},
      {R"({"prompt": "a", "seed": -9223372036854775809})", "seed", "greater_than_equal"},
      {R"({"prompt": "a", "max_tokens": 0})", "max_tokens", "must be at least 1, got 0"},
      {R"({"prompt": "a", "max_tokens": "5"})", "max_tokens", "integer"},
      {R"({"prompt": "a", "min_tokens": 20})", "min_tokens", "max_tokens=16"},
      {R"({"prompt": "a", "min_tokens": -1})", "min_tokens", "must be non-negative"},
      {R"({"prompt": "a", "stop": ""})", "stop", "cannot contain an empty string"},
      {R"({"prompt": "a", "stop": ["x", ""]})", "stop", "cannot contain an empty string"},
      {R"({"prompt": "a", "stop": [1]})", "stop", "list of strings"},
      {R"({"prompt": "a", "stop_token_ids": [-1]})", "stop_token_ids", "token ids"},
      {R"({"prompt": "a", "allowed_token_ids": []})", "allowed_token_ids", "empty"},
      {R"({"prompt": "a", "logit_bias": {"x": 1}})", "logit_bias", "token ids"},
      {R"({"prompt": "a", "logit_bias": {"1": "y"}})", "logit_bias", "number"},
      {R"({"prompt": "a", "logit_bias": [1]})", "logit_bias", "object"},
      {R"({"prompt": "a", "logprobs": 21})", "logprobs", "21"},
      {R"({"prompt": "a", "logprobs": -1})", "logprobs", "non-negative"},
      {R"({"prompt": "a", "logprobs": true})", "logprobs", "integer"},
      {R"({"prompt": "a", "prompt_logprobs": 21})", "prompt_logprobs", "max allowed: 20"},
      {R"({"prompt": "a", "prompt_logprobs": 1, "stream": true})", "prompt_logprobs", "stream"},
      {R"({"prompt": "a", "stream_options": {}})", "stream_options", "Stream options can only be defined when"},
      {R"({"prompt": "a", "stream": true, "stream_options": 5})", "stream_options", "object"},
      {R"({"prompt": "a", "stream": true, "stream_options": {"include_usage": 1}})", "stream_options", "include_usage"},
      {R"({"prompt": "a", "stream": "yes"})", "stream", "true or false"},
      {R"({"prompt": "a", "suffix": "b"})", "suffix", "suffix is not currently supported"},
      {R"({"prompt": "a", "best_of": 2})", "best_of", "not currently supported, got 2"},
      {R"({"prompt": "a", "best_of": 0})", "best_of", "at least 1"},
      {R"({"prompt": "a", "use_beam_search": true})", "use_beam_search", "not currently supported"},
      {R"({"prompt": "a", "thinking_token_budget": 5})", "thinking_token_budget", "not currently supported"},
      {R"({"prompt": "a", "logits_processors": ["x"]})", "logits_processors", "not accepted"},
      {R"({"prompt": "a", "guided_json": 5})", "guided_json", "JSON schema"},
      {R"({"prompt": "a", "guided_json": "{"})", "guided_json", "is no JSON"},
      {R"({"prompt": "a", "guided_json": "5"})", "guided_json", "JSON schema"},
      {R"({"prompt": "a", "guided_regex": {}})", "guided_regex", "string"},
      {R"({"prompt": "a", "guided_choice": "a"})", "guided_choice", "list of strings"},
      {R"({"prompt": "a", "guided_choice": [1]})", "guided_choice", "list of strings"},
      {R"({"prompt": "a", "guided_choice": []})", "guided_choice", "at least one"},
      {R"({"prompt": "a", "guided_grammar": 1})", "guided_grammar", "string"},
      {R"({"prompt": "a", "guided_json": {}, "guided_regex": "a"})", "guided_regex",
       "You can only use one kind of guided decoding"},
      {R"({"prompt": "a", "guided_json": {}, "response_format": {"type": "json_object"}})", "guided_json",
       "You can only use one kind of guided decoding"},
      {R"({"prompt": "a", "structured_outputs": {"regex": "a", "choice": ["b"]}})", "structured_outputs.choice",
       "You can only use one kind of guided decoding"},
      {R"({"prompt": "a", "structured_outputs": 5})", "structured_outputs", "object"},
      {R"({"prompt": "a", "structured_outputs": {"regex": 5}})", "structured_outputs.regex", "string"},
      {R"({"prompt": "a", "structured_outputs": {"structural_tag": "x"}})", "structured_outputs.structural_tag",
       "not supported"},
      {R"({"prompt": "a", "response_format": {"type": "structural_tag"}})", "response_format", "structural_tag"},
      {R"({"prompt": "a", "response_format": {"type": "json_schema"}})", "response_format.json_schema", "`schema`"},
      {R"({"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": 5}}})",
       "response_format.json_schema.schema", "JSON schema"},
      {R"({"prompt": "a", "response_format": {}})", "response_format", "type must be"},
      {R"({"prompt": "a", "priority": 1})", "priority", "Priority scheduling is not enabled"},
      {R"({"prompt": "a", "prompt_logprobs": -1})", "prompt_logprobs", "max allowed: 20"},
      {R"({"prompt": "a", "prompt_logprobs": -2})", "prompt_logprobs", "must be non-negative"},
      {R"({"prompt": "a", "response_format": "text"})", "response_format", "object"},
      {R"({"prompt": "a", "truncate_prompt_tokens": 0})", "truncate_prompt_tokens", "at least 1"},
      {R"({"prompt": "a", "model": 5})", "model", "string"},
      {R"({"prompt": "a", "echo": 1})", "echo", "true or false"},
      {R"({"prompt": "a", "priority": 3000000000})", "priority", "must be in"},
  };
  for (const auto& one : kCases) {
    const auto request = parse_completion_request(parse_body(one.body).value(), kOptions);
    ASSERT_FALSE(request.has_value()) << one.body;
    EXPECT_EQ(request.error().status, 400) << one.body;
    EXPECT_EQ(request.error().param, one.param) << one.body;
    EXPECT_NE(request.error().message.find(one.fragment), std::string::npos) << request.error().message;
  }
}

TEST(Protocol, ChatErrorsNameTheField) {
  const struct {
    const char* fields;
    const char* param;
    const char* fragment;
  } kCases[] = {
      {R"("messages": null)", "messages", "list"},
      {R"("messages": [])", "messages", "at least one"},
      {R"("messages": "hi")", "messages", "list"},
      {R"("messages": [{}], "top_logprobs": 2)", "top_logprobs", "`logprobs` must be set"},
      {R"("messages": [{}], "logprobs": true, "top_logprobs": -1)", "top_logprobs", "must be a positive value"},
      {R"("messages": [{}], "logprobs": true, "top_logprobs": 21)", "top_logprobs", "21"},
      {R"("messages": [{}], "logprobs": 1)", "logprobs", "true or false"},
      {R"("messages": [{}], "continue_final_message": true, "add_generation_prompt": true)", "continue_final_message",
       "Cannot set both"},
      {R"("messages": [{}], "tool_choice": "required")", "tool_choice", "`tools` must be set"},
      {R"("messages": [{}], "tools": [], "tool_choice": "required")", "tool_choice", "`tools` must be set"},
      {R"("messages": [{}], "tool_choice": {"type": "function", "function": {"name": "f"}})", "tool_choice",
       "`tools` must be set"},
      {R"("messages": [{}], "tools": [{"function": {"name": "f"}}], "tool_choice": {"function": {"name": "g"}})",
       "tool_choice", "does not match any of the specified"},
      {R"("messages": [{}], "tools": [{"function": {"name": "f"}}], "tool_choice": {"name": "f"})", "tool_choice",
       "my_function"},
      {R"("messages": [{}], "tools": [{"function": {"name": "f"}}], "tool_choice": "always")", "tool_choice",
       "\"always\""},
      {R"("messages": [{}], "tools": [{"function": {"name": "f"}}], "tool_choice": 5)", "tool_choice", "got 5"},
      {R"("messages": [{}], "tools": [{"function": {"name": "f"}}], "parallel_tool_calls": 1)", "parallel_tool_calls",
       "true or false"},
      {R"("messages": [{}], "tools": [{"function": {"name": ""}}])", "tools", "1 to 512 bytes"},
      {R"("messages": [{}], "tools": [{"function": {}}])", "tools", "needs a name"},
      {R"("messages": [{}], "tools": [{"type": "web", "function": {"name": "f"}}])", "tools", "only the type"},
      {R"("messages": [{}], "tools": [{"function": {"name": "f", "parameters": []}}])", "tools", "JSON schema"},
      {R"("messages": [{}], "tools": [{"function": {"name": "f", "strict": "yes"}}])", "tools", "true or false"},
      {R"("messages": [{}], "tools": [{"function": {"name": "f", "description": 5}}])", "tools", "string"},
      {R"("messages": [{}], "tools": [5], "tool_choice": "none")", "tools", "function"},
      {R"("messages": [{}], "tools": 5)", "tools", "list"},
      {R"("messages": [{}], "chat_template": "x")", "chat_template", "not accepted"},
      {R"("messages": [{}], "chat_template_kwargs": [])", "chat_template_kwargs", "object"},
      {R"("messages": [{}], "reasoning_effort": "extreme")", "reasoning_effort", "extreme"},
      {R"("messages": [{}], "max_completion_tokens": 0)", "max_completion_tokens", "at least 1"},
      {R"("messages": [{}], "max_tokens": -5)", "max_tokens", "at least 1"},
  };
  for (const auto& one : kCases) {
    const auto request = parse_chat_request(parse_body("{" + std::string(one.fields) + "}").value(), kOptions);
    ASSERT_FALSE(request.has_value()) << one.fields;
    EXPECT_NE(request.error().message.find(one.fragment), std::string::npos) << request.error().message;
    EXPECT_EQ(request.error().param, one.param) << one.fields;
  }
}

TEST(Protocol, BodiesThatAreNoJson) {
  for (const std::string& bad : {std::string("{"), std::string(), std::string("{\"a\": \"\xff\"}"), std::string("{} x"),
                                 std::string(200, '['), std::string(R"({"a": 1, "a": 2})")}) {
    const auto body = parse_body(bad);
    ASSERT_FALSE(body.has_value()) << bad;
    EXPECT_TRUE(body.error().message.starts_with("JSON decode error")) << body.error().message;
  }
}

TEST(Protocol, ReadsEveryCompletionField) {
  const auto parsed = parse_completion_request(parse_body(R"({
      "model": "m", "prompt": [[1, 2], [3.0]], "n": 2, "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125,
      "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.5, "seed": -5, "stop": ["a", "b"],
      "stop_token_ids": [9], "include_stop_str_in_output": true, "ignore_eos": true, "min_tokens": 3, "max_tokens": 30,
      "logit_bias": {"5": 1000, "6": -0.5}, "allowed_token_ids": [1, 2], "bad_words": ["no"], "skip_special_tokens": false,
      "add_special_tokens": false, "truncate_prompt_tokens": 8, "prompt_logprobs": 2, "logprobs": 4, "echo": true,
      "best_of": 1, "priority": 0, "cache_salt": "s", "request_id": "r", "return_token_ids": true,
      "return_tokens_as_token_ids": true, "user": "u", "unknown_field": {"x": [1]}, "suffix": null,
      "response_format": {"type": "text"}, "guided_json": null, "logits_processors": []})")
                                                   .value(),
                                               kOptions);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  const GenerationParams& p = parsed->params;
  EXPECT_EQ(parsed->prompts.size(), 2u);
  EXPECT_EQ(parsed->prompts[1].ids, (std::vector<int32_t>{3}));
  EXPECT_EQ(p.n, 2);
  EXPECT_EQ(p.sampling.temperature, 0.5F);
  EXPECT_EQ(p.sampling.top_p, 0.25F);
  EXPECT_EQ(p.sampling.top_k, 7);
  EXPECT_EQ(p.sampling.min_p, 0.125F);
  EXPECT_EQ(p.sampling.presence_penalty, 1);
  EXPECT_EQ(p.sampling.frequency_penalty, -1);
  EXPECT_EQ(p.sampling.repetition_penalty, 1.5F);
  EXPECT_EQ(p.sampling.seed, static_cast<uint64_t>(-5));
  EXPECT_EQ(p.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(p.sampling.stop_token_ids, (std::vector<int32_t>{9}));
  EXPECT_TRUE(p.include_stop_str_in_output && p.sampling.ignore_eos && p.echo && p.return_token_ids &&
              p.return_tokens_as_token_ids);
  EXPECT_FALSE(p.skip_special_tokens || p.add_special_tokens || p.stream);
  EXPECT_EQ(p.sampling.min_tokens, 3);
  EXPECT_EQ(p.max_tokens, 30);
  EXPECT_EQ(p.sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{5, 100.0F}, {6, -0.5F}}));
  EXPECT_EQ(p.sampling.allowed_token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(p.bad_words, (std::vector<std::string>{"no"}));
  EXPECT_EQ(p.truncate_prompt_tokens, 8);
  EXPECT_EQ(p.sampling.num_prompt_logprobs, 2);
  EXPECT_EQ(p.sampling.num_logprobs, 4);
  EXPECT_EQ(p.priority, 0);
  EXPECT_EQ(p.cache_salt + p.request_id, "sr");
  EXPECT_EQ(p.unknown_fields, std::vector<std::string>{"unknown_field"});
}

TEST(Protocol, StructuredOutputInEverySpelling) {
  using Kind = StructuredOutput::Kind;
  const struct {
    const char* fields;
    Kind kind;
    const char* field;
    const char* value;
  } kCases[] = {
      {R"("guided_json": {"type": "null"})", Kind::kJsonSchema, "guided_json", R"({"type":"null"})"},
      {R"("guided_json": "{\"a\": 1}")", Kind::kJsonSchema, "guided_json", R"({"a":1})"},
      {R"("guided_regex": "a+")", Kind::kRegex, "guided_regex", "a+"},
      {R"("guided_choice": ["a", "b"])", Kind::kChoice, "guided_choice", "a|b"},
      {R"("guided_grammar": "root ::= x")", Kind::kGrammar, "guided_grammar", "root ::= x"},
      {R"("structured_outputs": {"json": true})", Kind::kJsonSchema, "structured_outputs.json", "true"},
      {R"("structured_outputs": {"regex": "a"})", Kind::kRegex, "structured_outputs.regex", "a"},
      {R"("structured_outputs": {"choice": ["a"]})", Kind::kChoice, "structured_outputs.choice", "a"},
      {R"("structured_outputs": {"grammar": "g"})", Kind::kGrammar, "structured_outputs.grammar", "g"},
      {R"("structured_outputs": {"json_object": true})", Kind::kJsonObject, "structured_outputs.json_object", ""},
      {R"("structured_outputs": {"json_object": false})", Kind::kNone, "", ""},
      {R"("response_format": {"type": "json_object"})", Kind::kJsonObject, "response_format.type", ""},
      {R"("response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}})", Kind::kJsonSchema,
       "response_format.json_schema.schema", "{}"},
      {R"("response_format": {"type": "text"}, "guided_regex": null)", Kind::kNone, "", ""},
      {R"("guided_regex": "a", "guided_decoding_backend": "x", "guided_whitespace_pattern": " ")", Kind::kRegex,
       "guided_regex", "a"},
  };
  for (const auto& one : kCases) {
    const Json body = parse_body(R"({"prompt": "a", )" + std::string(one.fields) + "}").value();
    const auto request = parse_completion_request(body, kOptions);
    ASSERT_TRUE(request.has_value()) << one.fields << " " << request.error().message;
    const StructuredOutput& output = request->params.structured_output;
    EXPECT_EQ(output.kind, one.kind) << one.fields;
    EXPECT_EQ(output.field, one.field) << one.fields;
    std::string value = output.kind == Kind::kJsonSchema ? dump_json(output.schema) : output.source;
    for (const std::string& choice : output.choices) value += (value.empty() ? "" : "|") + choice;
    EXPECT_EQ(value, one.value) << one.fields;
    EXPECT_TRUE(output.any_whitespace);
    EXPECT_TRUE(request->params.unknown_fields.empty()) << one.fields;
  }
  const Json compact =
      parse_body(R"({"prompt":"a","structured_outputs":{"json":{},"disable_any_whitespace":true}})").value();
  EXPECT_FALSE(parse_completion_request(compact, kOptions)->params.structured_output.any_whitespace);
}

TEST(Protocol, UnknownFieldsAreToldByName) {
  const Json completion = parse_body(R"({"prompt":"a","best_of":1,"user":"u","temprature":1,"x":null})").value();
  EXPECT_EQ(parse_completion_request(completion, kOptions)->params.unknown_fields,
            (std::vector<std::string>{"temprature", "x"}));
  const Json chat = parse_body(R"({"messages":[{}],"tools":null,"parallel_tool_calls":true,"max_token":5,"seed":1,
      "reasoning_effort":null,"chat_template_kwargs":{},"logprobs":false})")
                        .value();
  EXPECT_EQ(parse_chat_request(chat, kOptions)->params.unknown_fields, std::vector<std::string>{"max_token"});
}

TEST(Protocol, ServerOptionsReachTheRequest) {
  ProtocolOptions options;
  options.priority_scheduling = true;
  options.force_include_usage = true;
  options.return_tokens_as_token_ids = true;
  options.processed_logprobs = true;
  options.clamp_max_tokens = true;
  options.max_logprobs = -1;
  const auto parse = [&](const char* fields) {
    return parse_completion_request(parse_body(R"({"prompt":"a",)" + std::string(fields) + "}").value(), options)
        .value()
        .params;
  };
  const GenerationParams params = parse(R"("priority":-4,"stream":true)");
  EXPECT_EQ(params.priority, -4);
  EXPECT_TRUE(params.include_usage && params.return_tokens_as_token_ids && params.clamp_max_tokens &&
              params.sampling.processed_logprobs);
  EXPECT_FALSE(parse(R"("stream":false)").include_usage);
  EXPECT_TRUE(parse(R"("stream":true,"stream_options":{"include_usage":false})").include_usage);
  EXPECT_FALSE(parse(R"("return_tokens_as_token_ids":false)").return_tokens_as_token_ids);
  EXPECT_EQ(parse(R"("prompt_logprobs":-1)").sampling.num_prompt_logprobs, std::numeric_limits<int32_t>::max());
  EXPECT_EQ(parse(R"("logprobs":500)").sampling.num_logprobs, 500);
}

TEST(Protocol, ToolChoiceDefaultsToAutoWithTools) {
  using Choice = ToolUse::Choice;
  const auto use = [](const std::string& fields, const ProtocolOptions& options = kOptions) {
    return parse_chat_request(parse_body(R"({"messages":[{}])" + fields + "}").value(), options).value();
  };
  const std::string tools = R"(,"tools":[{"type":"function","function":{"name":"f","parameters":null}}])";
  EXPECT_EQ(use("").tool_use.choice, Choice::kNone);
  EXPECT_EQ(use(R"(,"tools":[],"tool_choice":"auto")").tool_use.choice, Choice::kNone);
  EXPECT_EQ(use(tools).tool_use.choice, Choice::kAuto);
  EXPECT_EQ(use(tools + R"(,"tool_choice":"auto","parallel_tool_calls":false)").tool_use.parallel, false);
  EXPECT_EQ(use(tools + R"(,"tool_choice":"required")").tool_use.choice, Choice::kRequired);
  const auto named = use(tools + R"(,"tool_choice":{"type":"function","function":{"name":"f"}})");
  EXPECT_EQ(named.tool_use.choice, Choice::kNamed);
  EXPECT_EQ(named.tool_use.named_tool, "f");
  ProtocolOptions options;
  EXPECT_FALSE(use(tools + R"(,"tool_choice":"none")", options).conversation.tools.is_null());
  options.exclude_tools_when_tool_choice_none = true;
  EXPECT_TRUE(use(tools + R"(,"tool_choice":"none")", options).conversation.tools.is_null());
}

TEST(Protocol, DefaultsComeFromTheModelThenFromHere) {
  const Json body = parse_body(R"({"prompt": "a", "logprobs": null, "temperature": null, "seed": -1})").value();
  const auto plain = parse_completion_request(body, kOptions).value();
  EXPECT_EQ(plain.params.sampling.temperature, 1);
  EXPECT_EQ(plain.params.sampling.top_p, 1);
  EXPECT_EQ(plain.params.sampling.top_k, 0);
  EXPECT_EQ(plain.params.max_tokens, 16);
  EXPECT_EQ(plain.params.sampling.num_logprobs, -1);
  EXPECT_FALSE(plain.params.sampling.seed.has_value());
  ProtocolOptions options;
  options.defaults = {.temperature = 0.6F, .top_p = 0.95F, .top_k = 40, .min_p = 0.1F, .repetition_penalty = 1.1F};
  const SamplingParams sampling = parse_completion_request(body, options).value().params.sampling;
  EXPECT_EQ(sampling.temperature, 0.6F);
  EXPECT_EQ(sampling.top_p, 0.95F);
  EXPECT_EQ(sampling.top_k, 40);
  EXPECT_EQ(sampling.min_p, 0.1F);
  EXPECT_EQ(sampling.repetition_penalty, 1.1F);
  const Json asked = parse_body(R"({"prompt": "a", "temperature": 0, "top_p": 1, "top_k": -1})").value();
  const SamplingParams own = parse_completion_request(asked, options).value().params.sampling;
  EXPECT_EQ(own.temperature, 0);
  EXPECT_EQ(own.top_p, 1);
  EXPECT_EQ(own.top_k, 0);
}

TEST(Protocol, TemperaturesNearZero) {
  const auto temperature = [](const char* value) {
    const std::string body = std::string(R"({"prompt": "a", "temperature": )") + value + "}";
    return parse_completion_request(parse_body(body).value(), kOptions).value().params.sampling.temperature;
  };
  EXPECT_EQ(temperature("1e-6"), 0);
  EXPECT_EQ(temperature("0.001"), 0.01F);
  EXPECT_EQ(temperature("0.02"), 0.02F);
}

TEST(Protocol, ChatFields) {
  const auto parsed = parse_chat_request(parse_body(R"({
      "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "max_completion_tokens": 7, "logprobs": true,
      "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none", "stream": true,
      "stream_options": {"continuous_usage_stats": true}, "chat_template_kwargs": {"thinking": true},
      "continue_final_message": true, "include_reasoning": false})")
                                             .value(),
                                         kOptions);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(parsed->params.max_tokens, 7);
  EXPECT_EQ(parsed->params.sampling.num_logprobs, 0);
  EXPECT_TRUE(parsed->params.include_usage);  // the object alone asks for it
  EXPECT_TRUE(parsed->params.continuous_usage_stats);
  EXPECT_FALSE(parsed->params.add_special_tokens);
  EXPECT_FALSE(parsed->conversation.add_generation_prompt);
  EXPECT_FALSE(parsed->include_reasoning);
  EXPECT_EQ(parsed->conversation.tools.size(), 1u);
  const auto bare = parse_chat_request(parse_body(R"({"messages": [{}], "tools": []})").value(), kOptions).value();
  EXPECT_FALSE(bare.params.max_tokens.has_value());
  EXPECT_TRUE(bare.conversation.tools.is_null());
  EXPECT_TRUE(bare.conversation.add_generation_prompt);
}

}  // namespace
}  // namespace hadal
