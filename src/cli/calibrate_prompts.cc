#include "cli/calibrate_prompts.h"

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "eval/jsonl.h"

namespace hadal {
namespace {

struct Document {
  std::string text;
  int64_t line = 0;  // from 1
};

Expected<std::vector<Document>> read_jsonl(std::string_view content, const std::filesystem::path& path) {
  std::vector<Document> documents;
  HADAL_RETURN_IF_ERROR(for_each_json_line(content, path.string(), [&](const Json& object, int64_t line) -> Status {
    HADAL_ASSIGN_OR_RETURN(std::string text, string_member(object, "text"));
    documents.push_back({std::move(text), line});
    return {};
  }));
  return documents;
}

std::vector<Document> read_lines(std::string_view content) {
  std::vector<Document> documents;
  for (int64_t line = 1; !content.empty(); ++line) {
    const size_t end = std::min(content.find('\n'), content.size());
    std::string_view text = content.substr(0, end);
    if (text.ends_with('\r')) text.remove_suffix(1);
    documents.push_back({std::string(text), line});
    content.remove_prefix(std::min(end + 1, content.size()));
  }
  return documents;
}

Expected<std::vector<Document>> read_documents(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension != ".jsonl" && extension != ".txt") {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: --data takes a .jsonl file (a JSON object with \"text\" a line) or a .txt file (a document "
                      "a line)",
                      path.string());
  }
  HADAL_ASSIGN_OR_RETURN(const std::string content, read_file(path, kMaxJsonlBytes));
  if (extension == ".txt") return read_lines(content);
  return read_jsonl(content, path);
}

void shuffle(std::vector<Document>& documents, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (size_t left = documents.size(); left > 1; --left) {
    std::swap(documents[left - 1], documents[static_cast<size_t>(random() % left)]);
  }
}

}  // namespace

Expected<SelectedPrompts> select_prompts(const std::filesystem::path& data, const Tokenizer& tokenizer,
                                         const PromptSelection& selection) {
  HADAL_ASSIGN_OR_RETURN(std::vector<Document> documents, read_documents(data));
  if (selection.seed) shuffle(documents, *selection.seed);
  SelectedPrompts prompts;
  prompts.num_documents = static_cast<int64_t>(documents.size());
  const auto prompt_len = static_cast<size_t>(selection.prompt_len);
  size_t longest = 0;
  for (const Document& document : documents) {
    if (static_cast<int64_t>(prompts.ids.size()) == selection.num_prompts) break;
    ++prompts.num_tried;
    auto ids = tokenizer.encode(document.text, {.add_special_tokens = true});
    if (!ids) return forward_error(std::move(ids), fmt::format("{}:{}", data.string(), document.line));
    longest = std::max(longest, ids->size());
    if (ids->size() < prompt_len) continue;
    ids->resize(prompt_len);
    prompts.ids.push_back(std::move(*ids));
  }
  if (prompts.ids.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: none of {} documents has {} tokens, the longest has {}; give longer documents or a smaller "
                      "--prompt-len",
                      data.string(), prompts.num_documents, selection.prompt_len, longest);
  }
  return prompts;
}

}  // namespace hadal
