// The answer of /v1/chat/completions.
#include "server/answer.h"
#include "server/logprobs_json.h"

namespace hadal {
namespace {

using Kind = ChatEvent::Kind;

constexpr const char* kReasoningFields[] = {"reasoning_content", "reasoning"};

class ChatAnswer : public Answer {
 public:
  ChatAnswer(AnswerContext context, ChatAnswerOptions options, std::vector<std::unique_ptr<ChatTextSplitter>> splitters)
      : Answer(std::move(context)), options_(std::move(options)), choices_(splitters.size()) {
    for (size_t i = 0; i < splitters.size(); ++i) choices_[i].splitter = std::move(splitters[i]);
  }

  void on_delta(size_t index, ChoiceDelta&& delta, const Usage& usage) override {
    Choice& choice = choices_[index];
    std::vector<ChatEvent> events = choice.splitter->push(delta.text);
    if (choice.splitter->in_reasoning()) choice.num_reasoning_tokens += static_cast<int64_t>(delta.tokens.size());
    const bool finished = delta.finish_reason != FinishReason::kNone;
    if (finished) {
      for (ChatEvent& event : choice.splitter->flush()) events.push_back(std::move(event));
    }
    count_calls(events, &choice);
    if (finished) {
      choice.finish_reason = finish_reason(choice, delta.finish_reason);
      choice.stop_reason = std::move(delta.stop_reason);
    }
    if (params().stream) return stream_delta(index, delta, std::move(events), usage);
    for (ChatEvent& event : events) keep(std::move(event), &choice);
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
    if (params().return_token_ids) response["prompt_token_ids"] = prompt_of(0).ids;
    return response;
  }

  void add_usage_details(Usage* usage) const override {
    bool any = false;
    int64_t total = 0;
    for (const Choice& choice : choices_) {
      any = any || choice.splitter->saw_reasoning();
      total += choice.num_reasoning_tokens;
    }
    if (any) usage->num_reasoning_tokens = total;
  }

 private:
  struct Call {
    std::string id;
    std::string name;
    std::string arguments;
  };
  struct Choice {
    std::unique_ptr<ChatTextSplitter> splitter;
    int64_t num_whole_calls = 0;
    bool ends_with_call = false;  // a whole one, and nothing behind it
    std::string reasoning;
    std::string content;
    std::vector<Call> calls;
    Json logprobs = Json::array();
    Json token_ids = Json::array();
    int64_t num_reasoning_tokens = 0;
    Json finish_reason;
    Json stop_reason;
  };

  static void count_calls(const std::vector<ChatEvent>& events, Choice* choice) {
    for (const ChatEvent& event : events) {
      if (event.kind == Kind::kCallEnd) ++choice->num_whole_calls;
      choice->ends_with_call = event.kind == Kind::kCallEnd;
    }
  }

  // A named tool leaves the engine's reason, as does a call that the answer's length cut (what follows a whole call and
  // is no call is not told).
  Json finish_reason(const Choice& choice, FinishReason reason) const {
    const bool has_calls = choice.num_whole_calls > 0 && options_.text.calls != ChatTextOptions::Calls::kNamed;
    const bool was_cut = reason == FinishReason::kLength && !choice.ends_with_call;
    const bool is_normal = reason == FinishReason::kStop || reason == FinishReason::kLength;
    return has_calls && is_normal && !was_cut ? Json("tool_calls") : finish_reason_json(reason);
  }

  void keep(ChatEvent&& event, Choice* choice) const {
    switch (event.kind) {
      case Kind::kReasoning:
        if (options_.include_reasoning) choice->reasoning += event.text;
        break;
      case Kind::kContent:
        choice->content += event.text;
        break;
      case Kind::kCallBegin:
        choice->calls.push_back({std::move(event.call_id), std::move(event.call_name), {}});
        break;
      case Kind::kCallArguments:
        choice->calls.back().arguments += event.text;
        break;
      case Kind::kCallEnd:
        break;
      case Kind::kCallBroken:
        choice->calls.pop_back();
        choice->content += event.text;
        break;
    }
  }

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

  bool tells_reasoning_as(const char* name) const {
    return options_.reasoning_field == "both" || options_.reasoning_field == name;
  }

  void add_reasoning(const std::string& text, Json* delta) const {
    for (const char* name : kReasoningFields) {
      if (tells_reasoning_as(name)) (*delta)[name] = delta->value(name, "") + text;
    }
  }

