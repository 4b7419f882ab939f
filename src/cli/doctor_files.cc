#include "cli/doctor_files.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <system_error>

namespace hadal {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxBytes = 64 << 10;

std::optional<int64_t> parse_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::string> read_line_file(const fs::path& path) {
  std::ifstream in(path);  // such files report size 0
  if (!in) return std::nullopt;
  std::string text(kMaxBytes, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  text.erase(text.find_last_not_of(" \t\n") + 1);
  return text;
}

std::optional<int64_t> read_number(const fs::path& path) {
  const auto text = read_line_file(path);
  return text ? parse_number(*text) : std::nullopt;
}

std::string selected_word(std::string_view choices) {
  const size_t begin = choices.find('[');
  const size_t end = choices.find(']', begin == std::string_view::npos ? 0 : begin);
  if (begin == std::string_view::npos || end == std::string_view::npos) return "";
  return std::string(choices.substr(begin + 1, end - begin - 1));
}

std::vector<fs::path> numbered_entries(const fs::path& folder, std::string_view prefix) {
  std::vector<std::pair<int64_t, fs::path>> found;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix) || name.size() == prefix.size()) continue;
    const std::string_view rest = std::string_view(name).substr(prefix.size());
    if (!std::all_of(rest.begin(), rest.end(), [](char c) { return c >= '0' && c <= '9'; })) continue;
    if (const auto number = parse_number(rest)) found.emplace_back(*number, entry->path());
  }
  std::sort(found.begin(), found.end());
  std::vector<fs::path> paths;
  for (auto& [number, path] : found) paths.push_back(std::move(path));
  return paths;
}

std::optional<int64_t> number_after(std::string_view text, std::string_view key) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    if (line.starts_with(key)) {
      line.remove_prefix(key.size());
      line.remove_prefix(std::min(line.find_first_not_of(": \t"), line.size()));
      return parse_number(line);
    }
    begin = end + 1;
  }
  return std::nullopt;
}

bool has_program(const fs::path& root, std::string_view name) {
  std::error_code ignored;
  for (const char* folder : {"usr/bin", "usr/local/bin", "bin", "usr/sbin"}) {
    if (fs::exists(root / folder / name, ignored)) return true;
  }
  return false;
}

}  // namespace hadal
