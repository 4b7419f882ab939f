// Large zeroed memory for weights, caches and workspaces: anonymous pages, huge ones where the kernel grants them.
// Pages are placed on the NUMA node of the thread that touches them first.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace hadal {

// Owns its memory; movable, empty after a move. Alignment is a page, or 2 MiB for buffers of that size and more.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // 0 bytes give an empty buffer. Errors: kResourceExhausted when the machine or the cgroup has not that much left,
  // counting what earlier buffers have been promised but not touched yet; `what` names the use in the message.
  static Expected<AlignedBuffer> create(uint64_t size_bytes, const char* what);

  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer();

  std::byte* data() const { return data_; }
  uint64_t size_bytes() const { return size_bytes_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t size_bytes_ = 0;
  uint64_t mapped_bytes_ = 0;
};

// OK when a further size_bytes could be allocated now; else the error create() would give.
Status check_memory_available(uint64_t size_bytes, const char* what);

}  // namespace hadal
