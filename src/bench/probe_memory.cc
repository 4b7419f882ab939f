#include "bench/probe_memory.h"

#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/aligned_buffer.h"

namespace hadal {
namespace {

constexpr uint64_t kHugePageBytes = 2 << 20;

}  // namespace

const char* pages_name(Pages pages) { return pages == Pages::kHuge ? "huge" : "small"; }

Expected<ProbeMemory> ProbeMemory::create(uint64_t size_bytes, Pages pages) {
  HADAL_RETURN_IF_ERROR(check_memory_available(size_bytes, "memory for the bandwidth probe"));
  ProbeMemory memory;
  const uint64_t mapped_bytes = size_bytes + kHugePageBytes;
  void* mapping =
      ::mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return make_error(ErrorCode::kResourceExhausted, "memory for the bandwidth probe: {} MiB: {}", size_bytes >> 20,
                      std::strerror(errno));
  }
  const uintptr_t begin = std::bit_cast<uintptr_t>(mapping);
  const uint64_t head = (kHugePageBytes - begin % kHugePageBytes) % kHugePageBytes;
  memory.mapping_ = mapping;
  memory.mapped_bytes_ = mapped_bytes;
  memory.data_ = static_cast<char*>(mapping) + head;
  memory.size_bytes_ = size_bytes;
  ::madvise(memory.data_, size_bytes, pages == Pages::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return memory;
}

ProbeMemory::ProbeMemory(ProbeMemory&& other) noexcept { *this = std::move(other); }

ProbeMemory& ProbeMemory::operator=(ProbeMemory&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

ProbeMemory::~ProbeMemory() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapped_bytes_);
}

}  // namespace hadal
