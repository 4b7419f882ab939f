#include "text/pre_tokenizer.h"

namespace hadal {

Status PreTokenizer::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  return split_stage(0, text, pieces);
}

Status PreTokenizer::split_stage(size_t stage, std::string_view text, std::vector<std::string_view>& pieces) const {
  if (text.empty()) return {};
  if (stage == stages_.size()) {
    pieces.push_back(text);
    return {};
  }
  size_t done = 0;
  while (done < text.size()) {
    HADAL_ASSIGN_OR_RETURN(const SplitRegex::Match match, stages_[stage].find(text, done));
    if (match.begin == match.end) break;
    HADAL_RETURN_IF_ERROR(split_stage(stage + 1, text.substr(done, match.begin - done), pieces));
    HADAL_RETURN_IF_ERROR(split_stage(stage + 1, text.substr(match.begin, match.end - match.begin), pieces));
    done = match.end;
  }
  return split_stage(stage + 1, text.substr(done), pieces);
}

}  // namespace hadal
