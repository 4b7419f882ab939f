// Flags that say which text, in windows of how many tokens: of `eval perplexity`, `eval kl` and `certify`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/documents.h"
#include "text/tokenizer.h"

namespace CLI {
class App;
}

namespace hadal {

struct WindowFlags {
  std::string data;  // .txt or .jsonl
  WindowOptions windows;
  int64_t max_tokens = 0;  // 0: all
};

// --context, --stride, --max-tokens; not the data.
void add_window_options(CLI::App& command, WindowFlags& flags);

// Errors: kInvalidArgument (--context, --stride, --max-tokens), as make_windows().
Expected<std::vector<TokenWindow>> windows_of(const std::vector<Document>& documents, const WindowFlags& flags,
                                              const Tokenizer& tokenizer, int64_t max_model_len);
// Of the text that flags.data names. Errors: also as read_documents().
Expected<std::vector<TokenWindow>> read_windows(const WindowFlags& flags, const Tokenizer& tokenizer,
                                                int64_t max_model_len);

}  // namespace hadal
