// The answer of /v1/chat/completions.
#include "server/answer.h"
#include "server/logprobs_json.h"
#include "text/reasoning_parser.h"

namespace hadal {
namespace {

class ChatAnswer : public Answer {
 public:
  ChatAnswer(AnswerContext context, ChatAnswerOptions options, ReasoningMode mode)
      : Answer(std::move(context)), options_(std::move(options)) {
    for (size_t i = 0; i < num_choices(); ++i) {
      choices_.push_back({.parser = ReasoningParser(prompt_of(i).text, {.mode = mode, .ending_markers = {}})});
    }
  }

  void on_delta(size_t index, ChoiceDelta&& delta, const Usage& usage) override {
    Choice& choice = choices_[index];
    ReasoningDelta split = choice.parser.push(delta.text);
    if (choice.parser.in_reasoning()) choice.num_reasoning_tokens += static_cast<int64_t>(delta.tokens.size());
    const bool finished = delta.finish_reason != FinishReason::kNone;
    if (finished) {
      ReasoningDelta rest = choice.parser.flush();
      split.reasoning += rest.reasoning;
      split.content += rest.content;
      choice.finish_reason = delta.finish_reason;
      choice.stop_reason = std::move(delta.stop_reason);
    }
    if (!options_.include_reasoning) split.reasoning.clear();
    if (params().stream) return stream_delta(index, delta, split, usage);
    choice.reasoning += split.reasoning;
    choice.content += split.content;
    if (params().return_token_ids) append_ids(delta, &choice.token_ids);
    append_logprobs(delta, &choice.logprobs);
    if (index == 0 && delta.is_first && params().sampling.num_prompt_logprobs >= 0) {
      prompt_logprobs_ = prompt_logprobs_json(tokenizer(), delta.prompt_tokens);
    }
  }

 protected:
  const char* chunk_object() const override { return "chat.completion.chunk"; }

  Json body(const Usage& usage) override {
    Json response = head_json("chat.completion");
    Json list = Json::array();
    for (size_t i = 0; i < choices_.size(); ++i) list.push_back(choice_json(i, &choices_[i]));
    response["choices"] = std::move(list);
    response["usage"] = usage_json(usage);
    response["prompt_logprobs"] = std::move(prompt_logprobs_);
    return response;
  }

  void add_usage_details(Usage* usage) const override {
    bool any = false;
    int64_t total = 0;
    for (const Choice& choice : choices_) {
      any = any || choice.parser.saw_reasoning();
      total += choice.num_reasoning_tokens;
    }
    if (any) usage->num_reasoning_tokens = total;
  }

 private:
  struct Choice {
    ReasoningParser parser;
    std::string reasoning;
    std::string content;
    Json logprobs = Json::array();
    Json token_ids = Json::array();
    int64_t num_reasoning_tokens = 0;
    FinishReason finish_reason = FinishReason::kNone;
    Json stop_reason;
  };

  bool wants_logprobs() const { return params().sampling.num_logprobs >= 0; }

  void append_logprobs(const ChoiceDelta& delta, Json* list) const {
    if (!wants_logprobs()) return;
    for (const TokenOutput& token : delta.tokens) {
      list->push_back(chat_logprob_entry(tokenizer(), token, params().return_tokens_as_token_ids));
    }
  }

  static void append_ids(const ChoiceDelta& delta, Json* ids) {
    for (const TokenOutput& token : delta.tokens) ids->push_back(token.token_id);
  }

  Json logprobs_json(Json list) const {
    if (!wants_logprobs()) return nullptr;
    return {{"content", std::move(list)}, {"refusal", nullptr}};
  }

  Json choice_json(size_t index, Choice* choice) const {
    const bool has_reasoning = choice->parser.saw_reasoning() && options_.include_reasoning;
    const Json reasoning = has_reasoning ? Json(std::move(choice->reasoning)) : Json(nullptr);
    const std::string content = options_.echo_text + choice->content;
    const bool null_content = content.empty() && choice->parser.saw_reasoning();
    Json entry = {{"index", index},
                  {"message",
                   {{"role", options_.role},
                    {"reasoning_content", reasoning},
                    {"reasoning", reasoning},
                    {"content", null_content ? Json(nullptr) : Json(content)},
                    {"refusal", nullptr}}},
                  {"logprobs", logprobs_json(std::move(choice->logprobs))},
                  {"finish_reason", finish_reason_json(choice->finish_reason)},
                  {"stop_reason", std::move(choice->stop_reason)}};
    if (params().return_token_ids) {
      entry["token_ids"] = std::move(choice->token_ids);
      entry["prompt_token_ids"] = prompt_of(index).ids;
    }
    return entry;
  }

  static Json chunk_choice(size_t index, Json delta) {
    return {{"index", index}, {"delta", std::move(delta)}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
  }

  void stream_delta(size_t index, const ChoiceDelta& delta, const ReasoningDelta& split, const Usage& usage) {
    if (delta.is_first) {
      Usage before = usage;
      before.num_completion_tokens = 0;
      send_chunk(chunk_choice(index, {{"role", options_.role}, {"content", ""}}), before, false);
      if (!options_.echo_text.empty()) {
        send_chunk(chunk_choice(index, {{"content", options_.echo_text}}), before, false);
      }
    }
    const bool finished = delta.finish_reason != FinishReason::kNone;
    Json fields = Json::object();
    if (!split.reasoning.empty()) {
      fields["reasoning_content"] = split.reasoning;
      fields["reasoning"] = split.reasoning;
    }
    if (!split.content.empty()) fields["content"] = split.content;
    if (fields.empty() && !finished && !wants_logprobs() && !params().return_token_ids) return;
    Json choice = chunk_choice(index, std::move(fields));
    Json logprobs = Json::array();
    append_logprobs(delta, &logprobs);
    choice["logprobs"] = logprobs_json(std::move(logprobs));
    if (finished) {
      choice["finish_reason"] = finish_reason_json(delta.finish_reason);
      choice["stop_reason"] = choices_[index].stop_reason;
    }
    if (params().return_token_ids) {
      choice["token_ids"] = Json::array();
      append_ids(delta, &choice["token_ids"]);
    }
    send_chunk(std::move(choice), usage, false);
  }

  const ChatAnswerOptions options_;
  std::vector<Choice> choices_;
  Json prompt_logprobs_;
};

}  // namespace

ApiExpected<std::unique_ptr<Answer>> make_chat_answer(AnswerContext context, ChatAnswerOptions options) {
  const auto mode = reasoning_mode(options.reasoning_parser, options.thinking);
  if (!mode) return tl::unexpected(to_api_error(mode.error()));
  return std::make_unique<ChatAnswer>(std::move(context), std::move(options), *mode);
}

}  // namespace hadal
