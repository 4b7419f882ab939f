#include "base/aligned_buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/resource_limits.h"

namespace hadal {
namespace {

constexpr uint64_t kHugePageBytes = 2 << 20;
constexpr uint64_t kMaxBytes = uint64_t{1} << 47;  // the address space of a process
constexpr double kGiB = 1 << 30;

// Promised to live buffers. Memory is a resource of the process, hence a process-wide count.
std::atomic<uint64_t> promised_bytes{0};

uint64_t round_up(uint64_t value, uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

Status check_memory_available(uint64_t size_bytes, const char* what) {
  const std::optional<uint64_t> available = available_memory_bytes();
  if (size_bytes <= kMaxBytes && !available) return {};
  const uint64_t promised = promised_bytes.load(std::memory_order_relaxed);
  const uint64_t untouched = promised - std::min(promised, resident_anonymous_bytes());
  const uint64_t free_bytes = available ? *available - std::min(*available, untouched) : kMaxBytes;
  if (size_bytes <= free_bytes) return {};
  return make_error(ErrorCode::kResourceExhausted, "{} needs {:.2f} GiB, available are {:.2f} GiB", what,
                    static_cast<double>(size_bytes) / kGiB, static_cast<double>(free_bytes) / kGiB);
}

Expected<AlignedBuffer> AlignedBuffer::create(uint64_t size_bytes, const char* what) {
  AlignedBuffer buffer;
  if (size_bytes == 0) return buffer;
  HADAL_RETURN_IF_ERROR(check_memory_available(size_bytes, what));

  const bool huge = size_bytes >= kHugePageBytes;
  const uint64_t page = huge ? kHugePageBytes : static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t wanted = round_up(size_bytes, page);
  // mmap aligns to a small page only: ask for more and give the ends back.
  const uint64_t slack = huge ? kHugePageBytes : 0;
  void* raw =
      ::mmap(nullptr, wanted + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) {
    return make_error(ErrorCode::kResourceExhausted, "{} needs {:.2f} GiB: {}", what,
                      static_cast<double>(size_bytes) / kGiB, std::strerror(errno));
  }
  std::byte* begin = static_cast<std::byte*>(raw);
  if (huge) {
    const uint64_t head = round_up(std::bit_cast<uintptr_t>(begin), kHugePageBytes) - std::bit_cast<uintptr_t>(begin);
    if (head > 0) ::munmap(begin, head);
    begin += head;
    if (slack > head) ::munmap(begin + wanted, slack - head);
    ::madvise(begin, wanted, MADV_HUGEPAGE);  // a hint: small pages are slower, not wrong
  }
  buffer.data_ = begin;
  buffer.size_bytes_ = size_bytes;
  buffer.mapped_bytes_ = wanted;
  promised_bytes.fetch_add(wanted, std::memory_order_relaxed);
  return buffer;
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ == nullptr) return;
  ::munmap(data_, mapped_bytes_);
  promised_bytes.fetch_sub(mapped_bytes_, std::memory_order_relaxed);
}

}  // namespace hadal
