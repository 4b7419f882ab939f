// Asks an OpenAI-compatible server for chat answers.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "cli/chat_stream.h"
#include "net/http_client.h"

namespace hadal {

struct ServedModel {
  std::string name;
  int64_t max_model_len = 0;  // tokens; 0: the server does not say
};

// Single-owner, except cancel().
class ChatClient {
 public:
  // base_url: with or without "/v1" at its end.
  ChatClient(std::string base_url, std::string api_key);

  // The first model that the server names. Errors: as HttpClient, kUnavailable with the server's message.
  Expected<ServedModel> first_model();

  // Blocks until the answer is whole, or cancel(): then what came so far, its finish_reason "stopped". Errors: as
  // HttpClient and ChatStream; kUnavailable with status and message when the server refuses.
  Expected<ChatReply> ask(const Json& body, const ChatStream::Show& show);

  // From any thread: ends the ask() that runs. False when none does.
  bool cancel();

 private:
  HttpCall call_to(std::string_view path) const;
  Expected<ChatReply> send_and_follow(const Json& body, ChatStream& answer);
  Expected<ChatReply> follow(HttpStream& stream, ChatStream& answer);

  const std::string base_url_;  // without "/v1"
  const std::string api_key_;
  HttpClient client_;
  std::mutex mutex_;
  bool asking_ = false;  // under mutex_, as the rest
  bool cancelled_ = false;
  HttpStream* running_ = nullptr;
};

}  // namespace hadal
