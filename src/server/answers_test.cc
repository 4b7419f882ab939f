// What clients read from the generating routes, over loopback sockets with a scripted engine: shapes byte for byte.
#include <gtest/gtest.h>

#include <regex>

#include "server/server.h"
#include "server/server_test_support.h"

namespace hadal {
namespace {

constexpr char kId[] = "X-Request-Id: r1\r\n";
constexpr char kHello[] = R"("messages":[{"role":"user","content":"Hi"}])";

// The time of creation is the one thing that differs between runs.
std::string without_time(const std::string& text) {
  return std::regex_replace(text, std::regex("\"created\":[0-9]+"), "\"created\":T");
}

TEST(Answers, RequestIdIsEchoedOrMade) {
  const TestServer s("hi");
  const HttpReply given = s.post("/v1/completions", R"({"prompt":"a"})", kId);
  EXPECT_EQ(given.header("x-request-id"), "r1");
  EXPECT_EQ(given.json()["id"], "cmpl-r1");
  const HttpReply made = s.post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(made.header("x-request-id").size(), 32u);
  EXPECT_EQ(made.json()["id"], "cmpl-" + made.header("x-request-id"));
  const HttpReply in_body = s.post("/v1/completions", R"({"prompt":"a","request_id":"mine"})");
  EXPECT_EQ(in_body.header("x-request-id"), "mine");
  EXPECT_EQ(in_body.headers.count("x-request-id"), 1u);
  EXPECT_EQ(s.get("/version").headers.count("x-request-id"), 1u);
  EXPECT_NE(s.get("/nothing").header("x-request-id"), "");
}

TEST(Answers, CompletionBodyByteForByte) {
  const TestServer s("hello");
  const HttpReply reply = s.post("/v1/completions", R"({"model":"m","prompt":"ab","max_tokens":3})", kId);
  EXPECT_EQ(
      without_time(reply.body),
      R"({"id":"cmpl-r1","object":"text_completion","created":T,"model":"m","choices":[{"index":0,"text":"hel",)"
      R"("logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_logprobs":null}],"usage":)"
      R"({"prompt_tokens":3,"completion_tokens":3,"total_tokens":6,"prompt_tokens_details":{"cached_tokens":1}}})");
}

TEST(Answers, CompletionStreamByteForByte) {
  const TestServer s("hi");
  TestClient client(s.port());
  client.send(http_request("POST", "/v1/completions",
                           R"({"prompt":"ab","stream":true,"stream_options":{"include_usage":true}})", kId));
  const HttpReply reply = client.read_reply();
  EXPECT_EQ(reply.header("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(reply.header("x-request-id"), "r1");
  const std::string head = R"(data: {"id":"cmpl-r1","object":"text_completion","created":T,"model":"m","choices":[)";
  const auto chunk = [&](const std::string& text, const std::string& finish) {
    return head + R"({"index":0,"text":")" + text + R"(","logprobs":null,"finish_reason":)" + finish +
           R"(,"stop_reason":null}],"usage":null})" + "\n\n";
  };
  EXPECT_EQ(without_time(reply.body), chunk("h", "null") + chunk("i", "null") + chunk("", "\"stop\"") + head +
                                          R"(],"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6,)"
                                          R"("prompt_tokens_details":{"cached_tokens":1}}})" +
                                          "\n\ndata: [DONE]\n\n");
  // The connection goes on.
  client.send(http_request("GET", "/version"));
  EXPECT_EQ(client.read_reply().status, 200);
}

TEST(Answers, ParallelStreamHasAChunkPerTokenAndChoice) {
  const TestServer s("hello");
  const auto events = s.post("/v1/completions", R"({"prompt":["a","b"],"n":2,"stream":true,"max_tokens":5})").events();
  EXPECT_EQ(events.back(), "[DONE]");
  std::map<int, int> chunks;
  std::map<int, int> finishes;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const Json choice = parse_json(event).value()["choices"][0];
    ++chunks[choice["index"]];
    if (!choice["finish_reason"].is_null()) ++finishes[choice["index"]];
  }
  EXPECT_EQ(chunks, (std::map<int, int>{{0, 5}, {1, 5}, {2, 5}, {3, 5}}));
  EXPECT_EQ(finishes, (std::map<int, int>{{0, 1}, {1, 1}, {2, 1}, {3, 1}}));
}

TEST(Answers, SeveralPromptsAndSamples) {
  const TestServer s([](const Request& r) { return test_ids(r.prompt_ids.back() == 'a' ? "A" : "B"); });
  const Json reply = s.post("/v1/completions", R"({"prompt":["xa","xyb"],"n":2})").json();
  std::string texts;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(reply["choices"][i]["index"], i);
    texts += reply["choices"][i]["text"].get<std::string>();
  }
  EXPECT_EQ(texts, "AABB");
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 3 + 4);  // each prompt once, BOS included
  EXPECT_EQ(reply["usage"]["completion_tokens"], 8);  // EOS counts
  std::vector<uint64_t> samples;
  for (const Request& request : s.engine->seen()) samples.push_back(request.sample_idx);
  EXPECT_EQ(samples, (std::vector<uint64_t>{0, 1, 0, 1}));
}

