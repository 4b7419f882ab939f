#include "eval/http_answers.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/names.h"
#include "net/http_client.h"
#include "text/reasoning_parser.h"

namespace hadal {
namespace {

constexpr JsonLimits kAnswerLimits = {.max_bytes = size_t{64} << 20, .max_depth = 32, .max_values = 1'000'000};
constexpr int kMaxTries = 5;

// The member, or null where it is absent or the value is no object.
const Json& member(const Json& value, const char* name) {
  static const Json kNull;
  if (!value.is_object()) return kNull;
  const auto found = value.find(name);
  return found == value.end() ? kNull : *found;
}

std::string string_or_empty(const Json& value) { return value.is_string() ? value.get<std::string>() : ""; }

int64_t count_or_zero(const Json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() < (uint64_t{1} << 40) ? value.get<int64_t>() : 0;
}

struct Routes {
  std::string answers, models;
};

Expected<Routes> find_routes(const HttpAnswersOptions& http) {
  HADAL_RETURN_IF_ERROR(parse_url(http.base_url).map([](const HttpUrl&) {}));
  std::string base = http.base_url;
  while (base.ends_with('/')) base.pop_back();
  const std::string own = http.chat ? "/chat/completions" : "/completions";
  const bool names_chat = base.ends_with("/chat/completions"), names_any = base.ends_with("/completions");
  if (names_any && names_chat != http.chat) {
    return make_error(
        ErrorCode::kInvalidArgument, "{}: {}", http.base_url,
        http.chat ? "--chat asks /v1/chat/completions: give the URL up to /v1" : "the chat route needs --chat");
  }
  if (names_any) base.resize(base.size() - own.size());
  return Routes{.answers = base + own, .models = base + "/models"};
}

// The server's own words, from {"error": {"message": ..}} or the status line.
std::string error_text(const HttpReply& reply) {
  constexpr size_t kMaxShown = 500;
  const auto body = parse_json(reply.body, kAnswerLimits);
  const std::string message = body ? string_or_empty(member(member(*body, "error"), "message")) : "";
  return fmt::format("{} {}", reply.status, message.empty() ? reply.reason : message.substr(0, kMaxShown));
}

class HttpAnswers final : public AnswerSource {
 public:
  HttpAnswers(HttpAnswersOptions http, std::string url, Json identity, AnswerOptions options)
      : http_(std::move(http)), url_(std::move(url)), identity_(std::move(identity)), options_(std::move(options)) {}

  Expected<EvalAnswer> answer(const EvalPrompt& prompt) override {
    const HttpCall call = {.method = "POST", .url = url_, .body = dump_json(body_of(prompt)), .api_key = http_.api_key};
    for (int tries = 1;; ++tries) {
      auto reply = client_.call(call, {.timeout = http_.timeout, .max_bytes = kAnswerLimits.max_bytes});
      const bool busy =
          reply ? reply->status == 429 || reply->status == 503 : reply.error().code == ErrorCode::kUnavailable;
      if (!busy || tries == kMaxTries) return reply ? read(*reply) : forward_error(std::move(reply));
      std::this_thread::sleep_for(std::chrono::milliseconds(250 << tries));
    }
  }
  Json identity() const override { return identity_; }

 private:
  Json body_of(const EvalPrompt& prompt) const {
    Json body = {{"model", http_.model}, {"temperature", 0}, {"max_tokens", options_.max_gen_toks}};
    if (!options_.stop.empty()) body["stop"] = options_.stop;
    if (http_.chat) {
      body["messages"] = prompt.messages;
    } else {
      body["prompt"] = prompt.text;
      // vLLM's field; servers add BOS without it.
      if (!options_.add_bos_token) body["add_special_tokens"] = false;
    }
    return body;
  }

