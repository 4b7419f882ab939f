// Byte-pair merging of one pre-tokenized piece, by a merge list (tokenizer.json) or by ranks (tiktoken).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace hadal {

struct BpeMerge {
  int32_t left = 0, right = 0, merged = 0;  // token ids
};

// The lowest-ranked adjacent pair is merged first, of equal ones the leftmost, until none is left. Thread-safe.
class Bpe {
 public:
  // Pairs merge by list: index = rank. `vocabulary` must outlive this and hold all 256 single bytes.
  // `ignore_merges`: a piece that is a token is taken whole, as tiktoken does.
  Bpe(const Vocabulary& vocabulary, std::span<const BpeMerge> merges, bool ignore_merges);
  // A pair merges if its bytes are a token; the token's id is the rank.
  explicit Bpe(const Vocabulary& vocabulary);

  // Appends the ids of a piece, which is shorter than 2^31 bytes. Cost: one hash for a piece that is a token, else
  // n log n.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  enum class Whole : uint8_t { kUnknown, kYes, kNo };
  struct Symbol {
    uint32_t begin, length;  // bytes of the piece
    int32_t id;
    int32_t prev, next;  // symbol indices, -1 at the ends
  };
  struct Candidate {
    uint64_t order;  // rank << 32 | symbol index: the least merges first
    int32_t left, right;
    bool operator>(const Candidate& other) const { return order > other.order; }
  };
  struct PairSlot {
    uint64_t pair = kNoPair;  // left << 32 | right
    uint32_t rank = 0;
  };
  static constexpr uint64_t kNoPair = UINT64_MAX;
  struct Workspace;

  void init_bytes();
  uint32_t pair_rank(int32_t left, int32_t right) const;
  uint32_t rank_of(std::string_view piece, const Symbol& left, const Symbol& right) const;
  void merge(std::string_view piece, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary_;
  bool by_list_;
  std::array<int32_t, 256> byte_ids_{};
  std::vector<PairSlot> pairs_;  // open addressing, at most half full
  size_t pair_mask_ = 0;
  std::vector<int32_t> merged_;  // index = rank, by_list_ only
  // Per token: does merging its bytes give just this token? Found on first use; racing threads find the same.
  std::unique_ptr<std::atomic<Whole>[]> whole_;
};

}  // namespace hadal
