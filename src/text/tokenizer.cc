#include "text/tokenizer.h"

#include <algorithm>

#include "base/utf8.h"
#include "text/byte_level.h"
#include "text/python_text.h"
#include "text/tokenizer_impl.h"

namespace hadal {

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Expected<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::filesystem::path& model_dir) {
  auto impl = std::make_unique<Impl>();
  HADAL_RETURN_IF_ERROR(impl->load(model_dir));
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

std::vector<size_t> kimi_chunk_ends(std::string_view text) {
  constexpr size_t kMaxChunkChars = 400'000;
  constexpr size_t kMaxRunChars = 25'000;
  std::vector<size_t> ends;
  size_t num_chars = 0, run_chars = 0;
  bool run_is_space = false;
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = decode_utf8(text.substr(pos));
    const bool is_space = is_python_space(step.code_point);
    if (num_chars == kMaxChunkChars) {
      ends.push_back(pos);
      num_chars = run_chars = 0;
    }
    if (run_chars > 0 && is_space == run_is_space) {
      if (++run_chars > kMaxRunChars) {
        ends.push_back(pos);
        run_chars = 1;
      }
    } else {
      run_chars = 1;
      run_is_space = is_space;
    }
    ++num_chars;
    pos += step.num_bytes;
  }
  ends.push_back(text.size());
  return ends;
}

Status Tokenizer::Impl::encode_ordinary(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<std::string_view> pieces;
  HADAL_RETURN_IF_ERROR(pre_tokenizer->split(text, pieces));
  for (const std::string_view piece : pieces) bpe->encode(piece, ids);
  return {};
}

Status Tokenizer::Impl::encode_chunk(std::string_view text, Range chunk, std::span<const Range> allowed,
                                     std::vector<int32_t>& ids) const {
  std::vector<AddedTokenMatch> matches;
  for (const Range& range : allowed) {
    const size_t begin = std::max(range.begin, chunk.begin);
    const size_t end = std::min(range.end, chunk.end);
    if (begin < end) added_matcher->find(text, begin, end, matches);
  }
  size_t done = chunk.begin;
  for (const AddedTokenMatch& match : matches) {
    HADAL_RETURN_IF_ERROR(encode_ordinary(text.substr(done, match.begin - done), ids));
    ids.push_back(match.id);
    done = match.end;
  }
  return encode_ordinary(text.substr(done, chunk.end - done), ids);
}

Expected<std::vector<int32_t>> Tokenizer::Impl::encode_text(std::string_view text, std::span<const Range> allowed,
                                                            bool add_special_tokens) const {
  if (text.size() > kMaxTextBytes) {
    return make_error(ErrorCode::kInvalidArgument, "text of {} bytes, at most {} can be encoded", text.size(),
                      kMaxTextBytes);
  }
  if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
    return make_error(ErrorCode::kInvalidArgument, "text is not valid UTF-8 at byte {}", bad);
  }
  std::vector<int32_t> ids;
  if (add_special_tokens && bos_id && config.add_bos_token.value_or(false) && !text.starts_with(*config.bos_token)) {
    ids.push_back(*bos_id);
  }
  const std::vector<size_t> ends = cut_like_kimi ? kimi_chunk_ends(text) : std::vector<size_t>{text.size()};
  size_t begin = 0;
  for (const size_t end : ends) {
    HADAL_RETURN_IF_ERROR(encode_chunk(text, {begin, end}, allowed, ids));
    begin = end;
  }
  return ids;
}

Expected<std::vector<int32_t>> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  const Impl::Range everything{0, options.parse_added_tokens ? text.size() : 0};
  return impl_->encode_text(text, {&everything, 1}, options.add_special_tokens);
}

Expected<std::vector<int32_t>> Tokenizer::encode_spans(std::span<const TextSpan> spans, bool add_special_tokens) const {
  std::string text;
  std::vector<Impl::Range> allowed;
  for (const TextSpan& span : spans) {
    const Impl::Range range{text.size(), text.size() + span.text.size()};
    text += span.text;
    if (!span.parse_added_tokens) continue;
    if (!allowed.empty() && allowed.back().end == range.begin) {
      allowed.back().end = range.end;
    } else {
      allowed.push_back(range);
    }
  }
  return impl_->encode_text(text, allowed, add_special_tokens);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!(skip_special_tokens && is_special(id))) bytes += token_bytes(id);
  }
  return to_valid_utf8(bytes);
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return id < 0 || id >= vocab_size() ? std::string_view() : impl_->vocabulary->bytes(id);
}

std::string Tokenizer::token_string(int32_t id) const {
  const std::string_view bytes = token_bytes(id);
  return is_added(id) ? std::string(bytes) : spell_bytes(bytes);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && (impl_->flags[id] & Impl::kSpecial);
}
bool Tokenizer::is_added(int32_t id) const { return id >= 0 && id < vocab_size() && (impl_->flags[id] & Impl::kAdded); }
int32_t Tokenizer::vocab_size() const { return impl_->vocabulary->size(); }

std::optional<int32_t> Tokenizer::token_id(std::string_view content) const {
  if (const auto added = impl_->added_ids.find(std::string(content)); added != impl_->added_ids.end()) {
    return added->second;
  }
  const auto bytes = unspell_bytes(content);
  const int32_t id = bytes ? impl_->vocabulary->find(*bytes) : Vocabulary::kNoToken;
  if (id == Vocabulary::kNoToken) return std::nullopt;
  return id;
}

std::optional<int32_t> Tokenizer::bos_token_id() const { return impl_->bos_id; }
std::optional<int32_t> Tokenizer::eos_token_id() const { return impl_->eos_id; }
std::string Tokenizer::bos_token() const { return impl_->config.bos_token.value_or(""); }
std::string Tokenizer::eos_token() const { return impl_->config.eos_token.value_or(""); }
std::string Tokenizer::pad_token() const { return impl_->config.pad_token.value_or(""); }
bool Tokenizer::add_bos() const { return impl_->bos_id && impl_->config.add_bos_token.value_or(false); }
int64_t Tokenizer::model_max_length() const { return impl_->config.model_max_length; }

std::string Tokenizer::chat_template() const { return chat_template("default"); }
std::string Tokenizer::chat_template(std::string_view name) const {
  for (const NamedChatTemplate& named : impl_->config.chat_templates) {
    if (named.name == name) return named.source;
  }
  return "";
}

}  // namespace hadal
