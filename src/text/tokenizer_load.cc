#include <algorithm>

#include "base/file.h"
#include "formats/tiktoken.h"
#include "formats/tokenizer_json.h"
#include "text/byte_level.h"
#include "text/tokenizer_impl.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTokenizerBytes = uint64_t{128} << 20;
constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;
constexpr uint64_t kMaxTemplateBytes = uint64_t{4} << 20;
// Slots for control tokens that Kimi's tokenizer class appends to the ranks.
constexpr int32_t kNumKimiSlots = 256;

bool has_file(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

Status read_config(const fs::path& model_dir, TokenizerConfig& config) {
  if (const fs::path path = model_dir / "tokenizer_config.json"; has_file(path)) {
    HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxConfigBytes));
    auto parsed = parse_tokenizer_config(text);
    if (!parsed) return forward_error(std::move(parsed), path.string());
    config = std::move(*parsed);
  }
  if (config.add_eos_token.value_or(false)) {
    return make_error(ErrorCode::kUnsupported, "{}: add_eos_token = true is not supported",
                      (model_dir / "tokenizer_config.json").string());
  }
  // A file of its own wins over the string in the configuration.
  if (const fs::path path = model_dir / "chat_template.jinja"; has_file(path)) {
    HADAL_ASSIGN_OR_RETURN(std::string source, read_file(path, kMaxTemplateBytes));
    std::erase_if(config.chat_templates, [](const NamedChatTemplate& named) { return named.name == "default"; });
    config.chat_templates.push_back({"default", std::move(source)});
  }
  return {};
}

Expected<std::vector<SplitRegex>> compile_stages(const std::vector<std::string>& pcre2_patterns) {
  std::vector<SplitRegex> stages;
  for (const std::string& pattern : pcre2_patterns) {
    HADAL_ASSIGN_OR_RETURN(SplitRegex regex, SplitRegex::compile(pattern));
    stages.push_back(std::move(regex));
  }
  return stages;
}

}  // namespace

Status Tokenizer::Impl::load(const fs::path& model_dir) {
  HADAL_RETURN_IF_ERROR(read_config(model_dir, config));
  const fs::path json_path = model_dir / "tokenizer.json";
  const fs::path ranks_path = model_dir / "tiktoken.model";
  if (has_file(json_path)) {
    HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(json_path, kMaxTokenizerBytes));
    auto json = parse_tokenizer_json(text);
    Status status = json ? build_from_json(std::move(*json)) : Status(forward_error(std::move(json)));
    if (!status) return forward_error(std::move(status), json_path.string());
  } else if (has_file(ranks_path)) {
    HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(ranks_path, kMaxTokenizerBytes));
    auto ranks = parse_tiktoken(text);
    Status status = ranks ? build_from_tiktoken(std::move(ranks->tokens)) : Status(forward_error(std::move(ranks)));
    if (!status) return forward_error(std::move(status), ranks_path.string());
  } else {
    return make_error(ErrorCode::kNotFound, "{}: neither tokenizer.json nor tiktoken.model is there",
                      model_dir.string());
  }
  Status status = resolve_config_tokens();
  if (!status) return forward_error(std::move(status), (model_dir / "tokenizer_config.json").string());
  return {};
}

Status Tokenizer::Impl::build_from_json(TokenizerJson json) {
  std::vector<std::string> tokens(std::move(json.vocab));
  std::vector<bool> findable(tokens.size(), false);
  for (size_t id = 0; id < tokens.size(); ++id) {
    // A spelling outside the byte alphabet is never the result of merging bytes; it is its own text.
    if (auto bytes = unspell_bytes(tokens[id])) {
      tokens[id] = std::move(*bytes);
      findable[id] = !tokens[id].empty();
    }
  }
  std::vector<AddedToken> added;
  for (AddedTokenJson& token : json.added_tokens) {
    const size_t id = static_cast<size_t>(token.id);
    if (tokens.size() <= id) {
      tokens.resize(id + 1);
      findable.resize(id + 1, false);
    }
    tokens[id] = token.content;
    // Its bytes stay findable only if they are the vocabulary's own: then merging can lead here, too.
    added.push_back({token.id, std::move(token.content), token.special, token.normalized});
  }
  for (std::string& pattern : json.split_patterns) {
    HADAL_ASSIGN_OR_RETURN(pattern, translate_split_regex(pattern));
  }
  HADAL_RETURN_IF_ERROR(build(tokens, findable, added, json.split_patterns));
  std::vector<BpeMerge> merges;
  merges.reserve(json.merges.size());
  for (const BpeMergeJson& merge : json.merges) merges.push_back({merge.left, merge.right, merge.merged});
  bpe = std::make_unique<Bpe>(*vocabulary, merges, json.ignore_merges);
  return {};
}

