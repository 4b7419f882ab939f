// The requests of /v1/responses and /v1/messages: no body crashes their translation, and what comes out is taken or
// refused by the chat parser like any other request.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/messages_request.h"
#include "server/protocol.h"
#include "server/responses_request.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_chat(const hadal::Json& chat) {
  require(chat.is_object() && chat["messages"].is_array());
  for (const hadal::Json& message : chat["messages"]) {
    require(message["role"].is_string() && (message["content"].is_string() || message["content"].is_null()));
  }
  (void)hadal::parse_chat_request(chat, {});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 65536) return 0;
  const auto body = hadal::parse_body({reinterpret_cast<const char*>(data), size});
  if (!body) return 0;
  if (const auto request = hadal::parse_responses_request(*body)) {
    require(request->echo.is_object());
    check_chat(hadal::chat_request_of(*request, hadal::Json::array()));
  }
  for (const bool count_only : {false, true}) {
    if (const auto chat = hadal::chat_request_of_messages(*body, count_only)) check_chat(*chat);
  }
  return 0;
}
