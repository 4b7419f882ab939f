#include "cli/eval_windows.h"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace hadal {

void add_window_options(CLI::App& command, WindowFlags& flags) {
  command.add_option("--context", flags.windows.context, "Tokens of a window")->capture_default_str();
  command.add_option("--stride", flags.windows.stride,
                     "Tokens from one window to the next; less: more context for each [--context - 1]");
  command.add_option("--max-tokens", flags.max_tokens, "Only the first so many tokens; 0: all")->capture_default_str();
}

Expected<std::vector<TokenWindow>> windows_of(const std::vector<Document>& documents, const WindowFlags& flags,
                                              const Tokenizer& tokenizer, int64_t max_model_len) {
  WindowOptions options = flags.windows;
  options.context = std::min(options.context, max_model_len);
  if (options.context < 2 || options.stride < 0 || options.stride >= options.context || flags.max_tokens < 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--context {}, --stride {}, --max-tokens {}: a window has at least 2 tokens, the stride is below "
                      "it, no number is negative",
                      flags.windows.context, flags.windows.stride, flags.max_tokens);
  }
  HADAL_ASSIGN_OR_RETURN(std::vector<TokenWindow> windows, make_windows(documents, tokenizer, options));
  limit_tokens(windows, flags.max_tokens);
  return windows;
}

Expected<std::vector<TokenWindow>> read_windows(const WindowFlags& flags, const Tokenizer& tokenizer,
                                                int64_t max_model_len) {
  HADAL_ASSIGN_OR_RETURN(const std::vector<Document> documents, read_documents(flags.data));
  return windows_of(documents, flags, tokenizer, max_model_len);
}

}  // namespace hadal
