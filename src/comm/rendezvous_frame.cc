#include "comm/rendezvous_frame.h"

#include <cstring>

#include "base/check.h"

namespace hadal {
namespace {

void append_u32(std::string& out, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

uint32_t read_u32(std::string_view bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

bool is_known(uint8_t kind) {
  return (kind >= static_cast<uint8_t>(FrameKind::kHello) && kind <= static_cast<uint8_t>(FrameKind::kGet)) ||
         (kind >= static_cast<uint8_t>(FrameKind::kOk) && kind <= static_cast<uint8_t>(FrameKind::kRefusal));
}

}  // namespace

std::string encode_frame(const Frame& frame) {
  std::string body(1, static_cast<char>(frame.kind));
  HADAL_CHECK(frame.strings.size() <= kMaxFrameStrings, "{} strings in a frame", frame.strings.size());
  for (const std::string& text : frame.strings) {
    append_u32(body, static_cast<uint32_t>(text.size()));
    body += text;
  }
  HADAL_CHECK(body.size() <= kMaxFrameBytes, "a frame of {} bytes", body.size());
  std::string out;
  append_u32(out, static_cast<uint32_t>(body.size()));
  return out + body;
}

Expected<std::optional<Frame>> take_frame(std::string& bytes) {
  if (bytes.size() < 4) return std::nullopt;
  const size_t length = read_u32(bytes);
  if (length < 1 || length > kMaxFrameBytes) {
    return make_error(ErrorCode::kCorrupt, "a frame of {} bytes, at most {} are allowed: not a hadal rank?", length,
                      kMaxFrameBytes);
  }
  if (bytes.size() < 4 + length) return std::nullopt;
  std::string_view body = std::string_view(bytes).substr(4, length);
  if (!is_known(static_cast<uint8_t>(body[0]))) {
    return make_error(ErrorCode::kCorrupt, "a frame of kind {}: the ranks run different versions?",
                      static_cast<int>(static_cast<uint8_t>(body[0])));
  }
  Frame frame{static_cast<FrameKind>(body[0]), {}};
  body.remove_prefix(1);
  while (!body.empty()) {
    if (body.size() < 4 || read_u32(body) > body.size() - 4 || frame.strings.size() >= kMaxFrameStrings) {
      return make_error(ErrorCode::kCorrupt, "a frame whose strings do not fit in it");
    }
    const size_t size = read_u32(body);
    frame.strings.emplace_back(body.substr(4, size));
    body.remove_prefix(4 + size);
  }
  bytes.erase(0, 4 + length);
  return frame;
}

}  // namespace hadal
