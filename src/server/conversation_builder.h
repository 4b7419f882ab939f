// Chat messages made from the items or blocks of another API. No I/O; single-owner.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "server/api_error.h"

namespace hadal {

class ConversationBuilder {
 public:
  void add_text(std::string_view role, std::string text);
  // Belongs to the assistant's text or calls that follow.
  void add_reasoning(std::string text);
  // Belongs to the assistant's text or calls before it.
  void add_call(std::string id, std::string name, std::string arguments);
  void add_result(std::string call_id, std::string text);

  Json take() { return std::exchange(messages_, Json::array()); }

 private:
  Json* assistant_turn();  // the last message if it is the assistant's, else a new one

  Json messages_ = Json::array();
};

// The text of a string or of a list of text parts, joined by newlines. `where` names the value in errors: 400 for
// parts of other types, since the model reads text only.
ApiExpected<std::string> text_of_parts(const Json& content, const std::string& where);

// A string member, "" when absent or null. Errors: 400 for other types.
ApiExpected<std::string> string_member(const Json& object, const char* name, const std::string& where);

}  // namespace hadal
