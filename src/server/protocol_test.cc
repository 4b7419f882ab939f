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
      {R"({"prompt": "a", "guided_json": {}})", "guided_json", "not supported"},
      {R"({"prompt": "a", "guided_choice": ["a"]})", "guided_choice", "not supported"},
      {R"({"prompt": "a", "response_format": {"type": "json_object"}})", "response_format", "json_object"},
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
      {R"("messages": [{}], "tools": [{"type": "function", "function": {"name": "f"}}])", "tool_choice",
       "\"none\" only"},
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
      "best_of": 1, "priority": -3, "cache_salt": "s", "request_id": "r", "return_token_ids": true,
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
  EXPECT_EQ(p.priority, -3);
  EXPECT_EQ(p.cache_salt + p.request_id, "sr");
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
