#include "text/argument_filter.h"

#include <algorithm>

namespace hadal {
namespace {

constexpr std::string_view kFence = "\n```";

constexpr std::string_view kBlanks = " \t\r\n";

bool is_blank(std::string_view text) { return text.find_first_not_of(kBlanks) == std::string_view::npos; }

}  // namespace

void ArgumentFilter::release(size_t num_bytes, std::string* out) {
  if (num_bytes == 0) return;
  std::string_view text = std::string_view(held_).substr(0, num_bytes);
  if (!started_) text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  started_ = true;
  out->append(text);
  held_.erase(0, num_bytes);
}

std::string ArgumentFilter::push(std::string_view text) {
  std::string out;
  for (const char byte : text) push_byte(byte, &out);
  return out;
}

void ArgumentFilter::push_byte(char byte, std::string* out) {
  const bool blank = is_blank({&byte, 1});
  const bool continues_fence = is_fenced_ && num_matched_ > 0 && num_matched_ < kFence.size() && byte == '`';
  const bool broke_fence = num_matched_ > 1 && num_matched_ < kFence.size() && !continues_fence;
  num_matched_ = continues_fence ? num_matched_ + 1 : (is_fenced_ && byte == '\n' ? 1 : 0);
  if (broke_fence) {  // "\n``" was text
    in_run_ = false;
    if (!has_fence_) release(held_.size(), out);
  }
  if (!blank && !continues_fence) {
    in_run_ = false;
    held_ += byte;
    if (!has_fence_) release(held_.size(), out);
    return;
  }
  if (!in_run_) run_begin_ = held_.size();
  in_run_ = true;
  held_ += byte;
  if (num_matched_ < kFence.size()) return;
  release(run_begin_, out);  // up to an earlier fence and behind it: all text after all
  has_fence_ = true;
  fence_end_ = held_.size();
  in_run_ = false;
}

std::string ArgumentFilter::finish() {
  std::string out;
  const bool drop = is_blank(std::string_view(held_).substr(has_fence_ ? fence_end_ : 0));
  if (!drop) release(held_.size(), &out);
  return out;
}

}  // namespace hadal
