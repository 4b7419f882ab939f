// What hadal convert has finished in an output folder, so that a run that was stopped at any byte goes on where it was:
// "hadal_convert.journal", one line a fact, "<16 hex digits: XXH3 of the rest> <JSON>". The first line says what is
// converted how; each later one is a shard that is whole and on the disk, or the end of the work. A torn last line
// counts as not written. The file stays in the finished folder as the report of the conversion.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "formats/safetensors.h"
#include "quant/code_map.h"

namespace hadal {

inline constexpr const char* kConvertJournalName = "hadal_convert.journal";

// Which file something was made from. Equal: taken for the same content.
struct SourceIdentity {
  uint64_t size_bytes = 0;
  int64_t mtime_ns = 0;
  uint64_t header_hash = 0;  // XXH3 of the shard's header
  friend bool operator==(const SourceIdentity&, const SourceIdentity&) = default;
};

struct TensorReport {
  std::string name;
  CodeMapStats stats;
};

struct ShardRecord {
  std::string file_name;
  SourceIdentity source;
  SourceIdentity output;  // its time is not compared
  uint64_t sidecar_bytes = 0;
  std::vector<TensorReport> tensors;  // the converted weights
};

// Single-owner; holds a lock on the folder, so that two processes do not write into it.
class ConvertJournal {
 public:
  // Begins one in an existing folder, or goes on with the one that is there. `conversion` is what must be equal for the
  // work to be the same. Errors: kInvalidArgument (the folder holds another conversion, or other files and no journal),
  // kUnavailable (another process is at work), kCorrupt, kIo. Each says what to do.
  static Expected<ConvertJournal> open(const std::filesystem::path& dir, const Json& conversion);
  ConvertJournal(ConvertJournal&& other) noexcept;
  ConvertJournal& operator=(ConvertJournal&&) = delete;
  ~ConvertJournal();

  // Null when the shard is not finished.
  const ShardRecord* find(const std::string& file_name) const;
  const std::vector<ShardRecord>& shards() const { return shards_; }
  bool is_complete() const { return complete_; }

  // On the disk when they return.
  Status add(ShardRecord record);
  Status mark_complete();

 private:
  ConvertJournal(std::filesystem::path path, int folder_fd) : path_(std::move(path)), folder_fd_(folder_fd) {}
  Status begin(const Json& conversion);
  Status load(const Json& conversion);
  Status append(const Json& fact);

  std::filesystem::path path_;
  int folder_fd_ = -1;
  int fd_ = -1;
  std::vector<ShardRecord> shards_;
  bool complete_ = false;
};

// Of an open shard. Errors: kIo.
Expected<SourceIdentity> identify_shard(const SafetensorsFile& file);
// The bytes before the data, length field included.
Expected<std::string> read_shard_header(const SafetensorsFile& file);

}  // namespace hadal
