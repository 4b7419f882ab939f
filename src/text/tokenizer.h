// Text to token ids and back, for both tokenizer families of the DeepseekV3ForCausalLM models: `tokenizer.json`
// (byte-level BPE with Split stages: DeepSeek) and `tiktoken.model` (ranks: Kimi-K2, Moonlight).
// Ids equal those of the Hugging Face tokenizers library and of tiktoken. Chat turns are chat_template.h's business.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

// A run of text that may, or may not, contain control tokens.
struct TextSpan {
  std::string_view text;
  bool parse_added_tokens = true;
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  // Reads tokenizer.json or else tiktoken.model, tokenizer_config.json and chat_template.jinja of a model folder.
  // Errors: kNotFound (no tokenizer file), kCorrupt, kUnsupported (names the setting that this program does not do).
  static Expected<std::unique_ptr<Tokenizer>> load(const std::filesystem::path& model_dir);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Longest text that encode accepts, in bytes.
  static constexpr size_t kMaxTextBytes = size_t{256} << 20;

  struct EncodeOptions {
    // Prepend BOS once where the model's tokenizer_config.json asks for it (add_bos_token) and the text does not begin
    // with it already. Chat templates write BOS themselves: leave it false for rendered prompts.
    bool add_special_tokens = false;
    // Recognise the text of added tokens ("<｜User｜>") as the token. False: such text is ordinary text.
    bool parse_added_tokens = true;
  };
  // Errors: kInvalidArgument for text that is not UTF-8 or longer than kMaxTextBytes. Cost: linear in the text, apart
  // from one piece without a word boundary (n log n).
  Expected<std::vector<int32_t>> encode(std::string_view text, const EncodeOptions& options) const;

  // Encodes the concatenation of the spans, recognising added tokens only inside spans that allow it: a user's text
  // cannot inject a control token. Words may cross from one span into the next, as in the plain text.
  Expected<std::vector<int32_t>> encode_spans(std::span<const TextSpan> spans, bool add_special_tokens) const;

  // The text of the ids: valid UTF-8, U+FFFD for each maximal invalid part. Ids without a token add nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  // Raw bytes of a token (may be half a character); "" for ids without a token. Lives as long as the tokenizer.
  std::string_view token_bytes(int32_t id) const;
  // The token as the vocabulary spells it ("Ġthe"); "" for ids without a token.
  std::string token_string(int32_t id) const;
  bool is_special(int32_t id) const;  // dropped by skip_special_tokens; DeepSeek's role and think markers are not
  bool is_added(int32_t id) const;    // matched as a whole in the raw text
  // Ids >= this are not tokens, even where the embedding has rows for them: mask their logits.
  int32_t vocab_size() const;
  // The added token with this content, else the vocabulary's token spelled like this.
  std::optional<int32_t> token_id(std::string_view content) const;

  std::optional<int32_t> bos_token_id() const;
  std::optional<int32_t> eos_token_id() const;
  std::string bos_token() const;  // "" when there is none
  std::string eos_token() const;
  std::string pad_token() const;
  bool add_bos() const;               // what EncodeOptions::add_special_tokens does
  int64_t model_max_length() const;   // tokens; 0 when the folder names no usable limit
  std::string chat_template() const;  // Jinja source; "" when the folder has none
  // Another template that tokenizer_config.json names ("tool_use"); "" when absent.
  std::string chat_template(std::string_view name) const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hadal
