#include "formats/message_text.h"

#include "base/utf8.h"

namespace hadal {

std::string quote_name(std::string_view name) {
  constexpr size_t kMaxShownBytes = 200;
  std::string shown = dump_json(Json(to_valid_utf8(name.substr(0, kMaxShownBytes))));
  if (name.size() > kMaxShownBytes) shown += fmt::format("... ({} bytes)", name.size());
  return shown;
}

std::string show_json(const Json& value) {
  constexpr size_t kMaxShownBytes = 80;
  std::string text = dump_json(value);
  if (text.size() > kMaxShownBytes) text = to_valid_utf8(text.substr(0, kMaxShownBytes)) + "...";
  return text;
}

}  // namespace hadal
