// HTTP answers as an evaluation's client reads them: the result must not depend on how the bytes are cut, and the body
// never exceeds its limit.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "eval/http_answers.h"
#include "net/http_reply.h"

namespace {

constexpr size_t kMaxBody = 1 << 16;

hadal::Expected<hadal::HttpReply> parse(std::string_view bytes, size_t step) {
  hadal::HttpReplyParser parser(kMaxBody);
  for (size_t at = 0; at < bytes.size() && !parser.done(); at += step) {
    HADAL_RETURN_IF_ERROR(parser.push(bytes.substr(at, step)));
  }
  HADAL_RETURN_IF_ERROR(parser.end());
  return parser.take();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto whole = parse(bytes, size + 1), pieces = parse(bytes, 3);
  if (whole.has_value() != pieces.has_value()) std::abort();
  if (!whole) return 0;
  if (whole->body != pieces->body || whole->status != pieces->status || whole->body.size() > kMaxBody) std::abort();
  (void)hadal::parse_completion(whole->body, false);
  (void)hadal::parse_completion(whole->body, true);
  return 0;
}
