// One choice's text to what a chat client sees: reasoning, content and tool calls, in order, while it streams.
// Independent of how the text is cut: joined events are equal for every splitting. Shared by the chat, Responses and
// Messages answers. Single-owner, no I/O.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "server/api_error.h"
#include "text/reasoning_parser.h"
#include "text/tool_format.h"

namespace hadal {

struct ChatEvent {
  enum class Kind {
    kReasoning,
    kContent,
    kCallBegin,      // id and name
    kCallArguments,  // text: the next piece of the arguments
    kCallEnd,        // arguments are whole and valid JSON
    // Cut or no valid JSON; text: the whole call as the model wrote it, markers included, and the section's begin
    // before its first call. A call without a header is content.
    kCallBroken,
  };
  Kind kind = Kind::kContent;
  std::string text;
  int32_t call_index = -1;  // of this choice, from 0
  std::string call_id;      // kCallBegin; kimi_k2: as the model wrote it, else "chatcmpl-tool-<32 hex>"
  std::string call_name;    // kCallBegin
};

// What the answer's text is made of, decided per request.
struct ChatTextOptions {
  std::string reasoning_parser;  // name, as in ServerOptions
  bool thinking = false;         // chat_template_kwargs' switch
  std::string tool_parser;       // name of a ToolFormat; "": calls are not parsed
  std::vector<std::string> tool_names;
  // tool_choice: kNamed, the content is the arguments of `named_tool`; kRequired, it is a list of {name, parameters}.
  enum class Calls { kNone, kParsed, kNamed, kRequired } calls = Calls::kNone;
  std::string named_tool;
  bool single_call = false;       // parallel_tool_calls false: later calls are dropped, though counted
  int64_t first_call_number = 0;  // kimi_k2 numbers calls over the whole conversation
};

// Where the reasoning of such an answer ends: the splitter and the grammar must agree. `format`: the calls', or null.
// Errors: 400 (unknown parser name).
ApiExpected<ReasoningOptions> reasoning_options(const ChatTextOptions& options, const ToolFormat* format);

class ChatTextSplitter {
 public:
  // Errors: 400 (unknown parser name).
  static ApiExpected<std::unique_ptr<ChatTextSplitter>> make(const ChatTextOptions& options,
                                                             std::string_view prompt_tail);
  virtual ~ChatTextSplitter() = default;

  virtual std::vector<ChatEvent> push(std::string_view text) = 0;
  virtual std::vector<ChatEvent> flush() = 0;  // at the end of the answer
  virtual bool in_reasoning() const = 0;
  virtual bool saw_reasoning() const = 0;
};

}  // namespace hadal