TEST(Answers, IdPromptsAreVerbatimAndTextGetsOneBos) {
  const TestServer s("x");
  s.post("/v1/completions", R"({"prompt":[97,98]})");
  s.post("/v1/completions", R"({"prompt":"ab"})");
  s.post("/v1/completions", R"({"prompt":"ab","add_special_tokens":false})");
  s.post("/v1/completions", R"({"prompt":"abcd","truncate_prompt_tokens":2})");
  const auto seen = s.engine->seen();
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_EQ(seen[0].prompt_ids, (std::vector<int32_t>{97, 98}));
  EXPECT_EQ(seen[1].prompt_ids, (std::vector<int32_t>{kTestBos, 97, 98}));
  EXPECT_EQ(seen[2].prompt_ids, (std::vector<int32_t>{97, 98}));
  EXPECT_EQ(seen[3].prompt_ids, (std::vector<int32_t>{99, 100}));
}

TEST(Answers, SamplingReachesTheEngine) {
  ServerOptions options;
  options.priority_scheduling = true;
  const TestServer s("x", options);
  s.post("/v1/completions", R"({"prompt":"a","temperature":0.5,"seed":7,"stop_token_ids":[65],"bad_words":["no"],
                               "priority":2,"cache_salt":"z"})");
  s.post("/v1/completions", R"({"prompt":"a","ignore_eos":true})");
  const auto seen = s.engine->seen();
  EXPECT_EQ(seen[0].sampling.temperature, 0.5F);
  EXPECT_EQ(seen[0].sampling.seed, 7u);
  EXPECT_EQ(seen[0].sampling.stop_token_ids, (std::vector<int32_t>{65, kTestEos}));
  EXPECT_EQ(seen[0].sampling.bad_words_token_ids, (std::vector<std::vector<int32_t>>{{'n', 'o'}, {' ', 'n', 'o'}}));
  EXPECT_EQ(seen[0].priority, 2);
  EXPECT_EQ(seen[0].cache_salt, "z");
  EXPECT_TRUE(seen[1].sampling.stop_token_ids.empty());
}

TEST(Answers, StopStringEndsTheAnswerAndTheEngineRequest) {
  for (const bool include : {false, true}) {
    for (const bool stream : {false, true}) {
      const TestServer s("one\ntwo three four five six seven");
      s.engine->hold();
      TestClient client(s.port());
      client.send(http_request(
          "POST", "/v1/completions",
          fmt::format(
              R"({{"prompt":"a","max_tokens":100,"stop":["zz","ne\nt"],"include_stop_str_in_output":{},"stream":{}}})",
              include, stream)));
      ASSERT_TRUE(s.engine->wait_running(1));
      s.engine->step(5);  // "one\nt"
      const HttpReply reply = client.read_reply();
      EXPECT_TRUE(s.engine->wait_running(0));  // it would have gone on
      EXPECT_EQ(s.engine->num_aborted(), 1u);
      const std::string expected = include ? "one\nt" : "o";
      if (stream) {  // no part of the stop string was ever sent
        EXPECT_EQ(joined(reply.events(), "/choices/0/text"), expected);
        continue;
      }
      const Json choice = reply.json()["choices"][0];
      EXPECT_EQ(choice["text"], expected);
      EXPECT_EQ(choice["finish_reason"], "stop");
      EXPECT_EQ(choice["stop_reason"], "ne\nt");
    }
  }
}

