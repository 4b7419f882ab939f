#include "eval/transcript.h"

#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "base/file.h"
#include "eval/jsonl.h"

namespace hadal {
namespace {

tl::unexpected<Error> io_error(const std::filesystem::path& path, const char* what) {
  return make_error(ErrorCode::kIo, "{}: cannot {}: {}", path.string(), what, std::strerror(errno));
}

// "numerics is bf16 there, gaudi2 now", for the first member that differs.
std::string first_difference(const Json& there, const Json& now) {
  for (const auto& [name, value] : now.items()) {
    const auto found = there.find(name);
    const Json old = found == there.end() ? Json() : *found;
    if (old != value) return fmt::format("{} is {} there, {} now", name, dump_json(old), dump_json(value));
  }
  for (const auto& [name, value] : there.items()) {
    if (!now.contains(name)) return fmt::format("{} is {} there, not set now", name, dump_json(value));
  }
  return "";
}

Status check_head(const Json& head, const Json& config) {
  const auto schema = head.find("hadal_transcript"), stored = head.find("config");
  if (schema == head.end() || *schema != kTranscriptSchema || stored == head.end() || !stored->is_object()) {
    return make_error(ErrorCode::kCorrupt, "not a transcript of this program's schema {}", kTranscriptSchema);
  }
  const std::string difference = first_difference(*stored, config);
  if (difference.empty()) return {};
  return make_error(ErrorCode::kInvalidArgument, "made by another run: {}. Name another file for this one", difference);
}

Expected<bool> bool_member(const Json& line, const char* name) {
  const auto found = line.find(name);
  if (found != line.end() && found->is_boolean()) return found->get<bool>();
  return make_error(ErrorCode::kCorrupt, "\"{}\" must be true or false", name);
}

Expected<int64_t> count_member(const Json& line, const char* name) {
  constexpr uint64_t kMost = uint64_t{1} << 40;
  const auto found = line.find(name);
  if (found != line.end() && found->is_number_unsigned() && found->get<uint64_t>() < kMost)
    return found->get<int64_t>();
  return make_error(ErrorCode::kCorrupt, "\"{}\" must be a whole number below 2^40", name);
}

}  // namespace

Json sample_json(const TranscriptSample& sample) {
  return {{"index", sample.index},
          {"prompt", sample.prompt},
          {"answer", sample.answer},
          {"reasoning", sample.reasoning},
          {"strict", sample.strict},
          {"flexible", sample.flexible},
          {"target", sample.target},
          {"strict_right", sample.strict_right},
          {"flexible_right", sample.flexible_right},
          {"finish_reason", sample.finish_reason},
          {"prompt_tokens", sample.num_prompt_tokens},
          {"tokens", sample.num_tokens}};
}

Expected<TranscriptSample> parse_sample(const Json& line) {
  TranscriptSample sample;
  const std::pair<const char*, std::string*> strings[] = {{"prompt", &sample.prompt},
                                                          {"answer", &sample.answer},
                                                          {"reasoning", &sample.reasoning},
                                                          {"strict", &sample.strict},
                                                          {"flexible", &sample.flexible},
                                                          {"target", &sample.target},
                                                          {"finish_reason", &sample.finish_reason}};
  for (const auto& [name, value] : strings) {
    HADAL_ASSIGN_OR_RETURN(*value, string_member(line, name));
  }
  HADAL_ASSIGN_OR_RETURN(sample.index, count_member(line, "index"));
  HADAL_ASSIGN_OR_RETURN(sample.num_prompt_tokens, count_member(line, "prompt_tokens"));
  HADAL_ASSIGN_OR_RETURN(sample.num_tokens, count_member(line, "tokens"));
  HADAL_ASSIGN_OR_RETURN(sample.strict_right, bool_member(line, "strict_right"));
  HADAL_ASSIGN_OR_RETURN(sample.flexible_right, bool_member(line, "flexible_right"));
  return sample;
}

Expected<Transcript> Transcript::create(const std::filesystem::path& path, const Json& config) {
  std::error_code ignored;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
  FilePtr file(std::fopen(path.c_str(), "wxe"), &std::fclose);
  if (file == nullptr && errno == EEXIST) {
    return make_error(ErrorCode::kInvalidArgument, "{}: exists; --resume goes on with it, --output names another",
                      path.string());
  }
  if (file == nullptr) return io_error(path, "create");
  Transcript transcript(path, std::move(file));
  HADAL_RETURN_IF_ERROR(transcript.write_line({{"hadal_transcript", kTranscriptSchema}, {"config", config}}));
  return transcript;
}

Expected<Transcript> Transcript::resume(const std::filesystem::path& path, const Json& config) {
  HADAL_ASSIGN_OR_RETURN(const std::string content, read_file(path, kMaxJsonlBytes));
  const size_t whole_bytes = content.rfind('\n') + 1;  // 0 when there is no line
  std::vector<TranscriptSample> samples;
  std::set<int64_t> seen;
  bool has_head = false;
  const auto take = [&](const Json& line, int64_t) -> Status {
    if (!std::exchange(has_head, true)) return check_head(line, config);
    HADAL_ASSIGN_OR_RETURN(TranscriptSample sample, parse_sample(line));
    if (!seen.insert(sample.index).second) {
      return make_error(ErrorCode::kCorrupt, "sample {} is there twice", sample.index);
    }
    samples.push_back(std::move(sample));
    return {};
  };
  HADAL_RETURN_IF_ERROR(for_each_json_line(std::string_view(content).substr(0, whole_bytes), path.string(), take));
  if (!has_head) return make_error(ErrorCode::kCorrupt, "{}: holds no transcript; remove it", path.string());
  std::error_code failed;
  std::filesystem::resize_file(path, whole_bytes, failed);
  FilePtr file(failed ? nullptr : std::fopen(path.c_str(), "ae"), &std::fclose);
  if (file == nullptr) return io_error(path, "write to");
  Transcript transcript(path, std::move(file));
  transcript.samples_ = std::move(samples);
  return transcript;
}

Status Transcript::add(TranscriptSample sample) {
  HADAL_RETURN_IF_ERROR(write_line(sample_json(sample)));
  samples_.push_back(std::move(sample));
  return {};
}

Status Transcript::write_line(const Json& line) {
  const std::string text = dump_json(line) + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size();
  return written && std::fflush(file_.get()) == 0 ? Status() : io_error(path_, "write to");
}

}  // namespace hadal
