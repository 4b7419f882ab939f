#include "server/chat_start.h"

#include <algorithm>
#include <ctime>
#include <mutex>
#include <set>

#include "base/log.h"
#include "base/utf8.h"
#include "server/generation.h"
#include "server/routes.h"
#include "server/structured_output.h"

namespace hadal {
namespace {

ApiExpected<const ToolFormat*> model_tool_format(const RouteCall& call) {
  const ServerOptions& options = call.state->options;
  if (!options.enable_auto_tool_choice) return nullptr;
  const ServingContext& serving = *call.serving;
  auto format = choose_tool_format(options.tool_call_parser, serving.tokenizer.get(),
                                   serving.chat_template ? serving.chat_template->source() : "");
  if (!format) return tl::unexpected(to_api_error(format.error()));
  return *format;
}

ApiError no_auto_tools(const ServerOptions& options) {
  const bool is_on = options.enable_auto_tool_choice && options.tool_call_parser != "none";
  return bad_request("tool_choice",
                     "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set{}",
                     is_on ? ": no tool call format is known for this model" : "");
}

ApiError two_grammars(const StructuredOutput& output) {
  return bad_request("tool_choice",
                     "You can only use one kind of guided decoding: {} or a tool that must be called, not both",
                     output.field);
}

// A forced call leaves response_format without an object, as at OpenAI; the other fields contradict it.
bool contradicts_forced_call(const ToolUse& tool_use, const StructuredOutput& output) {
  const bool is_forced = tool_use.choice == ToolUse::Choice::kRequired || tool_use.choice == ToolUse::Choice::kNamed;
  return is_forced && output.kind != StructuredOutput::Kind::kNone && !output.field.starts_with("response_format");
}

int64_t num_calls_in(const Json& messages) {
  int64_t num_calls = 0;
  for (const Json& message : messages) {
    if (!message.is_object()) continue;
    const auto calls = message.find("tool_calls");
    if (calls != message.end() && calls->is_array()) num_calls += static_cast<int64_t>(calls->size());
  }
  return num_calls;
}

ChatTextOptions text_options(const ServerOptions& options, const ChatRequest& request, bool thinking,
                             const ToolFormat* format) {
  ChatTextOptions text{.reasoning_parser = options.reasoning_parser,
                       .thinking = thinking,
                       .tool_parser = format ? std::string(format->name) : "",
                       .tool_names = {}};
  switch (request.tool_use.choice) {
    case ToolUse::Choice::kNone:
      break;
    case ToolUse::Choice::kAuto:
      text.calls = ChatTextOptions::Calls::kParsed;
      break;
    case ToolUse::Choice::kRequired:
      text.calls = ChatTextOptions::Calls::kRequired;
      break;
    case ToolUse::Choice::kNamed:
      text.calls = ChatTextOptions::Calls::kNamed;
      text.named_tool = request.tool_use.named_tool;
      break;
  }
  for (const Json& tool : request.conversation.tools) text.tool_names.push_back(tool["function"]["name"]);
  text.single_call = !request.tool_use.parallel;
  text.first_call_number = num_calls_in(request.conversation.messages);
  return text;
}

// The special tokens among the markers that are read from the text.
std::vector<int32_t> marker_ids(const Tokenizer& tokenizer, const ChatTextOptions& text, const ToolFormat* format) {
  std::vector<std::string_view> markers;
  if (text.reasoning_parser != "none") markers = {"<think>", "</think>"};
  if (format != nullptr && text.calls == ChatTextOptions::Calls::kParsed) {
    for (const std::string_view marker : tool_markers(*format)) markers.push_back(marker);
  }
  std::vector<int32_t> ids;
  for (const std::string_view marker : markers) {
    const auto id = tokenizer.token_id(marker);
    if (id && tokenizer.is_special(*id)) ids.push_back(*id);
  }
  return ids;
}

ApiExpected<Grammar> chat_grammar(GrammarCache& grammars, const PreparedChat& chat) {
  auto forced = grammars.tool_use(chat.request.tool_use, chat.request.conversation.tools, chat.tool_format);
  if (!forced) return forced;
  const bool is_auto = chat.request.tool_use.choice == ToolUse::Choice::kAuto;
  auto asked = *forced && !is_auto ? ApiExpected<Grammar>(nullptr)
                                   : grammars.structured_output(chat.request.params.structured_output);
  if (!asked || *asked) return asked;
  return forced;
}

ApiExpected<std::shared_ptr<ConstraintPlan>> chat_constraint(const RouteCall& call, const PreparedChat& chat) {
  auto grammar = chat_grammar(call.state->grammars, chat);
  if (!grammar) return tl::unexpected(grammar.error());
  auto plan = make_constraint_plan(call, std::move(*grammar));
  if (!plan) return plan;
  auto reasoning = reasoning_options(chat.text, chat.tool_format);
  if (!reasoning) return tl::unexpected(reasoning.error());
  plan->reasoning = std::move(*reasoning);
  return plan;
}

}  // namespace

AnswerHead make_head(const RouteCall& call, const char* id_prefix, const GenerationParams& params) {
  const HttpRequest& request = call.exchange->request();
  std::string id(request.header("X-Request-Id"));
  if (id.empty()) id = params.request_id;
  if (id.empty()) id = std::string(request.header(kMadeRequestId));
  return {.id = id_prefix + id,
          .request_id = id,
          .model = params.model.empty() ? call.state->options.served_model_names.front() : params.model,
          .created = static_cast<int64_t>(std::time(nullptr))};
}

std::shared_ptr<ConstraintPlan> make_constraint_plan(const RouteCall& call, Grammar grammar) {
  if (!grammar) return nullptr;
  auto plan = std::make_shared<ConstraintPlan>();
  plan->grammar = std::move(grammar);
  plan->vocabulary = call.state->grammar_vocabulary.get(call.serving->tokenizer);
  plan->tokenizer = call.serving->tokenizer;
  plan->eos_token_ids = call.serving->facts.eos_token_ids;
  return plan;
}

void tell_unknown_fields(const GenerationParams& params) {
  constexpr size_t kMaxNames = 256, kMaxNameBytes = 64;
  static std::mutex mutex;
  static std::set<std::string> told;
  for (const std::string& field : params.unknown_fields) {
    const std::string name = to_valid_utf8(field.substr(0, kMaxNameBytes));
    const std::lock_guard lock(mutex);
    if (told.size() < kMaxNames && told.insert(name).second) {
      log_warning("requests carry the field {}, which this server does not know and ignores", dump_json(name));
    }
  }
}

ApiExpected<std::unique_ptr<ChatTextSplitter>> make_splitter(const PreparedChat& chat) {
  return ChatTextSplitter::make(chat.text, chat.rendered.text);
}

ApiExpected<PreparedChat> prepare_chat(const RouteCall& call, const Json& body) {
  const ServingContext& serving = *call.serving;
  const ServerOptions& options = call.state->options;
  auto request = parse_chat_request(body, call.state->protocol_options(serving));
  if (!request) return tl::unexpected(request.error());
  GenerationParams& params = request->params;
  if (contradicts_forced_call(request->tool_use, params.structured_output)) {
    return tl::unexpected(two_grammars(params.structured_output));
  }
  if (const auto error = unknown_model(call, params.model)) return tl::unexpected(*error);
  tell_unknown_fields(params);
  const auto format = model_tool_format(call);
  if (!format) return tl::unexpected(format.error());
  if (request->tool_use.choice == ToolUse::Choice::kAuto && *format == nullptr) {
    return tl::unexpected(no_auto_tools(options));
  }
  auto rendered = render_conversation(serving, request->conversation);
  if (!rendered) return tl::unexpected(rendered.error());
  ChatTextOptions text = text_options(options, *request, rendered->thinking, *format);
  params.shown_special_ids = marker_ids(*serving.tokenizer, text, *format);
  auto prompt = prepare_prompt(serving, {.text = rendered->text}, params);
  if (!prompt) return tl::unexpected(prompt.error());
  prompt->text = rendered->text;
  return PreparedChat{std::move(*request), std::move(*rendered), std::move(*prompt), std::move(text), *format};
}

ApiExpected<void> start_chat(const RouteCall& call, const Json& body, const char* id_prefix,
                             const ChatAnswerMaker& make_answer) {
  auto chat = prepare_chat(call, body);
  if (!chat) return tl::unexpected(chat.error());
  const GenerationParams& params = chat->request.params;
  auto sampling = complete_sampling(*call.serving, params, static_cast<int64_t>(chat->prompt.ids.size()));
  if (!sampling) return tl::unexpected(sampling.error());
  auto constraint = chat_constraint(call, *chat);
  if (!constraint) return tl::unexpected(constraint.error());
  auto answer = make_answer(
      {call.exchange, call.serving, make_head(call, id_prefix, params), params, {chat->prompt}, std::move(*constraint)},
      *chat);
  if (!answer) return tl::unexpected(answer.error());
  std::make_shared<Generation>(call.state, std::move(*answer), std::vector{std::move(*sampling)})->start();
  return {};
}

}  // namespace hadal