TEST(Answers, StopTokensAndMinTokens) {
  const TestServer s("abcabc");
  const auto choice = [&](const std::string& fields) {
    return s.post("/v1/completions", R"({"prompt":"x",)" + fields + "}").json()["choices"][0];
  };
  Json got = choice(R"("stop_token_ids":[99])");
  EXPECT_EQ(got["text"], "ab");
  EXPECT_EQ(got["stop_reason"], 99);
  got = choice(R"("stop_token_ids":[99],"include_stop_str_in_output":true)");
  EXPECT_EQ(got["text"], "abc");
  got = choice(R"("stop":["b"],"min_tokens":4)");
  EXPECT_EQ(got["text"], "abca");
  EXPECT_EQ(got["stop_reason"], "b");
  got = choice(R"("ignore_eos":true,"max_tokens":8)");
  EXPECT_EQ(got["text"], "abcabc");
  EXPECT_EQ(got["finish_reason"], "length");
  got = choice(R"("ignore_eos":true,"max_tokens":7,"skip_special_tokens":false)");
  EXPECT_EQ(got["text"], "abcabc<EOS>");
}

TEST(Answers, StreamNeverCutsACharacter) {
  const std::string text = "中文 é 😀!";
  const TestServer s(text);
  const auto events = s.post("/v1/completions", R"({"prompt":"x","max_tokens":100,"stream":true})").events();
  EXPECT_EQ(events.size(), text.size() + 2);  // a chunk per token, EOS, [DONE]
  EXPECT_EQ(joined(events, "/choices/0/text"), text);
  for (const std::string& event : events) EXPECT_EQ(event.find("\uFFFD"), std::string::npos);
  const std::string cut = s.post("/v1/completions", R"({"prompt":"x","max_tokens":2})").json()["choices"][0]["text"];
  EXPECT_EQ(cut, "\uFFFD");  // half a character, at the end only
}

TEST(Answers, CompletionLogprobs) {
  const TestServer s("ab");
  const auto logprobs = [&](const std::string& fields) {
    return s.post("/v1/completions", R"({"prompt":"xy","max_tokens":2,)" + fields + "}")
        .json()["choices"][0]["logprobs"];
  };
  EXPECT_EQ(dump_json(logprobs(R"("logprobs":2)")),
            R"({"text_offset":[0,1],"token_logprobs":[-0.125,-0.25],"tokens":["a","b"],)"
            R"("top_logprobs":[{"a":-0.125,"b":-1.125},{"b":-0.25,"c":-1.25}]})");
  EXPECT_EQ(dump_json(logprobs(R"("logprobs":0)")["top_logprobs"]), R"([{"a":-0.125},{"b":-0.25}])");
  EXPECT_EQ(dump_json(logprobs(R"("logprobs":0,"return_tokens_as_token_ids":true)")["tokens"]),
            R"(["token_id:97","token_id:98"])");
  EXPECT_EQ(dump_json(logprobs(R"("logprobs":1,"echo":true)")),
            R"({"text_offset":[0,5,6,7,8],"token_logprobs":[null,-0.5,-0.5,-0.125,-0.25],)"
            R"("tokens":["<BOS>","x","y","a","b"],)"
            R"("top_logprobs":[null,{"x":-0.5},{"y":-0.5},{"a":-0.125},{"b":-0.25}]})");
}

TEST(Answers, StopReasonOfEosIsNullAndOfOtherEndsTheId) {
  const auto reason = [](const std::string& fields) {
    const TestServer s("ab");
    return s.post("/v1/completions", R"({"prompt":"x",)" + fields + "}").json()["choices"][0]["stop_reason"];
  };
  EXPECT_TRUE(reason(R"("max_tokens":9)").is_null());
  EXPECT_TRUE(reason(R"("stop_token_ids":[257])").is_null());
  EXPECT_EQ(reason(R"("stop_token_ids":[257],"ignore_eos":true)"), 257);
  EXPECT_EQ(reason(R"("stop_token_ids":[98])"), 98);
}

