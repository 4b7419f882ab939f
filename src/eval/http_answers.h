// Answers from a server that speaks the OpenAI API.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "eval/answer_source.h"

namespace hadal {

struct HttpAnswersOptions {
  // URL up to /v1 (net/url.h), or with /completions or /chat/completions behind it.
  std::string base_url;
  std::string model;                           // empty: the first that the server lists
  std::string api_key;                         // may be empty
  bool chat = false;                           // which of the two routes
  std::chrono::milliseconds timeout{600'000};  // of one answer
};

// Asks the server which models it has. Errors: kInvalidArgument or kUnsupported (URL, unknown model), kUnavailable.
//
// Errors of answer(): kUnavailable after five tries (nobody answers, 429, 503), kCorrupt (an answer that is none),
// kInvalidArgument with the server's own message (another 4xx), kInternal (another 5xx).
Expected<std::unique_ptr<AnswerSource>> make_http_answers(const HttpAnswersOptions& http, AnswerOptions options);

// The answer in the body of a completion or a chat completion: its first choice. A chat answer's reasoning is split
// off, also where the server left it in the content. Error: kCorrupt.
Expected<EvalAnswer> parse_completion(std::string_view body, bool chat);

}  // namespace hadal
