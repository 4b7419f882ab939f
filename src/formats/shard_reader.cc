#include "formats/shard_reader.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

namespace hadal {
namespace {

// What direct I/O asks of offsets, lengths and addresses on every common disk.
constexpr uint64_t kDirectAlignment = 4096;

uint64_t round_down(uint64_t value) { return value / kDirectAlignment * kDirectAlignment; }
uint64_t round_up(uint64_t value) { return round_down(value + kDirectAlignment - 1); }

// Whether (nearly) all of a file is in the page cache, from single pages all over it. Asking for more would start
// reading it: RWF_NOWAIT does not wait, but it does read ahead.
bool is_cached(const File& file) {
#ifdef RWF_NOWAIT
  constexpr uint64_t kSamples = 16;
  for (uint64_t i = 0; i < kSamples; ++i) {
    std::byte byte;
    const iovec target = {&byte, 1};
    const uint64_t offset = file.size_bytes() / kSamples * i;
    if (::preadv2(file.fd(), &target, 1, static_cast<off_t>(offset), RWF_NOWAIT) != 1) return false;
  }
  return true;
#else
  return false;
#endif
}

// Reads up to `capacity` bytes from aligned `offset`; stops at the end of the file or at an error. Returns what it got.
size_t read_direct(int fd, uint64_t offset, std::byte* out, size_t capacity) {
  size_t done = 0;
  while (done < capacity) {
    const ssize_t got = ::pread(fd, out + done, capacity - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
    if (done % kDirectAlignment != 0) break;  // the end of the file
  }
  return done;
}

}  // namespace

std::byte* ShardReader::Buffer::reserve(size_t size_bytes) {
  const size_t wanted = size_bytes + kDirectAlignment;
  if (memory_.size() < wanted) memory_.resize(wanted);
  const auto address = std::bit_cast<uintptr_t>(memory_.data());
  return memory_.data() + (round_up(address) - address);
}

ShardReader::ShardReader(const Checkpoint& checkpoint, bool direct) : checkpoint_(checkpoint), keep_cached_(!direct) {
  for (const SafetensorsFile& shard : checkpoint.shards()) {
    direct_fds_.push_back(-1);
    if (!direct) continue;
    // Reads of small scales stay plain: reading ahead would fetch the weights beside them.
    ::posix_fadvise(shard.file().fd(), 0, 0, POSIX_FADV_RANDOM);
    if (is_cached(shard.file())) continue;
    direct_fds_.back() = ::open(shard.path().c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  }
}

ShardReader::~ShardReader() {
  for (const int fd : direct_fds_) {
    if (fd >= 0) ::close(fd);
  }
}

Expected<std::span<const std::byte>> ShardReader::read(const Checkpoint::Entry& entry, uint64_t offset_bytes,
                                                       size_t size_bytes, Buffer& buffer) const {
  const SafetensorsFile& shard = checkpoint_.shard_of(entry);
  const int direct_fd = direct_fds_[entry.shard_idx];
  const uint64_t begin = entry.info.data_begin + offset_bytes, aligned = round_down(begin);
  const size_t lead = begin - aligned, capacity = round_up(lead + size_bytes);
  std::byte* out = buffer.reserve(capacity);
  const bool inside = offset_bytes <= entry.info.size_bytes() && size_bytes <= entry.info.size_bytes() - offset_bytes;
  if (inside && direct_fd >= 0 && read_direct(direct_fd, aligned, out, capacity) >= lead + size_bytes) {
    return std::span<const std::byte>(out + lead, size_bytes);
  }
  // Also what reports errors: the plain read knows what is wrong with the range or the file.
  HADAL_RETURN_IF_ERROR(shard.read_range(entry.info, offset_bytes, {out, size_bytes}));
  if (!keep_cached_) {
    ::posix_fadvise(shard.file().fd(), static_cast<off_t>(begin), static_cast<off_t>(size_bytes), POSIX_FADV_DONTNEED);
  }
  return std::span<const std::byte>(out, size_bytes);
}

}  // namespace hadal