TEST(Answers, MaxTokensOverTheContextIsRefusedOrCut) {
  const std::string body = R"({"prompt":"x","max_tokens":100000})";
  expect_error(TestServer("hello").post("/v1/completions", body), 400, "maximum context length is 512 tokens");
  ServerOptions options;
  options.clamp_max_tokens = true;
  const TestServer s("hello", options);
  EXPECT_EQ(s.post("/v1/completions", body).json()["choices"][0]["text"], "hello");
  EXPECT_EQ(s.engine->seen().at(0).sampling.max_tokens, 510);  // BOS and "x" are there already
}

TEST(Answers, UsageIsForcedOnStreams) {
  ServerOptions options;
  options.force_include_usage = true;
  const TestServer s("hi", options);
  const auto events = s.post("/v1/completions", R"({"prompt":"x","stream":true})").events();
  EXPECT_EQ(parse_json(events.at(events.size() - 2)).value()["usage"]["completion_tokens"], 3);
}

TEST(Answers, ReasoningFieldAndTemplateDefaultsFollowTheServer) {
  ServerOptions options;
  options.reasoning_field = "reasoning";
  options.default_chat_template_kwargs = {{"thinking", true}};
  const TestServer s("hm</think>x", options);
  const std::string body = std::string(kHello) + R"(,"max_tokens":50)";
  const Json message = s.post("/v1/chat/completions", "{" + body + "}").json()["choices"][0]["message"];
  EXPECT_EQ(message["reasoning"], "hm");
  EXPECT_FALSE(message.contains("reasoning_content"));
  EXPECT_EQ(message["content"], "x");
  const auto events = s.post("/v1/chat/completions", "{" + body + R"(,"stream":true})").events();
  EXPECT_EQ(joined(events, "/choices/0/delta/reasoning"), "hm");
  EXPECT_EQ(joined(events, "/choices/0/delta/reasoning_content"), "");
  // The request's own words win.
  for (const char* fields : {R"("chat_template_kwargs":{"thinking":false})",
                             R"("chat_template_kwargs":{"enable_thinking":false})", R"("reasoning_effort":"none")"}) {
    s.post("/v1/chat/completions", "{" + body + "," + fields + "}");
    const std::string prompt = test_tokenizer()->decode(s.engine->seen().back().prompt_ids, false);
    EXPECT_TRUE(prompt.ends_with("[assistant]")) << fields << prompt;
  }
}

TEST(Answers, Echo) {
  const TestServer s("ab");
  Json reply = s.post("/v1/completions", R"({"prompt":"xy","max_tokens":1,"echo":true})").json();
  EXPECT_EQ(reply["choices"][0]["text"], "xya");
  reply = s.post("/v1/completions", R"({"prompt":[256,120],"max_tokens":1,"echo":true})").json();
  EXPECT_EQ(reply["choices"][0]["text"], "<BOS>xa");
  reply = s.post("/v1/completions", R"({"prompt":"xy","max_tokens":0,"echo":true,"logprobs":1})").json();
  EXPECT_EQ(reply["choices"][0]["text"], "xy");
  EXPECT_EQ(reply["choices"][0]["logprobs"]["tokens"].size(), 3u);
  EXPECT_EQ(reply["usage"]["completion_tokens"], 0);
  const auto events = s.post("/v1/completions", R"({"prompt":"xy","max_tokens":2,"echo":true,"stream":true})").events();
  EXPECT_EQ(joined(events, "/choices/0/text"), "xyab");
  EXPECT_EQ(parse_json(events[0]).value()["choices"][0]["text"], "xya");
}

TEST(Answers, PromptLogprobs) {
  const TestServer s("ab");
  const Json choice = s.post("/v1/completions", R"({"prompt":[120,121],"prompt_logprobs":1})").json()["choices"][0];
  EXPECT_EQ(dump_json(choice["prompt_logprobs"]), R"([null,{"121":{"logprob":-0.5,"rank":1,"decoded_token":"y"}}])");
}

