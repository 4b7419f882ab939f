#include "formats/tokenizer_config.h"

#include <algorithm>
#include <charconv>

#include "base/json.h"

namespace hadal {
namespace {

constexpr JsonLimits kLimits = {
    .max_bytes = size_t{16} << 20, .max_depth = 32, .max_values = 1'000'000, .refuse_duplicate_keys = true};
constexpr int64_t kMaxModelLength = int64_t{1} << 40;

const Json* find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Status read_bool(const Json& object, const char* key, std::optional<bool>& out) {
  const Json* value = find(object, key);
  if (!value) return {};
  if (!value->is_boolean()) return make_error(ErrorCode::kCorrupt, "{} is not a boolean", key);
  out = value->get<bool>();
  return {};
}

Status read_token(const Json& root, const char* key, std::optional<std::string>& out) {
  const Json* value = find(root, key);
  if (!value) return {};
  if (value->is_object()) value = find(*value, "content");
  if (!value || !value->is_string()) {
    return make_error(ErrorCode::kCorrupt, "{} is neither a string nor an object with a content string", key);
  }
  out = value->get<std::string>();
  return {};
}

Status read_max_length(const Json& root, int64_t& out) {
  const Json* value = find(root, "model_max_length");
  if (!value) return {};
  if (!value->is_number()) return make_error(ErrorCode::kCorrupt, "model_max_length is not a number");
  const double length = value->get<double>();
  if (!(length >= 1)) return make_error(ErrorCode::kCorrupt, "model_max_length is {}", dump_json(*value));
  out = length < double{kMaxModelLength} ? static_cast<int64_t>(length) : 0;
  return {};
}

Status read_chat_templates(const Json& root, std::vector<NamedChatTemplate>& out) {
  const Json* value = find(root, "chat_template");
  if (!value) return {};
  if (value->is_string()) {
    out.push_back({"default", value->get<std::string>()});
    return {};
  }
  if (!value->is_array()) return make_error(ErrorCode::kCorrupt, "chat_template is neither a string nor a list");
  for (const Json& entry : *value) {
    const Json* name = entry.is_object() ? find(entry, "name") : nullptr;
    const Json* source = entry.is_object() ? find(entry, "template") : nullptr;
    if (!name || !name->is_string() || !source || !source->is_string()) {
      return make_error(ErrorCode::kCorrupt, "chat_template[{}] needs the strings name and template", out.size());
    }
    out.push_back({name->get<std::string>(), source->get<std::string>()});
  }
  return {};
}

Status read_added_token(const std::string& key, const Json& entry, std::vector<AddedTokenJson>& out) {
  AddedTokenJson token;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
  if (error != std::errc() || end != key.data() + key.size() || token.id < 0) {
    return make_error(ErrorCode::kCorrupt, "added_tokens_decoder: \"{}\" is not a token id", key);
  }
  const Json* content = entry.is_object() ? find(entry, "content") : nullptr;
  if (!content || !content->is_string() || content->get_ref<const std::string&>().empty()) {
    return make_error(ErrorCode::kCorrupt, "added_tokens_decoder[{}] needs a content string", key);
  }
  token.content = content->get<std::string>();
  const std::pair<const char*, bool*> flags[] = {{"special", &token.special},
                                                 {"normalized", &token.normalized},
                                                 {"single_word", &token.single_word},
                                                 {"lstrip", &token.lstrip},
                                                 {"rstrip", &token.rstrip}};
  for (const auto& [name, target] : flags) {
    std::optional<bool> value;
    HADAL_RETURN_IF_ERROR(read_bool(entry, name, value));
    *target = value.value_or(false);
  }
  out.push_back(std::move(token));
  return {};
}

Status read_added_tokens(const Json& root, std::vector<AddedTokenJson>& out) {
  const Json* value = find(root, "added_tokens_decoder");
  if (!value) return {};
  if (!value->is_object()) return make_error(ErrorCode::kCorrupt, "added_tokens_decoder is not an object");
  for (auto item = value->begin(); item != value->end(); ++item) {
    HADAL_RETURN_IF_ERROR(read_added_token(item.key(), item.value(), out));
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  const auto same_id = [](const auto& a, const auto& b) { return a.id == b.id; };
  const auto twice = std::adjacent_find(out.begin(), out.end(), same_id);
  if (twice != out.end()) return make_error(ErrorCode::kCorrupt, "added_tokens_decoder has id {} twice", twice->id);
  return {};
}

}  // namespace

Expected<TokenizerConfig> parse_tokenizer_config(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(const Json root, parse_json(text, kLimits));
  if (!root.is_object()) return make_error(ErrorCode::kCorrupt, "not a JSON object");
  TokenizerConfig config;
  HADAL_RETURN_IF_ERROR(read_bool(root, "add_bos_token", config.add_bos_token));
  HADAL_RETURN_IF_ERROR(read_bool(root, "add_eos_token", config.add_eos_token));
  HADAL_RETURN_IF_ERROR(read_token(root, "bos_token", config.bos_token));
  HADAL_RETURN_IF_ERROR(read_token(root, "eos_token", config.eos_token));
  HADAL_RETURN_IF_ERROR(read_token(root, "pad_token", config.pad_token));
  HADAL_RETURN_IF_ERROR(read_token(root, "unk_token", config.unk_token));
  HADAL_RETURN_IF_ERROR(read_max_length(root, config.model_max_length));
  HADAL_RETURN_IF_ERROR(read_chat_templates(root, config.chat_templates));
  HADAL_RETURN_IF_ERROR(read_added_tokens(root, config.added_tokens));
  return config;
}

}  // namespace hadal
