// Streams of a server, saved conversations, keys of a terminal and command lines that nobody vouches for.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/utf8.h"
#include "cli/chat_commands.h"
#include "cli/chat_screen.h"
#include "cli/chat_session.h"
#include "cli/chat_stream.h"
#include "cli/line_buffer.h"
#include "cli/line_keys.h"

namespace {

using hadal::ChatStream;

// What is read in one piece and in two is the same.
void read_stream(std::string_view bytes) {
  std::string shown;
  const auto show = [&](ChatStream::Piece, std::string_view text) { shown += text; };
  ChatStream whole({}, show), cut({}, {});
  const bool read = whole.push(bytes, {}).has_value();
  const size_t middle = bytes.size() / 2;
  bool cut_read = cut.push(bytes.substr(0, middle), {}).has_value();
  if (cut_read) cut_read = cut.push(bytes.substr(middle), {}).has_value();
  HADAL_CHECK(read == cut_read);
  HADAL_CHECK(whole.reply().content == cut.reply().content);
  hadal::without_controls(shown);
}

void load_session(std::string_view bytes) {
  const auto json = hadal::parse_json(bytes);
  if (!json) return;
  const auto session = hadal::ChatSession::from_json(*json);
  if (!session) return;
  session->request("m");
  session->to_markdown();
  const auto again = hadal::ChatSession::from_json(session->to_json());
  HADAL_CHECK(again && again->to_json() == session->to_json());
}

void edit_line(std::string_view bytes) {
  const std::vector<std::string> history = {"one", "二\nlines"};
  hadal::KeyDecoder keys;
  hadal::LineBuffer buffer(history);
  keys.push(bytes);
  while (auto press = keys.next()) {
    buffer.apply(*press);
    HADAL_CHECK(buffer.cursor() <= buffer.text().size());
    HADAL_CHECK(hadal::find_invalid_utf8(buffer.text().substr(0, buffer.cursor())) == std::string_view::npos);
  }
  HADAL_CHECK(hadal::find_invalid_utf8(buffer.text()) == std::string_view::npos);
  hadal::position_after(buffer.text(), {}, 20);
}

// No /save and /load: they would touch the disk.
void run_command(std::string_view line) {
  if (!hadal::is_command(line) || line.starts_with("/save") || line.starts_with("/load")) return;
  hadal::ChatContext context;
  hadal::run_command(line, &context);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 's':
      read_stream(bytes);
      break;
    case 'j':
      load_session(bytes);
      break;
    case 'k':
      edit_line(bytes);
      break;
    default:
      run_command(bytes);
  }
  return 0;
}
