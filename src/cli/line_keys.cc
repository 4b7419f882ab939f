#include "cli/line_keys.h"

#include <algorithm>

#include "base/utf8.h"

namespace hadal {
namespace {

constexpr std::string_view kPasteBegin = "\x1b[200~";
constexpr std::string_view kPasteEnd = "\x1b[201~";
constexpr size_t kMaxSequenceBytes = 32;
constexpr size_t kMaxPasteBytes = size_t{16} << 20;

struct NamedKey {
  std::string_view bytes;
  Key key;
};

constexpr NamedKey kControls[] = {
    {"\r", Key::kEnter},  {"\n", Key::kEnter},   {"\x7f", Key::kBackspace},    {"\x08", Key::kBackspace},
    {"\x01", Key::kHome}, {"\x02", Key::kLeft},  {"\x03", Key::kInterrupt},    {"\x04", Key::kEndOfFile},
    {"\x05", Key::kEnd},  {"\x06", Key::kRight}, {"\x0b", Key::kEraseToEnd},   {"\x0c", Key::kClearScreen},
    {"\x0e", Key::kDown}, {"\x10", Key::kUp},    {"\x15", Key::kEraseToStart}, {"\x17", Key::kEraseWord}};

// After ESC.
constexpr NamedKey kSequences[] = {
    {"[A", Key::kUp},          {"[B", Key::kDown},         {"[C", Key::kRight},       {"[D", Key::kLeft},
    {"OA", Key::kUp},          {"OB", Key::kDown},         {"OC", Key::kRight},       {"OD", Key::kLeft},
    {"[H", Key::kHome},        {"[F", Key::kEnd},          {"OH", Key::kHome},        {"OF", Key::kEnd},
    {"[1~", Key::kHome},       {"[4~", Key::kEnd},         {"[7~", Key::kHome},       {"[8~", Key::kEnd},
    {"[3~", Key::kDelete},     {"[1;5C", Key::kWordRight}, {"[1;5D", Key::kWordLeft}, {"[1;3C", Key::kWordRight},
    {"[1;3D", Key::kWordLeft}, {"b", Key::kWordLeft},      {"f", Key::kWordRight},    {"\r", Key::kNewLine},
    {"\n", Key::kNewLine},     {"\x7f", Key::kEraseWord}};

// Line ends of all kinds to '\n', tabs kept, other control characters dropped.
std::string clean_paste(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\r') {
      if (i + 1 < text.size() && text[i + 1] == '\n') continue;
      out += '\n';
    } else if (c == '\n' || c == '\t' || static_cast<unsigned char>(c) >= 0x20) {
      if (c != '\x7f') out += c;
    }
  }
  return to_valid_utf8(out);
}

}  // namespace

std::optional<KeyPress> KeyDecoder::next() {
  while (!pending_.empty()) {
    KeyPress press{};
    const Step done = step(&press);
    if (done == Step::kKey) return press;
    if (done == Step::kIncomplete) return std::nullopt;
  }
  return std::nullopt;
}

KeyDecoder::Step KeyDecoder::step(KeyPress* press) {
  if (pending_[0] == '\x1b') return step_escape(press);
  for (const NamedKey& control : kControls) {
    if (pending_.compare(0, control.bytes.size(), control.bytes) != 0) continue;
    press->key = control.key;
    pending_.erase(0, control.bytes.size());
    return Step::kKey;
  }
  const Utf8Step decoded = decode_utf8(pending_);
  if (decoded.kind == Utf8Step::kIncomplete) return Step::kIncomplete;
  const bool is_text = decoded.kind == Utf8Step::kValid && decoded.code_point >= 0x20 &&
                       (decoded.code_point < 0x7F || decoded.code_point > 0x9F);
  if (is_text) *press = {Key::kText, pending_.substr(0, decoded.num_bytes)};
  pending_.erase(0, decoded.num_bytes);
  return is_text ? Step::kKey : Step::kDropped;
}

KeyDecoder::Step KeyDecoder::step_escape(KeyPress* press) {
  if (pending_.size() < 2) return Step::kIncomplete;
  if (pending_[1] == '[' || pending_[1] == 'O') return step_sequence(press);
  for (const NamedKey& sequence : kSequences) {
    if (sequence.bytes.size() != 1 || pending_[1] != sequence.bytes[0]) continue;
    press->key = sequence.key;
    pending_.erase(0, 2);
    return Step::kKey;
  }
  pending_.erase(0, 1);  // a lone Escape
  return Step::kDropped;
}

KeyDecoder::Step KeyDecoder::step_sequence(KeyPress* press) {
  if (pending_.compare(0, kPasteBegin.size(), kPasteBegin) == 0) return step_paste(kPasteBegin.size(), press);
  size_t end = 2;  // of the final byte
  if (pending_[1] == '[') {
    while (end < pending_.size() && (pending_[end] < '@' || pending_[end] > '~')) ++end;
  }
  if (end >= pending_.size()) {
    if (pending_.size() < kMaxSequenceBytes) return Step::kIncomplete;
    pending_.erase(0, 1);
    return Step::kDropped;
  }
  const std::string bytes = pending_.substr(1, end);
  pending_.erase(0, end + 1);
  for (const NamedKey& sequence : kSequences) {
    if (bytes != sequence.bytes) continue;
    press->key = sequence.key;
    return Step::kKey;
  }
  return Step::kDropped;
}

KeyDecoder::Step KeyDecoder::step_paste(size_t begin, KeyPress* press) {
  const size_t end = pending_.find(kPasteEnd, begin);
  if (end == std::string::npos) {
    if (pending_.size() < kMaxPasteBytes) return Step::kIncomplete;
    pending_.erase(0, begin);  // what came is then typed
    return Step::kDropped;
  }
  *press = {Key::kText, clean_paste(std::string_view(pending_).substr(begin, end - begin))};
  pending_.erase(0, end + kPasteEnd.size());
  return press->text.empty() ? Step::kDropped : Step::kKey;
}

}  // namespace hadal