Status Tokenizer::Impl::build_from_tiktoken(std::vector<std::string> tokens) {
  const int32_t first_slot = static_cast<int32_t>(tokens.size());
  std::vector<bool> findable(tokens.size(), true);
  std::vector<AddedToken> added;
  for (int32_t id = first_slot; id < first_slot + kNumKimiSlots; ++id) {
    added.push_back({.id = id, .content = fmt::format("<|reserved_token_{}|>", id)});
  }
  for (const AddedTokenJson& named : config.added_tokens) {
    if (named.id < first_slot || named.id >= first_slot + kNumKimiSlots) {
      return make_error(ErrorCode::kCorrupt, "added_tokens_decoder: \"{}\" has id {}, the {} slots are {} to {}",
                        named.content, named.id, kNumKimiSlots, first_slot, first_slot + kNumKimiSlots - 1);
    }
    if (named.single_word || named.lstrip || named.rstrip) {
      return make_error(ErrorCode::kUnsupported, "added_tokens_decoder: \"{}\" has a matching condition",
                        named.content);
    }
    added[named.id - first_slot] = {.id = named.id, .content = named.content, .special = named.special};
  }
  for (const AddedToken& token : added) tokens.push_back(token.content);
  findable.resize(tokens.size(), false);
  HADAL_RETURN_IF_ERROR(build(tokens, findable, added, {kimi_split_regex()}));
  bpe = std::make_unique<Bpe>(*vocabulary);
  cut_like_kimi = true;
  return {};
}

Status Tokenizer::Impl::build(const std::vector<std::string>& tokens, const std::vector<bool>& findable,
                              const std::vector<AddedToken>& added, const std::vector<std::string>& pcre2_patterns) {
  vocabulary = std::make_unique<Vocabulary>(tokens, findable);
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    if (vocabulary->find({&text, 1}) == Vocabulary::kNoToken) {
      return make_error(ErrorCode::kUnsupported, "byte 0x{:02x} has no token: some text could not be encoded", byte);
    }
  }
  flags.assign(tokens.size(), kNotAdded);
  for (const AddedToken& token : added) {
    flags[token.id] = kAdded | (token.special ? kSpecial : kNotAdded);
    if (!added_ids.emplace(token.content, token.id).second) {
      return make_error(ErrorCode::kCorrupt, "two added tokens are \"{}\"", token.content);
    }
  }
  added_matcher = std::make_unique<AddedTokenMatcher>(added);
  HADAL_ASSIGN_OR_RETURN(auto stages, compile_stages(pcre2_patterns));
  pre_tokenizer = std::make_unique<PreTokenizer>(std::move(stages));
  return {};
}

// bos, eos and pad must be tokens; tokens that the configuration repeats must agree with tokenizer.json.
Status Tokenizer::Impl::resolve_config_tokens() {
  const auto resolve = [&](const char* key, const std::optional<std::string>& content,
                           std::optional<int32_t>* id) -> Status {
    if (!content) return {};
    const auto found = added_ids.find(*content);
    if (found == added_ids.end()) return make_error(ErrorCode::kCorrupt, "{} \"{}\" is no added token", key, *content);
    if (id) *id = found->second;
    return {};
  };
  HADAL_RETURN_IF_ERROR(resolve("bos_token", config.bos_token, &bos_id));
  HADAL_RETURN_IF_ERROR(resolve("eos_token", config.eos_token, &eos_id));
  HADAL_RETURN_IF_ERROR(resolve("pad_token", config.pad_token, nullptr));
  for (const AddedTokenJson& token : config.added_tokens) {
    const auto found = added_ids.find(token.content);
    if (found == added_ids.end() || found->second != token.id) {
      return make_error(ErrorCode::kCorrupt, "added_tokens_decoder: id {} is \"{}\" here but not in the tokenizer",
                        token.id, token.content);
    }
  }
  return {};
}

}  // namespace hadal
