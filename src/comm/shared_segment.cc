#include "comm/shared_segment.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <new>

namespace hadal {
namespace {

constexpr uint64_t kMagic = 0x33676573'6c646168;  // "hadlseg3"
constexpr size_t kPage = 4096;

size_t rounded(size_t num_bytes) { return (num_bytes + kPage - 1) / kPage * kPage; }

}  // namespace

struct SharedSegment::Head {
  uint64_t magic = 0;
  SegmentSizes sizes;
  alignas(64) std::atomic<uint32_t> is_breaking{0};
  std::atomic<uint32_t> broken{0};  // 1 + the rank that gave up; the text is written
  char why[1024] = {};
  alignas(64) std::atomic<uint32_t> bell{0};
  std::atomic<uint32_t> num_sleepers{0};
};

namespace {

// Head, boards, mailboxes, slots, pieces; each part begins on a page.
struct Layout {
  explicit Layout(const SegmentSizes& sizes) {
    const size_t world = sizes.world_size;
    boards = kPage;
    mailboxes = boards + rounded(world * sizeof(RankBoard));
    slots = mailboxes + rounded(world * world * sizeof(Mailbox));
    slot_stride = rounded(sizes.slot_bytes);
    pieces = slots + 2 * world * slot_stride;
    piece_stride = rounded(sizes.piece_bytes);
    total = pieces + 2 * world * world * piece_stride;
  }
  size_t boards, mailboxes, slots, slot_stride, pieces, piece_stride, total;
};

Status check_sizes(const SegmentSizes& sizes) {
  constexpr int64_t kMost = int64_t{1} << 30;
  const bool fits = sizes.world_size >= 1 && sizes.world_size <= 256 && sizes.slot_bytes >= 64 &&
                    sizes.slot_bytes <= kMost && sizes.piece_bytes >= 64 && sizes.piece_bytes <= kMost;
  if (fits) return {};
  return make_error(ErrorCode::kInvalidArgument, "shared segment of {} ranks, slots of {} and pieces of {} bytes",
                    sizes.world_size, sizes.slot_bytes, sizes.piece_bytes);
}

Expected<std::byte*> map_file(int fd, size_t num_bytes) {
  void* base = mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return make_error(ErrorCode::kIo, "cannot map {} bytes of memory shared between ranks: {}", num_bytes,
                      std::strerror(errno));
  }
  return static_cast<std::byte*>(base);
}

}  // namespace

Expected<int> SharedSegment::create(const SegmentSizes& sizes) {
  HADAL_RETURN_IF_ERROR(check_sizes(sizes));
  static_assert(sizeof(Head) <= kPage);
  const Layout layout(sizes);
  const int fd = memfd_create("hadal-ranks", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(layout.total)) != 0) {
    const int error = errno;
    if (fd >= 0) close(fd);
    return make_error(ErrorCode::kIo, "cannot make {} bytes of memory shared between ranks: {}", layout.total,
                      std::strerror(error));
  }
  auto base = map_file(fd, layout.total);
  if (!base) {
    close(fd);
    return forward_error(std::move(base));
  }
  Head* head = new (*base) Head;
  head->sizes = sizes;
  for (int rank = 0; rank < sizes.world_size; ++rank) new (*base + layout.boards + rank * sizeof(RankBoard)) RankBoard;
  for (int i = 0; i < sizes.world_size * sizes.world_size; ++i) {
    new (*base + layout.mailboxes + i * sizeof(Mailbox)) Mailbox;
  }
  head->magic = kMagic;
  munmap(*base, layout.total);
  return fd;
}

