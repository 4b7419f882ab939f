// Reads ranges of shards as fast as the machine gives them: files that are in the page cache from there, the others
// past it (O_DIRECT), so that hundreds of gigabytes do not pass through memory twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"

namespace hadal {

// Thread-safe; each thread brings its own Buffer. The checkpoint outlives it.
class ShardReader {
 public:
  // Grows to the largest read and is reused.
  class Buffer {
   private:
    friend class ShardReader;
    std::byte* reserve(size_t size_bytes);  // aligned for direct I/O
    std::vector<std::byte> memory_;
  };

  // direct false: plain reads that leave the data in the page cache, for checkpoints small enough to stay there.
  // File systems without direct I/O are read plainly as well.
  ShardReader(const Checkpoint& checkpoint, bool direct);
  ~ShardReader();
  ShardReader(const ShardReader&) = delete;
  ShardReader& operator=(const ShardReader&) = delete;

  // `size_bytes` bytes of the tensor from `offset_bytes` on, in `buffer` until its next use. Errors as
  // SafetensorsFile::read_range().
  Expected<std::span<const std::byte>> read(const Checkpoint::Entry& entry, uint64_t offset_bytes, size_t size_bytes,
                                            Buffer& buffer) const;

 private:
  const Checkpoint& checkpoint_;
  const bool keep_cached_;
  std::vector<int> direct_fds_;  // of each shard; -1: plain reads
};

}  // namespace hadal
