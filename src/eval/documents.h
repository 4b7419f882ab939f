// Texts to measure a model on, as token ids cut into windows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace hadal {

struct Document {
  std::string prompt;  // given, not scored; may be empty
  std::string text;
};

// A .jsonl file: one document a line: {"text": ..}; GSM8K's {"question": .., "answer": ..}, the question as prompt; or
// a transcript of `hadal eval gsm8k`: what the model answered. Any other file: one document. Errors name file and line:
// kCorrupt, kInvalidArgument (no text in it), kUnsupported (a transcript in chat form).
Expected<std::vector<Document>> read_documents(const std::filesystem::path& path);
Expected<std::vector<Document>> parse_documents(std::string_view content, std::string_view where, bool jsonl);

// Consecutive tokens of a document. The tokens from first_scored on are predicted, each from those before it.
struct TokenWindow {
  std::vector<int32_t> ids;
  int64_t first_scored = 1;  // at least 1: nothing precedes the first token
  int64_t document = 0;

  int64_t num_tokens() const { return static_cast<int64_t>(ids.size()); }
  int64_t num_scored() const { return num_tokens() - first_scored; }
};

struct WindowOptions {
  int64_t context = 2048;  // tokens of a window
  int64_t stride = 0;      // tokens from one window's begin to the next, below context; 0: context - 1
};

// Every token from first_scored (at least 1) on is scored once, in the first window that has it: apart from documents'
// beginnings it sees at least context - stride tokens before it. Requires context >= 2 and 0 <= stride < context.
void cut_windows(const std::vector<int32_t>& ids, int64_t first_scored, int64_t document, const WindowOptions& options,
                 std::vector<TokenWindow>& windows);

// Tokenises prompt and text apart, with BOS where the tokenizer asks for it; what has nothing to score gives no window.
// Errors: as Tokenizer::encode, naming the document.
Expected<std::vector<TokenWindow>> make_windows(const std::vector<Document>& documents, const Tokenizer& tokenizer,
                                                const WindowOptions& options);

// Keeps the first windows up to max_tokens tokens (the last one cut short); 0: all.
void limit_tokens(std::vector<TokenWindow>& windows, int64_t max_tokens);

int64_t count_tokens(const std::vector<TokenWindow>& windows);
int64_t count_scored_tokens(const std::vector<TokenWindow>& windows);
// Bytes of text that the scored tokens stand for.
int64_t count_scored_bytes(const std::vector<TokenWindow>& windows, const Tokenizer& tokenizer);

}  // namespace hadal
