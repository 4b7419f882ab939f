#include "cli/config_yaml.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "base/file.h"
#include "base/utf8.h"

namespace hadal {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxEntries = 4096;
constexpr size_t kMaxShownBytes = 80;

int line_of(const YAML::Node& node) { return node.Mark().line + 1; }

std::string shown(const std::string& text) { return text.substr(0, kMaxShownBytes); }

std::string normal_name(const std::string& written) {
  std::string name = written.substr(std::min(written.find_first_not_of('-'), written.size()));
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

Status append_word(const YAML::Node& node, ConfigEntry& entry) {
  if (node.IsScalar()) {
    entry.words.push_back(node.Scalar());
    return {};
  }
  if (node.IsNull()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "line {}: {} has no value. Give one, or leave the line out for the default.", entry.line,
                      shown(entry.name));
  }
  return make_error(ErrorCode::kInvalidArgument,
                    "line {}: the value of {} is nested; expected a word or a list of words. JSON goes in quotes: "
                    "'{{\"temperature\": 0.6}}'.",
                    line_of(node), shown(entry.name));
}

Expected<ConfigEntry> read_entry(const YAML::Node& key, const YAML::Node& value) {
  if (!key.IsScalar()) {
    return make_error(ErrorCode::kInvalidArgument, "line {}: expected the name of an option", line_of(key));
  }
  ConfigEntry entry{
      .name = normal_name(key.Scalar()), .words = {}, .is_list = value.IsSequence(), .line = line_of(key)};
  if (!entry.is_list) {
    HADAL_RETURN_IF_ERROR(append_word(value, entry));
    return entry;
  }
  if (value.size() > kMaxEntries) {
    return make_error(ErrorCode::kInvalidArgument, "line {}: {} has {} values, at most {} are taken", entry.line,
                      shown(entry.name), value.size(), kMaxEntries);
  }
  for (const YAML::Node& item : value) HADAL_RETURN_IF_ERROR(append_word(item, entry));
  return entry;
}

Expected<std::vector<ConfigEntry>> read_document(const YAML::Node& document) {
  std::vector<ConfigEntry> entries;
  if (document.IsNull()) return entries;
  if (!document.IsMap()) {
    return make_error(ErrorCode::kInvalidArgument, "line {}: expected lines of the form 'option: value'",
                      line_of(document));
  }
  if (document.size() > kMaxEntries) {
    return make_error(ErrorCode::kInvalidArgument, "{} options, at most {} are taken", document.size(), kMaxEntries);
  }
  for (const auto& pair : document) {
    HADAL_ASSIGN_OR_RETURN(ConfigEntry entry, read_entry(pair.first, pair.second));
    for (const ConfigEntry& before : entries) {
      if (before.name != entry.name) continue;
      return make_error(ErrorCode::kInvalidArgument, "line {}: {} stands in line {} already", entry.line,
                        shown(entry.name), before.line);
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace

Expected<std::vector<ConfigEntry>> parse_config_yaml(std::string_view text) {
  if (text.size() > kMaxFileBytes) {
    return make_error(ErrorCode::kInvalidArgument, "{} bytes, at most {} are taken", text.size(), kMaxFileBytes);
  }
  if (text.find('\0') != std::string_view::npos || find_invalid_utf8(text) != std::string_view::npos) {
    return make_error(ErrorCode::kInvalidArgument, "the text is not UTF-8");
  }
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.empty()) return std::vector<ConfigEntry>{};
    if (documents.size() > 1) {
      return make_error(ErrorCode::kInvalidArgument, "{} YAML documents, expected one", documents.size());
    }
    return read_document(documents.front());
  } catch (const YAML::Exception& error) {
    return make_error(ErrorCode::kInvalidArgument, "line {}: {}", error.mark.line + 1, error.msg);
  }
}

Expected<std::vector<ConfigEntry>> read_config_yaml(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxFileBytes));
  auto entries = parse_config_yaml(text);
  if (!entries) return forward_error(std::move(entries), path.string());
  return entries;
}

}  // namespace hadal
