// Fresh anonymous memory with pages of one kind, for probes. Internal to bench/.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace hadal {

enum class Pages { kSmall, kHuge };

const char* pages_name(Pages pages);  // "small", "huge"

// Owns its memory, aligned to 2 MiB, untouched at first. Movable.
class ProbeMemory {
 public:
  ProbeMemory() = default;
  // Huge pages are a request: where the system has none, both kinds measure the same. Errors: kResourceExhausted.
  static Expected<ProbeMemory> create(uint64_t size_bytes, Pages pages);
  ProbeMemory(ProbeMemory&& other) noexcept;
  ProbeMemory& operator=(ProbeMemory&& other) noexcept;
  ~ProbeMemory();

  char* data() const { return data_; }
  int64_t size_bytes() const { return static_cast<int64_t>(size_bytes_); }

 private:
  void* mapping_ = nullptr;
  uint64_t mapped_bytes_ = 0;
  char* data_ = nullptr;
  uint64_t size_bytes_ = 0;
};

}  // namespace hadal
