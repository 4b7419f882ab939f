// A template, optionally a NUL byte and a JSON context: parsing and rendering must end, within bounds, in valid UTF-8.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/utf8.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hadal;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const auto parsed = ChatTemplate::parse(std::string(input.substr(0, end)));
  if (!parsed) return 0;
  Json context = {{"messages", Json::array({{{"role", "user"}, {"content", "é"}}})}, {"add_generation_prompt", true}};
  if (end != std::string_view::npos) {
    auto given = parse_json(input.substr(end + 1), {.max_bytes = 1 << 16, .max_depth = 32});
    if (given && given->is_object()) context = std::move(*given);
  }
  const ChatTemplate::Limits limits = {.max_output_bytes = 1 << 16, .max_steps = 20'000, .max_copied_bytes = 1 << 20};
  const auto text = parsed->render(context, limits, std::time_t{0});
  if (text && find_invalid_utf8(*text) != std::string::npos) std::abort();
  return 0;
}
