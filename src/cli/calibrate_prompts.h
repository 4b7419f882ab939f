// The prompts of a calibration: the first ids of documents that are long enough.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace hadal {

struct PromptSelection {
  int64_t num_prompts = 512;  // stop at so many
  int64_t prompt_len = 1024;  // tokens; shorter documents are passed over
  // Documents are tried in an order drawn with it; absent: as they lie in the file. The draw is this program's own
  // (MT19937-64, Fisher-Yates), not that of Python or of the datasets library.
  std::optional<uint64_t> seed;
};

struct SelectedPrompts {
  std::vector<std::vector<int32_t>> ids;  // each [prompt_len]
  int64_t num_documents = 0;              // in the file
  int64_t num_tried = 0;                  // tokenised until enough were found
};

// `data`: .jsonl, a JSON object with the string "text" a line; or .txt, a document a line. Empty documents count, but
// never fit. Tokenised with special tokens. Errors: kInvalidArgument (another extension; no document is long enough),
// kCorrupt naming file and line, kIo. Fewer prompts than asked for are no error.
Expected<SelectedPrompts> select_prompts(const std::filesystem::path& data, const Tokenizer& tokenizer,
                                         const PromptSelection& selection);

}  // namespace hadal
