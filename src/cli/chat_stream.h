// A streamed answer of /v1/chat/completions: bytes of server-sent events in, one growing reply out. No sockets here.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "net/sse.h"

namespace hadal {

struct ChatToolCall {
  std::string id, name;
  std::string arguments;  // JSON text
};

struct ChatReply {
  std::string reasoning, content;
  std::vector<ChatToolCall> tool_calls;
  std::string finish_reason;  // OpenAI's, or "stopped" when the user did; empty: none yet
  int64_t num_prompt_tokens = 0;
  int64_t num_tokens = 0;         // of the answer, thoughts included; until the server has counted: pieces
  std::optional<double> first_s;  // from asking to the first piece
  double decode_s = 0;            // from the first piece to the last

  bool empty() const { return reasoning.empty() && content.empty() && tool_calls.empty(); }
  // Tokens after the first by the time they took; nothing where that is too short to say.
  std::optional<double> tokens_per_s() const;
};

// Single-owner.
class ChatStream {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class Piece { kReasoning, kContent, kToolCall };
  // Told of every piece of text as it comes; of a tool call its name, then its arguments.
  using Show = std::function<void(Piece, std::string_view)>;

  ChatStream(Time asked, Show show) : asked_(asked), show_(std::move(show)) {}

  // Takes the next bytes of the body. Errors: kCorrupt (no JSON, not a chat answer), kUnavailable with the server's
  // message (it gave up); take nothing more then.
  Status push(std::string_view bytes, Time when);
  bool done() const { return done_; }  // the stream said so; what follows is ignored
  const ChatReply& reply() const { return reply_; }

 private:
  Status take_event(const Json& event, Time when);
  void take_delta(const Json& delta, Time when);
  Status take_tool_call(const Json& part);
  void add(std::string* to, Piece piece, const Json& text);

  const Time asked_;
  const Show show_;
  SseParser events_;
  ChatReply reply_;
  Time first_;
  bool done_ = false;
  bool counted_ = false;  // the server said how many tokens
};

// The message of an error body in OpenAI's shape; its first characters where it has another.
std::string error_message_of(std::string_view body);

}  // namespace hadal
