// From a chat request's JSON to a running generation: what /v1/chat/completions and the APIs that are translated to it
// (/v1/responses, /v1/messages) have in common. Worker threads.
#pragma once

#include <functional>
#include <memory>

#include "server/answer.h"
#include "server/chat_events.h"
#include "server/prompts.h"
#include "server/router.h"
#include "text/tool_format.h"

namespace hadal {

struct PreparedChat {
  ChatRequest request;
  RenderedConversation rendered;
  PreparedPrompt prompt;                    // its text is the rendered one
  ChatTextOptions text;                     // how the answer is to be read
  const ToolFormat* tool_format = nullptr;  // the model's, where auto tool choice is on
};

// The splitter for chat.text, at the end of the prompt. Errors: 400.
ApiExpected<std::unique_ptr<ChatTextSplitter>> make_splitter(const PreparedChat& chat);

// Checks, renders and tokenises; does not look at the context's length. Errors: 400, 404 (model).
ApiExpected<PreparedChat> prepare_chat(const RouteCall& call, const Json& body);

using ChatAnswerMaker = std::function<ApiExpected<std::unique_ptr<Answer>>(AnswerContext, const PreparedChat&)>;

// Prepares, compiles the grammar if there is one, and starts. Errors, with nothing sent: as prepare_chat, 400 (context
// length, grammar), and make_answer's.
ApiExpected<void> start_chat(const RouteCall& call, const Json& body, const char* id_prefix,
                             const ChatAnswerMaker& make_answer);

// Logs the ignored fields of a request by name, each name once in the life of the process.
void tell_unknown_fields(const GenerationParams& params);

// Facts of the response. `id_prefix`: "chatcmpl-".
AnswerHead make_head(const RouteCall& call, const char* id_prefix, const GenerationParams& params);

// What the engine is held to, or null without a grammar. The reasoning part is the caller's to add.
std::shared_ptr<ConstraintPlan> make_constraint_plan(const RouteCall& call, Grammar grammar);

}  // namespace hadal
