#include "eval/documents.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "eval/jsonl.h"

namespace hadal {
namespace {

Expected<Document> document_of(const Json& line) {
  Document document;
  if (line.contains("question")) {
    HADAL_ASSIGN_OR_RETURN(const std::string question, string_member(line, "question"));
    HADAL_ASSIGN_OR_RETURN(const std::string answer, string_member(line, "answer"));
    return Document{.prompt = "Question: " + question + "\nAnswer:", .text = " " + answer};
  }
  if (line.contains("prompt")) {
    HADAL_ASSIGN_OR_RETURN(document.prompt, string_member(line, "prompt"));
    HADAL_ASSIGN_OR_RETURN(document.text, string_member(line, "answer"));
    return document;
  }
  HADAL_ASSIGN_OR_RETURN(document.text, string_member(line, "text"));
  return document;
}

Status check_transcript(const Json& head) {
  const auto config = head.find("config");
  if (config == head.end() || !config->is_object()) return {};
  const auto chat = config->find("chat");
  if (chat == config->end() || *chat != true) return {};
  return make_error(ErrorCode::kUnsupported,
                    "a transcript of chat answers does not hold the prompts as the model read "
                    "them; make one without --chat");
}

}  // namespace

Expected<std::vector<Document>> read_documents(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string content, read_file(path, kMaxJsonlBytes));
  return parse_documents(content, path.string(), path.extension() == ".jsonl");
}

Expected<std::vector<Document>> parse_documents(std::string_view content, std::string_view where, bool jsonl) {
  std::vector<Document> documents;
  if (!jsonl) documents.push_back({.text = std::string(content)});
  if (jsonl) {
    HADAL_RETURN_IF_ERROR(for_each_json_line(content, where, [&](const Json& line, int64_t) -> Status {
      if (line.contains("hadal_transcript")) return check_transcript(line);
      HADAL_ASSIGN_OR_RETURN(Document document, document_of(line));
      documents.push_back(std::move(document));
      return {};
    }));
  }
  std::erase_if(documents, [](const Document& document) { return document.text.empty(); });
  if (documents.empty()) return make_error(ErrorCode::kInvalidArgument, "{}: no text in it", where);
  return documents;
}

void cut_windows(const std::vector<int32_t>& ids, int64_t first_scored, int64_t document, const WindowOptions& options,
                 std::vector<TokenWindow>& windows) {
  const int64_t stride = options.stride > 0 ? options.stride : options.context - 1;
  HADAL_CHECK(options.context >= 2 && stride < options.context, "context {}, stride {}", options.context, stride);
  const auto num_tokens = static_cast<int64_t>(ids.size());
  int64_t scored_end = first_scored;
  for (int64_t begin = 0; scored_end < num_tokens; begin += stride) {
    const int64_t end = std::min(begin + options.context, num_tokens);
    if (end <= scored_end) continue;  // all prompt
    windows.push_back(
        {.ids = {ids.begin() + begin, ids.begin() + end}, .first_scored = scored_end - begin, .document = document});
    scored_end = end;
  }
}

Expected<std::vector<TokenWindow>> make_windows(const std::vector<Document>& documents, const Tokenizer& tokenizer,
                                                const WindowOptions& options) {
  std::vector<TokenWindow> windows;
  for (size_t i = 0; i < documents.size(); ++i) {
    const std::string where = fmt::format("document {}", i + 1);
    const bool has_prompt = !documents[i].prompt.empty();
    std::vector<int32_t> ids;
    if (has_prompt) {
      auto prompt = tokenizer.encode(documents[i].prompt, {.add_special_tokens = true});
      if (!prompt) return forward_error(std::move(prompt), where);
      ids = std::move(*prompt);
    }
    const int64_t first_scored = std::max<int64_t>(1, static_cast<int64_t>(ids.size()));
    auto text = tokenizer.encode(documents[i].text, {.add_special_tokens = !has_prompt});
    if (!text) return forward_error(std::move(text), where);
    ids.insert(ids.end(), text->begin(), text->end());
    cut_windows(ids, first_scored, static_cast<int64_t>(i), options, windows);
  }
  return windows;
}

void limit_tokens(std::vector<TokenWindow>& windows, int64_t max_tokens) {
  if (max_tokens <= 0) return;
  int64_t left = max_tokens;
  for (size_t i = 0; i < windows.size(); ++i) {
    TokenWindow& window = windows[i];
    if (window.num_tokens() > left) window.ids.resize(static_cast<size_t>(left));
    left -= window.num_tokens();
    if (left > 0) continue;
    const bool scores = window.num_scored() > 0;
    windows.resize(i + (scores ? 1 : 0));
  }
}

int64_t count_tokens(const std::vector<TokenWindow>& windows) {
  int64_t count = 0;
  for (const TokenWindow& window : windows) count += window.num_tokens();
  return count;
}

int64_t count_scored_tokens(const std::vector<TokenWindow>& windows) {
  int64_t count = 0;
  for (const TokenWindow& window : windows) count += window.num_scored();
  return count;
}

int64_t count_scored_bytes(const std::vector<TokenWindow>& windows, const Tokenizer& tokenizer) {
  int64_t count = 0;
  for (const TokenWindow& window : windows) {
    for (int64_t i = window.first_scored; i < window.num_tokens(); ++i) {
      count += static_cast<int64_t>(tokenizer.token_bytes(window.ids[static_cast<size_t>(i)]).size());
    }
  }
  return count;
}

}  // namespace hadal
