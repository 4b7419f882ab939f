// Memory shared by the ranks of one machine: where they leave data for each other and how they wait. Mapped by every
// rank; made by whoever starts them. Nothing in it outlives the processes, and nothing in it is a pointer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hadal {

// One rank's announcement of an operation. Numbers never change their meaning while the layout version stays.
struct alignas(64) RankBoard {
  std::atomic<uint32_t> arrived{0};  // rounds this rank has published; a round's data is readable when arrived >= it
  std::atomic<uint32_t> pieces{0};   // of a round that is published piece by piece: kPiecesPerRound * round + count
  std::atomic<int32_t> pid{0};       // 0: not joined yet
  std::atomic<uint32_t> waits_elsewhere{0};
  // Of the round with the same parity as the index.
  uint32_t op[2] = {};
  uint32_t root[2] = {};
  uint64_t num_bytes[2] = {};  // of the whole operation, for comparison
};

// Two overlap writing and reading; more pass the board's line between cores more often than they win.
inline constexpr uint32_t kPiecesPerRound = 2;

// Handing over of pieces from one rank to another: `written` - `read` pieces are in the mailbox.
struct alignas(64) Mailbox {
  std::atomic<uint32_t> written{0};
  std::atomic<uint32_t> read{0};
  uint64_t num_bytes[2] = {};  // of the whole message
};

struct SegmentSizes {
  int world_size = 0;             // 1 .. 256
  int64_t slot_bytes = 1 << 20;   // of one rank and round
  int64_t piece_bytes = 1 << 16;  // of a mailbox; two are under way
};

// Thread-compatible; the atomics inside are for all processes. Unmapped by the destructor.
class SharedSegment {
 public:
  // An anonymous file to be inherited by, or sent to, the other ranks: close(fd) when all have it. Errors: kIo.
  static Expected<int> create(const SegmentSizes& sizes);
  // Maps it. Errors: kIo; kCorrupt when it is no segment of these sizes.
  static Expected<std::unique_ptr<SharedSegment>> map(int fd, const SegmentSizes& sizes);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  const SegmentSizes& sizes() const { return sizes_; }
  RankBoard& board(int rank);
  std::byte* slot(int rank, uint32_t round);
  Mailbox& mailbox(int from, int to);
  std::byte* piece(int from, int to, uint32_t number);

  // The first rank that gave up, if one has.
  struct Break {
    int rank;
    std::string why;
  };
  std::optional<Break> broken_by() const;
  void break_off(int rank, std::string_view why);  // the first call counts

  // Returns when ready() or after about `limit`. ready() may read what other ranks publish before they ring().
  template <typename Ready>
  void sleep_until(const Ready& ready, std::chrono::milliseconds limit) {
    const uint32_t bell = lie_down();
    if (!ready()) sleep(bell, limit);
    get_up();
  }
  void ring();  // after publishing; costs one atomic load when nobody sleeps

 private:
  struct Head;
  SharedSegment(const SegmentSizes& sizes, std::byte* base, size_t num_bytes);
  Head& head() const;
  uint32_t lie_down();  // counts a sleeper; the bell of now
  void sleep(uint32_t bell, std::chrono::milliseconds limit);
  void get_up();

  const SegmentSizes sizes_;
  std::byte* const base_;
  const size_t num_bytes_;
};

}  // namespace hadal
