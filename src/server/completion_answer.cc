// The answer of /v1/completions.
#include "server/answer.h"
#include "server/logprobs_json.h"

namespace hadal {
namespace {

class CompletionAnswer : public Answer {
 public:
  explicit CompletionAnswer(AnswerContext context) : Answer(std::move(context)), choices_(num_choices()) {
    for (size_t i = 0; i < choices_.size(); ++i) choices_[i].logprobs = make_logprobs(0);
  }

  void on_delta(size_t index, ChoiceDelta&& delta, const Usage& usage) override {
    Choice& choice = choices_[index];
    std::string text;
    if (delta.is_first && params().echo) text = prompt_of(index).text;
    if (!echo_only()) text += delta.text;
    if (params().stream) choice.logprobs = make_logprobs(choice.num_characters);
    add_logprobs(delta, &choice);
    choice.num_characters += num_code_points(text);
    choice.finish_reason =
        echo_only() && delta.finish_reason == FinishReason::kStop ? FinishReason::kLength : delta.finish_reason;
    choice.stop_reason = echo_only() ? Json(nullptr) : std::move(delta.stop_reason);
    if (!params().stream) {
      choice.text += text;
      if (delta.is_first && params().sampling.num_prompt_logprobs >= 0) {
        choice.prompt_logprobs = prompt_logprobs_json(tokenizer(), delta.prompt_tokens);
      }
      if (params().return_token_ids) append_ids(delta, &choice.token_ids);
      return;
    }
    Json chunk = {{"index", index},
                  {"text", std::move(text)},
                  {"logprobs", choice.logprobs ? choice.logprobs->take() : Json(nullptr)},
                  {"finish_reason", finish_reason_json(choice.finish_reason)},
                  {"stop_reason", choice.stop_reason}};
    if (params().return_token_ids) {
      Json ids = Json::array();
      append_ids(delta, &ids);
      chunk["token_ids"] = std::move(ids);
      if (delta.is_first) chunk["prompt_token_ids"] = prompt_of(index).ids;
    }
    send_chunk(std::move(chunk), usage, true);
  }

 protected:
  const char* chunk_object() const override { return "text_completion"; }

  Json body(const Usage& usage) override {
    Json response = head_json("text_completion");
    Json list = Json::array();
    for (size_t i = 0; i < choices_.size(); ++i) {
      Choice& choice = choices_[i];
      Json entry = {{"index", i},
                    {"text", std::move(choice.text)},
                    {"logprobs", choice.logprobs ? choice.logprobs->take() : Json(nullptr)},
                    {"finish_reason", finish_reason_json(choice.finish_reason)},
                    {"stop_reason", std::move(choice.stop_reason)},
                    {"prompt_logprobs", std::move(choice.prompt_logprobs)}};
      if (params().return_token_ids) {
        entry["token_ids"] = std::move(choice.token_ids);
        entry["prompt_token_ids"] = prompt_of(i).ids;
      }
      list.push_back(std::move(entry));
    }
    response["choices"] = std::move(list);
    response["usage"] = usage_json(usage);
    return response;
  }

 private:
  struct Choice {
    std::string text;
    std::unique_ptr<CompletionLogprobs> logprobs;
    Json prompt_logprobs;
    Json token_ids = Json::array();
    int64_t num_characters = 0;  // of text so far
    FinishReason finish_reason = FinishReason::kNone;
    Json stop_reason;
  };

  // max_tokens 0: the prompt comes back, the token that had to be made does not.
  bool echo_only() const { return params().echo && params().max_tokens == 0; }

  std::unique_ptr<CompletionLogprobs> make_logprobs(int64_t first_offset) const {
    if (params().sampling.num_logprobs < 0) return nullptr;
    return std::make_unique<CompletionLogprobs>(tokenizer(), params().sampling.num_logprobs,
                                                params().return_tokens_as_token_ids, first_offset);
  }

  void add_logprobs(const ChoiceDelta& delta, Choice* choice) const {
    if (!choice->logprobs) return;
    if (params().echo) {
      for (const TokenOutput& token : delta.prompt_tokens) choice->logprobs->add(token);
    }
    if (echo_only()) return;
    for (const TokenOutput& token : delta.tokens) choice->logprobs->add(token);
  }

  void append_ids(const ChoiceDelta& delta, Json* ids) const {
    if (echo_only()) return;
    for (const TokenOutput& token : delta.tokens) ids->push_back(token.token_id);
  }

  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<Answer> make_completion_answer(AnswerContext context) {
  return std::make_unique<CompletionAnswer>(std::move(context));
}

}  // namespace hadal