  Expected<EvalAnswer> read(const HttpReply& reply) const {
    if (reply.status != 200) {
      const ErrorCode code = reply.status == 429 || reply.status == 503 ? ErrorCode::kUnavailable
                             : reply.status < 500                       ? ErrorCode::kInvalidArgument
                                                                        : ErrorCode::kInternal;
      return make_error(code, "{}: {}", url_, error_text(reply));
    }
    auto answer = parse_completion(reply.body, http_.chat);
    if (!answer) return forward_error(std::move(answer), url_);
    return answer;
  }

  const HttpAnswersOptions http_;
  const std::string url_;
  const Json identity_;
  const AnswerOptions options_;
  HttpClient client_;
};

// {"id": .., "root": ..} of the model that will answer.
Expected<Json> choose_model(const HttpAnswersOptions& http, const std::string& url) {
  HADAL_ASSIGN_OR_RETURN(const HttpReply reply, HttpClient().call({.url = url, .api_key = http.api_key}));
  if (reply.status != 200) return make_error(ErrorCode::kUnavailable, "{}: {}", url, error_text(reply));
  const auto body = parse_json(reply.body, kAnswerLimits);
  std::vector<std::string> names;
  if (body && member(*body, "data").is_array()) {
    for (const Json& card : member(*body, "data")) {
      names.push_back(string_or_empty(member(card, "id")));
      if (names.back() != http.model && !http.model.empty()) continue;
      return Json{{"model", names.back()}, {"root", member(card, "root")}};
    }
  }
  if (names.empty()) return make_error(ErrorCode::kCorrupt, "{}: no list of models", url);
  const std::string near = closest_name(http.model, names);
  return make_error(ErrorCode::kInvalidArgument, "{} has no model '{}'{}", url, http.model,
                    near.empty() ? ": it has '" + names.front() + "'" : " (did you mean '" + near + "'?)");
}

}  // namespace

Expected<EvalAnswer> parse_completion(std::string_view text, bool chat) {
  HADAL_ASSIGN_OR_RETURN(const Json body, parse_json(text, kAnswerLimits));
  const Json& choices = member(body, "choices");
  if (!choices.is_array() || choices.empty()) return make_error(ErrorCode::kCorrupt, "an answer without choices");
  const Json& choice = choices[0];
  const Json& message = member(choice, "message");
  EvalAnswer answer{.finish_reason = string_or_empty(member(choice, "finish_reason")),
                    .num_prompt_tokens = count_or_zero(member(member(body, "usage"), "prompt_tokens")),
                    .num_tokens = count_or_zero(member(member(body, "usage"), "completion_tokens"))};
  if (!chat) {
    if (!member(choice, "text").is_string()) return make_error(ErrorCode::kCorrupt, "a choice without text");
    answer.text = member(choice, "text").get<std::string>();
    return answer;
  }
  if (!message.is_object()) return make_error(ErrorCode::kCorrupt, "a choice without message");
  answer.text = string_or_empty(member(message, "content"));
  for (const char* name : {"reasoning_content", "reasoning"}) {
    if (answer.reasoning.empty()) answer.reasoning = string_or_empty(member(message, name));
  }
  if (answer.text.find("</think>") != std::string::npos) {
    ReasoningDelta parts = parse_reasoning(answer.text, "", {.mode = ReasoningMode::kDeepSeekR1});
    answer.reasoning += parts.reasoning;
    answer.text = std::move(parts.content);
  }
  return answer;
}

Expected<std::unique_ptr<AnswerSource>> make_http_answers(const HttpAnswersOptions& http, AnswerOptions options) {
  HADAL_ASSIGN_OR_RETURN(Routes routes, find_routes(http));
  HADAL_ASSIGN_OR_RETURN(Json identity, choose_model(http, routes.models));
  HttpAnswersOptions chosen = http;
  chosen.model = identity["model"].get<std::string>();
  return std::make_unique<HttpAnswers>(std::move(chosen), std::move(routes.answers), std::move(identity),
                                       std::move(options));
}

}  // namespace hadal
