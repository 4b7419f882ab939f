// The weights of a Hugging Face folder: model.safetensors.index.json and the shards that it names, or a single
// model.safetensors. Shards are found by the index alone, never by building names; a weight and its scale may lie in
// different shards. Shards may be symbolic links (the Hugging Face cache), but the index may only give plain names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/safetensors.h"

namespace hadal {

inline constexpr const char* kCheckpointIndexName = "model.safetensors.index.json";
inline constexpr const char* kCheckpointSingleName = "model.safetensors";

// Immutable once open; reads are thread-safe. Holds one file descriptor per shard. Movable.
class Checkpoint {
 public:
  struct Entry {
    size_t shard_idx = 0;
    TensorInfo info;
  };

  // Opens every shard and checks every header and the index against each other. The error is the first problem found,
  // with the number of further ones.
  static Expected<Checkpoint> open(const std::filesystem::path& dir);
  // The same, but appends every problem to `problems` and returns what could be read. One problem per damaged shard;
  // tensors that such a shard should hold are not reported again.
  static Checkpoint open_collecting(const std::filesystem::path& dir, std::vector<Error>& problems);

  // Sorted by name.
  const std::vector<Entry>& entries() const { return entries_; }
  // Null when absent. O(log n).
  const Entry* find(std::string_view name) const;

  // Sorted by file name.
  const std::vector<SafetensorsFile>& shards() const { return shards_; }
  const SafetensorsFile& shard_of(const Entry& entry) const { return shards_[entry.shard_idx]; }
  // Sum over entries(), headers not counted.
  uint64_t total_tensor_bytes() const { return total_tensor_bytes_; }

  // See SafetensorsFile.
  Status read(const Entry& entry, std::span<std::byte> out) const { return shard_of(entry).read(entry.info, out); }
  Status read_range(const Entry& entry, uint64_t offset_bytes, std::span<std::byte> out) const {
    return shard_of(entry).read_range(entry.info, offset_bytes, out);
  }

 private:
  friend class CheckpointOpener;

  std::vector<SafetensorsFile> shards_;
  std::vector<Entry> entries_;
  uint64_t total_tensor_bytes_ = 0;
};

}  // namespace hadal
