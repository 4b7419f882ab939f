#include "formats/tiktoken.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <unordered_set>

namespace hadal {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 22;
constexpr size_t kMaxTokenBytes = 4096;

constexpr std::array<int8_t, 256> make_base64_values() {
  std::array<int8_t, 256> values{};
  values.fill(-1);
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kDigits.size(); ++i) values[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
  return values;
}
constexpr auto kBase64Values = make_base64_values();

// Canonical, padded base64; nothing for anything else.
std::optional<std::string> decode_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const size_t num_padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  int num_bits = 0;
  for (const char c : text.substr(0, text.size() - num_padding)) {
    const int8_t value = kBase64Values[static_cast<uint8_t>(c)];
    if (value < 0) return std::nullopt;
    bits = (bits << 6) | static_cast<uint32_t>(value);
    num_bits += 6;
    if (num_bits >= 8) {
      num_bits -= 8;
      bytes.push_back(static_cast<char>((bits >> num_bits) & 0xFF));
    }
  }
  if ((bits & ((1u << num_bits) - 1)) != 0) return std::nullopt;
  return bytes;
}

Expected<std::pair<std::string, size_t>> parse_line(std::string_view line) {
  const size_t blank = line.find(' ');
  if (blank == std::string_view::npos) return make_error(ErrorCode::kCorrupt, "expected \"base64 rank\"");
  if (blank > kMaxTokenBytes / 3 * 4) return make_error(ErrorCode::kCorrupt, "token over {} bytes", kMaxTokenBytes);
  auto bytes = decode_base64(line.substr(0, blank));
  if (!bytes) return make_error(ErrorCode::kCorrupt, "\"{}\" is not base64", line.substr(0, blank));
  const std::string_view digits = line.substr(blank + 1);
  size_t rank = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  if (error != std::errc() || end != digits.data() + digits.size() || rank >= kMaxTokens) {
    return make_error(ErrorCode::kCorrupt, "\"{}\" is not a rank of 0 to {}", digits.substr(0, 20), kMaxTokens - 1);
  }
  return std::pair(std::move(*bytes), rank);
}

Status check_complete(const TiktokenModel& model, size_t num_lines) {
  std::unordered_set<std::string_view> seen;
  seen.reserve(model.tokens.size());
  for (size_t rank = 0; rank < model.tokens.size(); ++rank) {
    if (model.tokens[rank].empty()) {
      return make_error(ErrorCode::kCorrupt, "rank {} is missing, {} tokens were read", rank, num_lines);
    }
    if (!seen.insert(model.tokens[rank]).second) {
      return make_error(ErrorCode::kCorrupt, "the token of rank {} has another rank, too", rank);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (!seen.contains(std::string(1, static_cast<char>(byte)))) {
      return make_error(ErrorCode::kCorrupt, "byte 0x{:02x} has no token: some text could not be encoded", byte);
    }
  }
  return {};
}

}  // namespace

Expected<TiktokenModel> parse_tiktoken(std::string_view text) {
  TiktokenModel model;
  // The shortest line is "AA== 0\n": memory stays proportional to the file.
  const size_t max_tokens = text.size() / 6 + 1;
  size_t line_number = 0, num_tokens = 0;
  while (!text.empty()) {
    ++line_number;
    const size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    auto entry = parse_line(line);
    if (!entry) return forward_error(std::move(entry), fmt::format("line {}", line_number));
    auto& [bytes, rank] = *entry;
    if (rank >= max_tokens) {
      return make_error(ErrorCode::kCorrupt, "line {}: rank {} in a file of at most {} lines", line_number, rank,
                        max_tokens);
    }
    if (model.tokens.size() <= rank) model.tokens.resize(rank + 1);
    if (!model.tokens[rank].empty()) {
      return make_error(ErrorCode::kCorrupt, "line {}: rank {} was given before", line_number, rank);
    }
    model.tokens[rank] = std::move(bytes);
    ++num_tokens;
  }
  HADAL_RETURN_IF_ERROR(check_complete(model, num_tokens));
  return model;
}

}  // namespace hadal
