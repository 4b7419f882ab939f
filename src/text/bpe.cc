#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace hadal {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// Fibonacci hashing: the high half of the product depends on both ids.
size_t pair_hash(uint64_t key) { return static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 32 ^ key); }

}  // namespace

struct Bpe::Workspace {
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

Bpe::Bpe(const Vocabulary& vocabulary, std::span<const BpeMerge> merges, bool ignore_merges)
    : vocabulary_(vocabulary), by_list_(true) {
  init_bytes();
  pairs_.resize(std::bit_ceil(2 * merges.size() + 2));
  pair_mask_ = pairs_.size() - 1;
  merged_.reserve(merges.size());
  for (const BpeMerge& merge : merges) {
    const uint32_t rank = static_cast<uint32_t>(merged_.size());
    merged_.push_back(merge.merged);
    const uint64_t key = pair_key(merge.left, merge.right);
    size_t slot = pair_hash(key) & pair_mask_;
    while (pairs_[slot].pair != kNoPair && pairs_[slot].pair != key) slot = (slot + 1) & pair_mask_;
    pairs_[slot] = {key, rank};  // a repeated pair: the last rank counts, as in the reference's map
  }
  if (ignore_merges) {
    for (int32_t id = 0; id < vocabulary_.size(); ++id) whole_[id].store(Whole::kYes, std::memory_order_relaxed);
  }
}

Bpe::Bpe(const Vocabulary& vocabulary) : vocabulary_(vocabulary), by_list_(false) {
  init_bytes();
  for (int32_t id = 0; id < vocabulary_.size(); ++id) whole_[id].store(Whole::kYes, std::memory_order_relaxed);
}

void Bpe::init_bytes() {
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    byte_ids_[byte] = vocabulary_.find({&text, 1});
    HADAL_CHECK(byte_ids_[byte] != Vocabulary::kNoToken, "byte {} is no token", byte);
  }
  whole_ = std::make_unique<std::atomic<Whole>[]>(vocabulary_.size());
}

uint32_t Bpe::pair_rank(int32_t left, int32_t right) const {
  const uint64_t key = pair_key(left, right);
  for (size_t slot = pair_hash(key) & pair_mask_;; slot = (slot + 1) & pair_mask_) {
    if (pairs_[slot].pair == key) return pairs_[slot].rank;
    if (pairs_[slot].pair == kNoPair) return kNoRank;
  }
}

uint32_t Bpe::rank_of(std::string_view piece, const Symbol& left, const Symbol& right) const {
  if (by_list_) return pair_rank(left.id, right.id);
  const int32_t id = vocabulary_.find(piece.substr(left.begin, left.length + right.length));
  return id == Vocabulary::kNoToken ? kNoRank : static_cast<uint32_t>(id);
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (piece.empty()) return;
  const int32_t id = vocabulary_.find(piece);
  const Whole whole = id == Vocabulary::kNoToken ? Whole::kNo : whole_[id].load(std::memory_order_relaxed);
  if (whole == Whole::kYes) {
    ids.push_back(id);
    return;
  }
  const size_t first = ids.size();
  merge(piece, ids);
  if (whole == Whole::kUnknown) {
    const bool is_whole = ids.size() == first + 1 && ids.back() == id;
    whole_[id].store(is_whole ? Whole::kYes : Whole::kNo, std::memory_order_relaxed);
  }
}

void Bpe::merge(std::string_view piece, std::vector<int32_t>& ids) const {
  thread_local Workspace workspace;
  auto& symbols = workspace.symbols;
  auto& heap = workspace.heap;
  const int32_t num_bytes = static_cast<int32_t>(piece.size());
  symbols.clear();
  heap.clear();
  for (int32_t i = 0; i < num_bytes; ++i) {
    symbols.push_back({static_cast<uint32_t>(i), 1, byte_ids_[static_cast<uint8_t>(piece[i])], i - 1,
                       i + 1 < num_bytes ? i + 1 : -1});
  }
  const auto add_candidate = [&](int32_t at) {
    const Symbol& left = symbols[at];
    if (left.next < 0) return false;
    const Symbol& right = symbols[left.next];
    const uint32_t rank = rank_of(piece, left, right);
    if (rank == kNoRank) return false;
    heap.push_back({static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(at), left.id, right.id});
    return true;
  };
  for (int32_t i = 0; i < num_bytes; ++i) add_candidate(i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const Candidate best = heap.back();
    heap.pop_back();
    const int32_t at = static_cast<int32_t>(best.order & UINT32_MAX);
    const uint32_t rank = static_cast<uint32_t>(best.order >> 32);
    Symbol& left = symbols[at];
    // Outdated: one of the two has been merged meanwhile (length 0 marks a symbol that was swallowed).
    if (left.length == 0 || left.id != best.left || left.next < 0 || symbols[left.next].id != best.right) continue;
    Symbol& right = symbols[left.next];
    left.length += right.length;
    left.id = by_list_ ? merged_[rank] : static_cast<int32_t>(rank);
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) symbols[left.next].prev = at;
    if (add_candidate(at)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (left.prev >= 0 && add_candidate(left.prev)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
  for (int32_t at = 0; at >= 0; at = symbols[at].next) ids.push_back(symbols[at].id);
}

}  // namespace hadal
