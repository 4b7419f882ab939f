#include "formats/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>

#include "base/json.h"

namespace hadal {
namespace {

constexpr JsonLimits kLimits = {
    .max_bytes = size_t{128} << 20, .max_depth = 16, .max_values = 16'000'000, .refuse_duplicate_keys = true};
constexpr size_t kMaxTokens = size_t{1} << 22;

using IdBySpelling = std::unordered_map<std::string_view, int32_t>;

const Json* find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string type_of(const Json& object) {
  const Json* type = find(object, "type");
  return type && type->is_string() ? type->get<std::string>() : std::string();
}

// Settings that must be absent, null or equal to what this program does.
Status expect_setting(const Json& object, const char* where, const char* key, const Json& supported) {
  const Json* value = find(object, key);
  if (!value || *value == supported) return {};
  return make_error(ErrorCode::kUnsupported, "{}.{} is {}, only {} is supported", where, key, dump_json(*value),
                    dump_json(supported));
}

Expected<bool> get_bool(const Json& object, const std::string& where, const char* key) {
  const Json* value = find(object, key);
  if (!value) return false;
  if (!value->is_boolean()) return make_error(ErrorCode::kCorrupt, "{}.{} is not a boolean", where, key);
  return value->get<bool>();
}

Expected<int32_t> get_id(const Json& value, std::string_view name) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() >= int64_t{kMaxTokens}) {
    return make_error(ErrorCode::kCorrupt, "token \"{}\" has the id {}, expected 0 to {}", name, dump_json(value),
                      kMaxTokens - 1);
  }
  return value.get<int32_t>();
}

