// One conversation of `hadal chat`: messages, system prompt, settings; what is sent, what is saved. No I/O but save and
// load.
//
// A saved file is JSON: {"hadal_chat": 1, "system": "", "thinking": null, "settings": {"temperature": 0.6},
// "messages": [{"role": "user", "content": ".."}, {"role": "assistant", "content": "..", "reasoning_content": ".."}]}.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "cli/chat_stream.h"

namespace hadal {

inline constexpr int kChatFileVersion = 1;
inline constexpr uint64_t kMaxChatFileBytes = uint64_t{64} << 20;

// A number that goes into the request under its own name.
struct ChatSetting {
  const char* name;
  double least, most;
  bool is_whole;
};
const std::vector<ChatSetting>& chat_settings();

struct ChatSession {
  std::string system;                              // "": none
  std::optional<bool> thinking;                    // none: as the model
  Json settings = Json::object();                  // name -> number
  Json messages = Json::array();                   // roles user and assistant alternate, the user begins
  ChatReply last;                                  // of this run
  int64_t num_answers = 0, num_answer_tokens = 0;  // of this run

  // Errors: kInvalidArgument: no such setting (names the nearest), no number, out of range. "default" takes it back.
  Status set(const std::string& name, const std::string& value);

  // Takes the place of a question that got no answer.
  void add_question(std::string text);
  void add_answer(const ChatReply& reply);
  // Takes the last answer back so that its question can be asked again. Errors: kNotFound (nothing was asked).
  Status drop_last_answer();
  void clear();  // messages only

  Json request(const std::string& model) const;

  Json to_json() const;
  // Errors: kCorrupt naming the field.
  static Expected<ChatSession> from_json(const Json& json);
  // For people: what was said, thoughts quoted.
  std::string to_markdown() const;
};

// JSON, or Markdown for names that end in .md. Errors: kIo.
Status save_chat(const ChatSession& session, const std::filesystem::path& path);
// Errors: kIo, kCorrupt, naming the file.
Expected<ChatSession> load_chat(const std::filesystem::path& path);

}  // namespace hadal
