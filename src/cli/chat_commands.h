// The slash commands of `hadal chat`.
#pragma once

#include <string>
#include <string_view>

#include "cli/chat_session.h"

namespace hadal {

struct CommandOutcome {
  enum class Next { kPrompt, kAsk, kQuit };
  Next next = Next::kPrompt;
  std::string text;  // for the user; may be several lines
};

// What a command works on.
struct ChatContext {
  ChatSession session;
  std::string model;                   // name
  int64_t max_model_len = 0;           // tokens; 0: unknown
  std::vector<std::string> own_files;  // saved or loaded in this run: /save may replace them
};

// True for "/save x", false for a path in a question ("/usr/bin is what?" has no command's name).
bool is_command(std::string_view line);

// Runs "/name argument". An unknown name is answered with the nearest one.
CommandOutcome run_command(std::string_view line, ChatContext* context);

// "first token 0.31 s · 12.4 tokens/s · 128 tokens": what is known.
std::string stat_line(const ChatReply& reply);

}  // namespace hadal