  Json message_json(const Choice& choice) const {
    Json message = {{"role", options_.role}};
    const bool has_reasoning = choice.splitter->saw_reasoning() && options_.include_reasoning;
    for (const char* name : kReasoningFields) {
      if (tells_reasoning_as(name)) message[name] = has_reasoning ? Json(choice.reasoning) : Json(nullptr);
    }
    const std::string content = options_.echo_text + choice.content;
    const bool is_named = options_.text.calls == ChatTextOptions::Calls::kNamed;
    const bool may_be_null = choice.splitter->saw_reasoning() || !choice.calls.empty();
    message["content"] = content.empty() && may_be_null && !is_named ? Json(nullptr) : Json(content);
    message["refusal"] = nullptr;
    for (const Call& call : choice.calls) {
      message["tool_calls"].push_back(
          {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    }
    return message;
  }

  Json choice_json(size_t index, Choice* choice) const {
    Json entry = {{"index", index},
                  {"message", message_json(*choice)},
                  {"logprobs", logprobs_json(std::move(choice->logprobs))},
                  {"finish_reason", std::move(choice->finish_reason)},
                  {"stop_reason", std::move(choice->stop_reason)}};
    if (params().return_token_ids) entry["token_ids"] = std::move(choice->token_ids);
    return entry;
  }

  static Json chunk_choice(size_t index, Json delta) {
    return {{"index", index}, {"delta", std::move(delta)}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
  }

  // The deltas of one step: one, unless a call's beginning and arguments come together, since clients expect the
  // beginning alone.
  std::vector<Json> deltas_of(std::vector<ChatEvent>&& events) const {
    std::vector<Json> deltas = {Json::object()};
    for (ChatEvent& event : events) {
      Json& delta = deltas.back();
      switch (event.kind) {
        case Kind::kReasoning:
          if (options_.include_reasoning) add_reasoning(event.text, &delta);
          break;
        case Kind::kContent:
          delta["content"] = delta.value("content", "") + event.text;
          break;
        case Kind::kCallBegin:
          delta["tool_calls"].push_back({{"index", event.call_index},
                                         {"id", std::move(event.call_id)},
                                         {"type", "function"},
                                         {"function", {{"name", std::move(event.call_name)}, {"arguments", ""}}}});
          deltas.push_back(Json::object());
          break;
        case Kind::kCallArguments:
          delta["tool_calls"].push_back({{"index", event.call_index}, {"function", {{"arguments", event.text}}}});
          deltas.push_back(Json::object());
          break;
        case Kind::kCallEnd:
        case Kind::kCallBroken:
          break;
      }
    }
    if (deltas.size() > 1 && deltas.back().empty()) deltas.pop_back();
    return deltas;
  }

  void stream_first(size_t index, const Usage& usage) {
    Usage before = usage;
    before.num_completion_tokens = 0;
    Json extras = Json::object();
    if (params().return_token_ids) extras["prompt_token_ids"] = prompt_of(index).ids;
    send_chunk(chunk_choice(index, {{"role", options_.role}, {"content", ""}}), before, false, extras);
    if (options_.echo_text.empty()) return;
    send_chunk(chunk_choice(index, {{"content", options_.echo_text}}), before, false);
  }

  void stream_delta(size_t index, const ChoiceDelta& delta, std::vector<ChatEvent>&& events, const Usage& usage) {
    if (delta.is_first) stream_first(index, usage);
    const bool finished = delta.finish_reason != FinishReason::kNone;
    std::vector<Json> deltas = deltas_of(std::move(events));
    const bool is_empty = deltas.size() == 1 && deltas.front().empty();
    if (is_empty && !finished && !wants_logprobs() && !params().return_token_ids) return;
    for (size_t i = 0; i + 1 < deltas.size(); ++i) send_chunk(chunk_choice(index, std::move(deltas[i])), usage, false);
    Json choice = chunk_choice(index, std::move(deltas.back()));
    Json logprobs = Json::array();
    append_logprobs(delta, &logprobs);
    choice["logprobs"] = logprobs_json(std::move(logprobs));
    if (finished) {
      choice["finish_reason"] = choices_[index].finish_reason;
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
  std::vector<std::unique_ptr<ChatTextSplitter>> splitters;
  for (const PreparedPrompt& prompt : context.prompts) {
    for (int64_t sample = 0; sample < context.params.n; ++sample) {
      auto splitter = ChatTextSplitter::make(options.text, prompt.text);
      if (!splitter) return tl::unexpected(splitter.error());
      splitters.push_back(std::move(*splitter));
    }
  }
  return std::make_unique<ChatAnswer>(std::move(context), std::move(options), std::move(splitters));
}

}  // namespace hadal
