// The record of an evaluation: JSON lines, the first one saying what was asked of whom, then one per sample, in the
// order in which answers came. Written line by line, so that a run that was cut short can go on.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

inline constexpr int kTranscriptSchema = 1;

struct TranscriptSample {
  int64_t index = 0;   // of the problem in its file
  std::string prompt;  // text, or the messages as JSON
  std::string answer, reasoning;
  std::string strict, flexible;  // what the filters give
  std::string target;
  bool strict_right = false, flexible_right = false;
  std::string finish_reason;
  int64_t num_prompt_tokens = 0, num_tokens = 0;
};

Json sample_json(const TranscriptSample& sample);
// Errors: kCorrupt, naming the member.
Expected<TranscriptSample> parse_sample(const Json& line);

// Single-owner. Movable.
class Transcript {
 public:
  // A new file, in folders made as needed; `config` is what the answers depend on. Errors: kInvalidArgument when it
  // exists, kIo.
  static Expected<Transcript> create(const std::filesystem::path& path, const Json& config);
  // An existing file, to be added to; samples() are those it has. A last line that was cut short is dropped.
  // Errors: kInvalidArgument (another config: names the first member that differs), kCorrupt with the line, kIo.
  static Expected<Transcript> resume(const std::filesystem::path& path, const Json& config);

  // Written through to the system before it returns. Error: kIo.
  Status add(TranscriptSample sample);

  const std::vector<TranscriptSample>& samples() const { return samples_; }

 private:
  using FilePtr = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;
  Transcript(std::filesystem::path path, FilePtr file) : path_(std::move(path)), file_(std::move(file)) {}
  Status write_line(const Json& line);

  std::filesystem::path path_;
  FilePtr file_;
  std::vector<TranscriptSample> samples_;
};

}  // namespace hadal