TEST(Answers, TokenIdsWhenAskedFor) {
  const TestServer s("ab");
  const Json choice = s.post("/v1/completions", R"({"prompt":[120],"return_token_ids":true})").json()["choices"][0];
  EXPECT_EQ(dump_json(choice["token_ids"]), "[97,98,257]");
  EXPECT_EQ(dump_json(choice["prompt_token_ids"]), "[120]");
  const std::string body = std::string("{") + kHello + R"(,"return_token_ids":true,"stream":)";
  const Json chat = s.post("/v1/chat/completions", body + "false}").json();
  EXPECT_EQ(dump_json(chat["choices"][0]["token_ids"]), "[97,98,257]");
  EXPECT_EQ(chat["prompt_token_ids"].size(), 20u);
  const auto events = s.post("/v1/chat/completions", body + "true}").events();
  EXPECT_EQ(parse_json(events[0]).value()["prompt_token_ids"], chat["prompt_token_ids"]);
  EXPECT_FALSE(parse_json(events[1]).value().contains("prompt_token_ids"));
  EXPECT_EQ(dump_json(parse_json(events[1]).value()["choices"][0]["token_ids"]), "[97]");
}

TEST(Answers, ChatBodyByteForByte) {
  const TestServer s("Hey");
  const HttpReply reply = s.post("/v1/chat/completions", std::string("{") + kHello + "}", kId);
  EXPECT_EQ(without_time(reply.body),
            R"({"id":"chatcmpl-r1","object":"chat.completion","created":T,"model":"m","choices":[{"index":0,"message":)"
            R"({"role":"assistant","reasoning_content":null,"reasoning":null,"content":"Hey","refusal":null},)"
            R"("logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":20,)"
            R"("completion_tokens":4,"total_tokens":24,"prompt_tokens_details":{"cached_tokens":1}},)"
            R"("prompt_logprobs":null})");
  // The template writes BOS itself; nothing adds a second one.
  EXPECT_EQ(test_tokenizer()->decode(s.engine->seen()[0].prompt_ids, false), "<BOS>[user]Hi[assistant]");
}

TEST(Answers, ChatStreamByteForByte) {
  const TestServer s("He");
  const HttpReply reply =
      s.post("/v1/chat/completions",
             std::string("{") + kHello + R"(,"stream":true,"stream_options":{"include_usage":true}})", kId);
  const std::string head =
      R"(data: {"id":"chatcmpl-r1","object":"chat.completion.chunk","created":T,"model":"m","choices":[)";
  const auto chunk = [&](const std::string& delta, const std::string& finish) {
    return head + R"({"index":0,"delta":)" + delta + R"(,"logprobs":null,"finish_reason":)" + finish + "}]}\n\n";
  };
  EXPECT_EQ(without_time(reply.body), chunk(R"({"role":"assistant","content":""})", "null") +
                                          chunk(R"({"content":"H"})", "null") + chunk(R"({"content":"e"})", "null") +
                                          chunk("{}", R"("stop","stop_reason":null)") + head +
                                          R"(],"usage":{"prompt_tokens":20,"completion_tokens":3,"total_tokens":23,)"
                                          R"("prompt_tokens_details":{"cached_tokens":1}}})" +
                                          "\n\ndata: [DONE]\n\n");
}

TEST(Answers, ContinuousUsage) {
  const TestServer s("Hello");
  const auto events = s.post("/v1/chat/completions",
                             std::string("{") + kHello +
                                 R"(,"stream":true,"max_tokens":5,"stream_options":{"continuous_usage_stats":true}})")
                          .events();
  int expected = 0;
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    const Json usage = parse_json(events[i]).value()["usage"];
    EXPECT_EQ(usage["completion_tokens"], expected++) << events[i];
    EXPECT_EQ(usage["total_tokens"], usage["prompt_tokens"].get<int>() + usage["completion_tokens"].get<int>());
  }
  EXPECT_EQ(expected, 6);  // the role chunk at 0
  const Json last = parse_json(events[events.size() - 3]).value()["choices"][0];
  EXPECT_EQ(last["finish_reason"], "length");
  EXPECT_EQ(last["delta"]["content"], "o");  // the chunk that ends by length carries text
}