Expected<std::unique_ptr<SharedSegment>> SharedSegment::map(int fd, const SegmentSizes& sizes) {
  HADAL_RETURN_IF_ERROR(check_sizes(sizes));
  const Layout layout(sizes);
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    return make_error(ErrorCode::kIo, "memory shared between ranks (fd {}): {}", fd, std::strerror(errno));
  }
  if (status.st_size != static_cast<off_t>(layout.total)) {
    return make_error(ErrorCode::kCorrupt,
                      "memory shared between ranks (fd {}) has {} bytes, {} ranks need {}: start all ranks "
                      "with the same program and flags",
                      fd, status.st_size, sizes.world_size, layout.total);
  }
  HADAL_ASSIGN_OR_RETURN(std::byte * base, map_file(fd, layout.total));
  std::unique_ptr<SharedSegment> segment(new SharedSegment(sizes, base, layout.total));
  const Head& head = segment->head();
  if (head.magic != kMagic || head.sizes.world_size != sizes.world_size || head.sizes.slot_bytes != sizes.slot_bytes ||
      head.sizes.piece_bytes != sizes.piece_bytes) {
    return make_error(ErrorCode::kCorrupt, "memory shared between ranks (fd {}) was made for another group", fd);
  }
  return segment;
}

SharedSegment::SharedSegment(const SegmentSizes& sizes, std::byte* base, size_t num_bytes)
    : sizes_(sizes), base_(base), num_bytes_(num_bytes) {}

SharedSegment::~SharedSegment() { munmap(base_, num_bytes_); }

SharedSegment::Head& SharedSegment::head() const { return *reinterpret_cast<Head*>(base_); }

RankBoard& SharedSegment::board(int rank) {
  return *reinterpret_cast<RankBoard*>(base_ + Layout(sizes_).boards + rank * sizeof(RankBoard));
}

std::byte* SharedSegment::slot(int rank, uint32_t round) {
  const Layout layout(sizes_);
  return base_ + layout.slots + (2 * static_cast<size_t>(rank) + round % 2) * layout.slot_stride;
}

Mailbox& SharedSegment::mailbox(int from, int to) {
  const size_t idx = static_cast<size_t>(from) * sizes_.world_size + to;
  return *reinterpret_cast<Mailbox*>(base_ + Layout(sizes_).mailboxes + idx * sizeof(Mailbox));
}

std::byte* SharedSegment::piece(int from, int to, uint32_t number) {
  const Layout layout(sizes_);
  const size_t idx = static_cast<size_t>(from) * sizes_.world_size + to;
  return base_ + layout.pieces + (2 * idx + number % 2) * layout.piece_stride;
}

std::optional<SharedSegment::Break> SharedSegment::broken_by() const {
  const uint32_t broken = head().broken.load(std::memory_order_acquire);
  if (broken == 0) return std::nullopt;
  return Break{static_cast<int>(broken) - 1, std::string(head().why, strnlen(head().why, sizeof head().why))};
}

void SharedSegment::break_off(int rank, std::string_view why) {
  Head& h = head();
  if (h.is_breaking.exchange(1) != 0) return;
  std::memcpy(h.why, why.data(), std::min(why.size(), sizeof h.why));
  h.broken.store(static_cast<uint32_t>(rank) + 1, std::memory_order_release);
}

uint32_t SharedSegment::lie_down() {
  head().num_sleepers.fetch_add(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return head().bell.load(std::memory_order_seq_cst);
}

void SharedSegment::sleep(uint32_t bell, std::chrono::milliseconds limit) {
  const timespec timeout{.tv_sec = limit.count() / 1000, .tv_nsec = limit.count() % 1000 * 1'000'000};
  syscall(SYS_futex, &head().bell, FUTEX_WAIT, bell, &timeout, nullptr, 0);
}

void SharedSegment::get_up() { head().num_sleepers.fetch_sub(1, std::memory_order_seq_cst); }

// A sleeper counts itself before it looks at what is published, and whoever rings publishes before it looks for
// sleepers: so one of the two sees the other. A sleeper that died leaves a count behind, which only costs system calls.
void SharedSegment::ring() {
  Head& h = head();
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (h.num_sleepers.load(std::memory_order_seq_cst) == 0) return;
  h.bell.fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, &h.bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace hadal