Expected<std::vector<AddedTokenJson>> read_added_tokens(const Json& root) {
  std::vector<AddedTokenJson> tokens;
  const Json* list = find(root, "added_tokens");
  if (!list) return tokens;
  if (!list->is_array()) return make_error(ErrorCode::kCorrupt, "added_tokens is not a list");
  for (const Json& entry : *list) {
    const std::string where = fmt::format("added_tokens[{}]", tokens.size());
    const Json* content = entry.is_object() ? find(entry, "content") : nullptr;
    const Json* id = entry.is_object() ? find(entry, "id") : nullptr;
    if (!content || !content->is_string() || content->get_ref<const std::string&>().empty() || !id) {
      return make_error(ErrorCode::kCorrupt, "{} needs an id and a content that is not empty", where);
    }
    AddedTokenJson token{.content = content->get<std::string>()};
    HADAL_ASSIGN_OR_RETURN(token.id, get_id(*id, token.content));
    const struct {
      const char* key;
      bool* out;
      bool must_be_false;
    } flags[] = {{"special", &token.special, false},
                 {"normalized", &token.normalized, false},
                 {"single_word", &token.single_word, true},
                 {"lstrip", &token.lstrip, true},
                 {"rstrip", &token.rstrip, true}};
    for (const auto& flag : flags) {
      HADAL_ASSIGN_OR_RETURN(*flag.out, get_bool(entry, where, flag.key));
      if (*flag.out && flag.must_be_false) {
        return make_error(ErrorCode::kUnsupported, "{} (\"{}\"): {} = true is not supported", where, token.content,
                          flag.key);
      }
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// Fills out.vocab; the ids of vocabulary and added tokens must be 0..n-1 without gaps, so memory is bounded by the
// file.
Status read_vocab(const Json& model, TokenizerJson& out) {
  const Json* vocab = find(model, "vocab");
  if (!vocab || !vocab->is_object()) return make_error(ErrorCode::kCorrupt, "model.vocab is not an object");
  const size_t max_tokens = vocab->size() + out.added_tokens.size();
  if (max_tokens > kMaxTokens) return make_error(ErrorCode::kCorrupt, "{} tokens, at most {}", max_tokens, kMaxTokens);
  std::vector<bool> covered(max_tokens, false);
  out.vocab.reserve(vocab->size());
  const auto check_range = [&](int32_t id, std::string_view name) -> Status {
    if (static_cast<size_t>(id) < max_tokens) return {};
    return make_error(ErrorCode::kCorrupt, "token \"{}\" has id {} but there are only {} tokens: ids leave a gap", name,
                      id, max_tokens);
  };
  for (auto item = vocab->begin(); item != vocab->end(); ++item) {
    HADAL_ASSIGN_OR_RETURN(const int32_t id, get_id(item.value(), item.key()));
    HADAL_RETURN_IF_ERROR(check_range(id, item.key()));
    if (covered[id]) return make_error(ErrorCode::kCorrupt, "model.vocab: two tokens have the id {}", id);
    if (item.key().empty()) return make_error(ErrorCode::kCorrupt, "model.vocab: token {} is empty", id);
    covered[id] = true;
    if (out.vocab.size() <= static_cast<size_t>(id)) out.vocab.resize(id + 1);
    out.vocab[id] = item.key();
  }
  std::unordered_map<int32_t, std::string_view> added_ids;
  for (const AddedTokenJson& token : out.added_tokens) {
    HADAL_RETURN_IF_ERROR(check_range(token.id, token.content));
    if (!added_ids.emplace(token.id, token.content).second) {
      return make_error(ErrorCode::kCorrupt, "added_tokens: two tokens have the id {}", token.id);
    }
    covered[token.id] = true;
  }
  const size_t num_tokens = std::max<size_t>(
      out.vocab.size(), added_ids.empty() ? 0 : std::max_element(added_ids.begin(), added_ids.end())->first + 1);
  for (size_t id = 0; id < num_tokens; ++id) {
    if (!covered[id]) return make_error(ErrorCode::kCorrupt, "no token has the id {} (of 0 to {})", id, num_tokens - 1);
  }
  return {};
}

// "left right" or ["left", "right"].
Expected<std::pair<std::string_view, std::string_view>> split_merge(const Json& entry, size_t rank) {
  if (entry.is_string()) {
    const std::string_view text = entry.get_ref<const std::string&>();
    const size_t blank = text.find(' ');
    if (blank != std::string_view::npos && text.find(' ', blank + 1) == std::string_view::npos) {
      return std::pair(text.substr(0, blank), text.substr(blank + 1));
    }
  } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
    return std::pair<std::string_view, std::string_view>(entry[0].get_ref<const std::string&>(),
                                                         entry[1].get_ref<const std::string&>());
  }
  return make_error(ErrorCode::kCorrupt, "model.merges[{}] is {}, expected \"left right\" or [\"left\", \"right\"]",
                    rank, dump_json(entry));
}

Status read_merges(const Json& model, TokenizerJson& out) {
  const Json* merges = find(model, "merges");
  if (!merges || !merges->is_array()) return make_error(ErrorCode::kCorrupt, "model.merges is not a list");
  IdBySpelling ids;
  ids.reserve(out.vocab.size());
  for (size_t id = 0; id < out.vocab.size(); ++id) ids.emplace(out.vocab[id], static_cast<int32_t>(id));
  const auto id_of = [&](std::string_view spelling, size_t rank) -> Expected<int32_t> {
    const auto found = ids.find(spelling);
    if (found != ids.end()) return found->second;
    return make_error(ErrorCode::kCorrupt, "model.merges[{}] needs \"{}\", which is not in the vocabulary", rank,
                      spelling);
  };
  out.merges.reserve(merges->size());
  std::string merged;
  for (const Json& entry : *merges) {
    const size_t rank = out.merges.size();
    HADAL_ASSIGN_OR_RETURN(const auto pair, split_merge(entry, rank));
    BpeMergeJson merge;
    HADAL_ASSIGN_OR_RETURN(merge.left, id_of(pair.first, rank));
    HADAL_ASSIGN_OR_RETURN(merge.right, id_of(pair.second, rank));
    merged.assign(pair.first).append(pair.second);
    HADAL_ASSIGN_OR_RETURN(merge.merged, id_of(merged, rank));
    out.merges.push_back(merge);
  }
  return {};
}

Status read_model(const Json& root, TokenizerJson& out) {
  const Json* model = find(root, "model");
  if (!model || !model->is_object()) return make_error(ErrorCode::kCorrupt, "model is not an object");
  // Files of older library versions leave "type" out; then vocab and merges make it a BPE.
  if (const std::string type = type_of(*model); !type.empty() && type != "BPE") {
    return make_error(ErrorCode::kUnsupported, "model.type is \"{}\", only BPE is supported", type);
  }
  const struct {
    const char* key;
    Json supported;
  } settings[] = {{"dropout", 0.0},
                  {"continuing_subword_prefix", ""},
                  {"end_of_word_suffix", ""},
                  {"byte_fallback", false},
                  {"fuse_unk", false}};
  for (const auto& setting : settings) {
    HADAL_RETURN_IF_ERROR(expect_setting(*model, "model", setting.key, setting.supported));
  }
  HADAL_ASSIGN_OR_RETURN(out.ignore_merges, get_bool(*model, "model", "ignore_merges"));
  HADAL_RETURN_IF_ERROR(read_vocab(*model, out));
  return read_merges(*model, out);
}

// The entries of a Sequence, or the single stage itself; empty for an absent one.
Expected<std::vector<const Json*>> stages_of(const Json& root, const char* key, const char* list_key) {
  std::vector<const Json*> stages;
  const Json* top = find(root, key);
  if (!top) return stages;
  if (!top->is_object()) return make_error(ErrorCode::kCorrupt, "{} is not an object", key);
  if (type_of(*top) != "Sequence") {
    stages.push_back(top);
    return stages;
  }
  const Json* list = find(*top, list_key);
  if (!list || !list->is_array()) return make_error(ErrorCode::kCorrupt, "{}.{} is not a list", key, list_key);
  for (const Json& stage : *list) {
    if (!stage.is_object()) return make_error(ErrorCode::kCorrupt, "{}.{} holds a non-object", key, list_key);
    stages.push_back(&stage);
  }
  return stages;
}

Expected<std::string> read_split(const Json& stage) {
  constexpr const char* kWhere = "pre_tokenizer Split";
  HADAL_RETURN_IF_ERROR(expect_setting(stage, kWhere, "behavior", "Isolated"));
  HADAL_RETURN_IF_ERROR(expect_setting(stage, kWhere, "invert", false));
  const Json* pattern = find(stage, "pattern");
  const Json* regex = pattern && pattern->is_object() ? find(*pattern, "Regex") : nullptr;
  if (!regex || !regex->is_string() || !find(stage, "behavior")) {
    return make_error(ErrorCode::kUnsupported, "{}: needs pattern.Regex and behavior, found {}", kWhere,
                      dump_json(stage));
  }
  return regex->get<std::string>();
}

Status read_pre_tokenizer(const Json& root, TokenizerJson& out) {
  HADAL_ASSIGN_OR_RETURN(const auto stages, stages_of(root, "pre_tokenizer", "pretokenizers"));
  for (size_t i = 0; i < stages.size(); ++i) {
    const std::string type = type_of(*stages[i]);
    const bool is_last = i + 1 == stages.size();
    if (type == "Split" && !is_last) {
      HADAL_ASSIGN_OR_RETURN(std::string pattern, read_split(*stages[i]));
      out.split_patterns.push_back(std::move(pattern));
    } else if (type == "ByteLevel" && is_last) {
      const char* where = "pre_tokenizer ByteLevel";
      HADAL_RETURN_IF_ERROR(expect_setting(*stages[i], where, "add_prefix_space", false));
      HADAL_RETURN_IF_ERROR(expect_setting(*stages[i], where, "use_regex", false));
      // Both default to true in the library, so they must be given.
      if (find(*stages[i], "add_prefix_space") && find(*stages[i], "use_regex")) return {};
      return make_error(ErrorCode::kUnsupported, "{}: add_prefix_space and use_regex must be false", where);
    } else {
      return make_error(ErrorCode::kUnsupported,
                        "pre_tokenizer stage {} is \"{}\", expected Split stages, then ByteLevel", i + 1, type);
    }
  }
  return make_error(ErrorCode::kUnsupported, "pre_tokenizer does not end with ByteLevel");
}

Status expect_byte_level(const Json& root, const char* key, const char* list_key) {
  HADAL_ASSIGN_OR_RETURN(const auto stages, stages_of(root, key, list_key));
  for (const Json* stage : stages) {
    if (type_of(*stage) != "ByteLevel") {
      return make_error(ErrorCode::kUnsupported, "{} is \"{}\", only ByteLevel is supported", key, type_of(*stage));
    }
  }
  return {};
}

}  // namespace

Expected<TokenizerJson> parse_tokenizer_json(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(const Json root, parse_json(text, kLimits));
  if (!root.is_object()) return make_error(ErrorCode::kCorrupt, "not a JSON object");
  HADAL_ASSIGN_OR_RETURN(const auto normalizers, stages_of(root, "normalizer", "normalizers"));
  if (!normalizers.empty()) {
    return make_error(ErrorCode::kUnsupported, "normalizer \"{}\" is not supported", type_of(*normalizers.front()));
  }
  for (const char* key : {"truncation", "padding"}) {
    if (find(root, key)) return make_error(ErrorCode::kUnsupported, "{} must be null", key);
  }
  HADAL_RETURN_IF_ERROR(expect_byte_level(root, "post_processor", "processors"));
  HADAL_RETURN_IF_ERROR(expect_byte_level(root, "decoder", "decoders"));
  TokenizerJson out;
  HADAL_ASSIGN_OR_RETURN(out.added_tokens, read_added_tokens(root));
  HADAL_RETURN_IF_ERROR(read_model(root, out));
  HADAL_RETURN_IF_ERROR(read_pre_tokenizer(root, out));
  return out;
}

}  // namespace hadal