TEST(Answers, ReasoningIsSplitAndJoinsToTheSame) {
  const TestServer s("<think>let me see</think>It is 4.");
  const std::string fields = std::string(kHello) + R"(,"max_tokens":100)";
  const Json message = s.post("/v1/chat/completions", "{" + fields + "}").json()["choices"][0]["message"];
  EXPECT_EQ(message["reasoning_content"], "let me see");
  EXPECT_EQ(message["reasoning"], "let me see");
  EXPECT_EQ(message["content"], "It is 4.");
  const auto events = s.post("/v1/chat/completions", "{" + fields + R"(,"stream":true})").events();
  EXPECT_EQ(joined(events, "/choices/0/delta/reasoning_content"), "let me see");
  EXPECT_EQ(joined(events, "/choices/0/delta/reasoning"), "let me see");
  EXPECT_EQ(joined(events, "/choices/0/delta/content"), "It is 4.");
  const Json hidden =
      s.post("/v1/chat/completions", "{" + fields + R"(,"include_reasoning":false})").json()["choices"][0]["message"];
  EXPECT_TRUE(hidden["reasoning"].is_null());
  EXPECT_EQ(hidden["content"], "It is 4.");
}

TEST(Answers, ReasoningBegunByTheTemplateAndCutByLength) {
  const TestServer s("thinking all along");
  const Json reply = s.post("/v1/chat/completions",
                            std::string("{") + kHello + R"(,"max_tokens":8,"chat_template_kwargs":{"thinking":true}})")
                         .json();
  const Json message = reply["choices"][0]["message"];
  EXPECT_EQ(message["reasoning"], "thinking");
  EXPECT_TRUE(message["content"].is_null());
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(reply["usage"]["completion_tokens_details"]["reasoning_tokens"], 8);
  s.post("/v1/chat/completions", std::string("{") + kHello + R"(,"reasoning_effort":"high"})");
  EXPECT_TRUE(test_tokenizer()->decode(s.engine->seen().back().prompt_ids, false).ends_with("[assistant]<think>"));
}

TEST(Answers, ChatLogprobs) {
  const TestServer s("\xC3\xA9");  // one character, two tokens
  const Json choice =
      s.post("/v1/chat/completions", std::string("{") + kHello + R"(,"max_tokens":2,"logprobs":true,"top_logprobs":1})")
          .json()["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "é");
  EXPECT_EQ(dump_json(choice["logprobs"]),
            "{\"content\":[{\"token\":\"\uFFFD\",\"logprob\":-0.125,\"bytes\":[195],\"top_logprobs\":"
            "[{\"token\":\"\uFFFD\",\"logprob\":-0.125,\"bytes\":[195]}]},"
            "{\"token\":\"\uFFFD\",\"logprob\":-0.25,\"bytes\":[169],\"top_logprobs\":"
            "[{\"token\":\"\uFFFD\",\"logprob\":-0.25,\"bytes\":[169]}]}],\"refusal\":null}");
}

TEST(Answers, ChatMessagesContinueEchoAndParts) {
  const TestServer s(" there");
  const Json reply = s.post("/v1/chat/completions", R"({"messages":[{"role":"user","content":
      [{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"role":"assistant","content":"Hi"}],
      "continue_final_message":true,"echo":true})")
                         .json();
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "Hi there");
  EXPECT_EQ(test_tokenizer()->decode(s.engine->seen()[0].prompt_ids, false), "<BOS>[user]a\nb[assistant]Hi");
  expect_error(s.post("/v1/chat/completions", R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})"),
               400, "");
  expect_error(s.post("/v1/chat/completions", R"({"messages":["x"]})"), 400, "");
  s.post("/v1/chat/completions",
         std::string("{") + kHello + R"(,"tool_choice":"none","tools":[{"type":"function","function":{"name":"f"}}]})");
  EXPECT_EQ(test_tokenizer()->decode(s.engine->seen().back().prompt_ids, false), "<BOS>[user]Hi[tools][assistant]");
}

TEST(Answers, ManyStepsTokensAtOnce) {
  const TestServer s("0123456789");
  s.engine->set_tokens_per_step(4);
  const auto events = s.post("/v1/completions", R"({"prompt":"a","stream":true,"stop":["6"]})").events();
  EXPECT_EQ(joined(events, "/choices/0/text"), "012345");
  EXPECT_EQ(events.size(), 3u);  // two steps, [DONE]
}

}  // namespace
}  // namespace hadal
