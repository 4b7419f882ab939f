#include "eval/engine_answers.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "text/detokenizer.h"
#include "text/reasoning_parser.h"
#include "text/stop_matcher.h"

namespace hadal {
namespace {

// Hands outputs from the engine's thread to the one that waits for the answer.
class OutputQueue {
 public:
  void push(RequestOutput&& output) {
    const std::lock_guard lock(mutex_);
    outputs_.push_back(std::move(output));
    arrived_.notify_one();
  }
  RequestOutput pop() {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [this] { return !outputs_.empty(); });
    RequestOutput output = std::move(outputs_.front());
    outputs_.pop_front();
    return output;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<RequestOutput> outputs_;
};

class EngineAnswers final : public AnswerSource {
 public:
  EngineAnswers(EvalModel model, AnswerOptions options) : model_(std::move(model)), options_(std::move(options)) {}

  Expected<EvalAnswer> answer(const EvalPrompt& prompt) override;
  Json identity() const override { return model_.identity; }

 private:
  Expected<std::string> render(const Json& messages) const;
  Request make_request(std::vector<int32_t> prompt_ids);
  Expected<EvalAnswer> collect(const std::string& request_id, std::span<const int32_t> prompt_ids, OutputQueue& queue);

  const EvalModel model_;
  const AnswerOptions options_;
  std::atomic<uint64_t> next_number_{0};
};

Expected<EvalAnswer> EngineAnswers::answer(const EvalPrompt& prompt) {
  const bool is_chat = !prompt.messages.is_null();
  std::string rendered = prompt.text;
  if (is_chat) {
    HADAL_ASSIGN_OR_RETURN(rendered, render(prompt.messages));
  }
  // A chat template writes BOS itself.
  HADAL_ASSIGN_OR_RETURN(
      std::vector<int32_t> ids,
      model_.tokenizer->encode(rendered, {.add_special_tokens = !is_chat && options_.add_bos_token}));
  const auto num_prompt_tokens = static_cast<int64_t>(ids.size());
  if (num_prompt_tokens >= model_.max_model_len) {
    return make_error(ErrorCode::kInvalidArgument, "a prompt of {} tokens leaves no room in the context of {}",
                      num_prompt_tokens, model_.max_model_len);
  }
  Request request = make_request(ids);
  const std::string request_id = request.request_id;
  const auto queue = std::make_shared<OutputQueue>();  // an aborted request may still send its last output
  HADAL_RETURN_IF_ERROR(
      model_.engine->submit(std::move(request), [queue](RequestOutput&& output) { queue->push(std::move(output)); }));
  HADAL_ASSIGN_OR_RETURN(EvalAnswer answer, collect(request_id, ids, *queue));
  if (is_chat) {
    HADAL_ASSIGN_OR_RETURN(const ReasoningMode mode, reasoning_mode(model_.reasoning_parser, false));
    ReasoningDelta parts = parse_reasoning(answer.text, rendered, {.mode = mode});
    answer.text = std::move(parts.content);
    answer.reasoning = std::move(parts.reasoning);
  }
  return answer;
}

Expected<std::string> EngineAnswers::render(const Json& messages) const {
  if (!model_.chat_template) {
    return make_error(ErrorCode::kInvalidArgument, "the model has no chat template: leave out --chat");
  }
  const ChatTemplate& chat_template = *model_.chat_template;
  HADAL_ASSIGN_OR_RETURN(Json normalized, normalize_messages(messages, chat_template));
  HADAL_ASSIGN_OR_RETURN(const Json context, template_context({.messages = std::move(normalized),
                                                               .bos_token = model_.tokenizer->bos_token(),
                                                               .eos_token = model_.tokenizer->eos_token()},
                                                              chat_template));
  return chat_template.render(context);
}

Request EngineAnswers::make_request(std::vector<int32_t> prompt_ids) {
  Request request;
  request.request_id = fmt::format("eval-{}", next_number_.fetch_add(1));
  request.sampling.temperature = 0;
  request.sampling.max_tokens =
      std::min(options_.max_gen_toks, model_.max_model_len - static_cast<int64_t>(prompt_ids.size()));
  request.sampling.stop_token_ids = model_.eos_token_ids;
  request.prompt_ids = std::move(prompt_ids);
  return request;
}

Expected<EvalAnswer> EngineAnswers::collect(const std::string& request_id, std::span<const int32_t> prompt_ids,
                                            OutputQueue& queue) {
  constexpr size_t kPromptTailTokens = 8;  // a character half-written by the prompt lies within
  StreamingDetokenizer detokenizer(*model_.tokenizer, true,
                                   prompt_ids.last(std::min(prompt_ids.size(), kPromptTailTokens)));
  StopMatcher stops(options_.stop);
  EvalAnswer answer{.num_prompt_tokens = static_cast<int64_t>(prompt_ids.size())};
  for (;;) {
    const RequestOutput output = queue.pop();
    for (size_t i = 0; i < output.tokens.size(); ++i) {
      ++answer.num_tokens;
      const bool ends_it = i + 1 == output.tokens.size() && output.stop_token_id >= 0;
      if (!ends_it) answer.text += stops.push(detokenizer.push(output.tokens[i].token_id)).emit;
      if (!stops.stopped()) continue;
      if (output.finish_reason == FinishReason::kNone) model_.engine->abort(request_id);
      answer.finish_reason = "stop";
      return answer;
    }
    switch (output.finish_reason) {
      case FinishReason::kNone:
        continue;
      case FinishReason::kStop:
      case FinishReason::kLength:
        answer.text += stops.push(detokenizer.flush()).emit;
        answer.text += stops.flush();
        answer.finish_reason = output.finish_reason == FinishReason::kLength && !stops.stopped() ? "length" : "stop";
        return answer;
      case FinishReason::kAbort:
        return make_error(ErrorCode::kCancelled, "the engine stopped");
      case FinishReason::kError:
        return make_error(ErrorCode::kInternal, "{}", output.error);
    }
  }
}

}  // namespace

std::unique_ptr<AnswerSource> make_engine_answers(EvalModel model, AnswerOptions options) {
  return std::make_unique<EngineAnswers>(std::move(model), std::move(options));
}

}  // namespace hadal
