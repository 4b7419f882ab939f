// Token ids and their raw bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// Thread-safe once filled.
class Vocabulary {
 public:
  static constexpr int32_t kNoToken = -1;

  // Ids 0..tokens.size()-1; an empty entry is an id without bytes. `findable[i]`: find() may return i; the findable
  // tokens must differ.
  Vocabulary(const std::vector<std::string>& tokens, const std::vector<bool>& findable);

  int32_t size() const { return static_cast<int32_t>(offsets_.size()) - 1; }
  // Requires 0 <= id < size().
  std::string_view bytes(int32_t id) const {
    return std::string_view(arena_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
  }
  // The id of these bytes, or kNoToken. One hash and about one comparison.
  int32_t find(std::string_view bytes) const {
    const uint64_t hash = hash_of(bytes);
    for (size_t slot = hash & mask_;; slot = (slot + 1) & mask_) {
      const Slot& entry = slots_[slot];
      if (entry.id == kNoToken) return kNoToken;
      if (entry.hash_high == static_cast<uint32_t>(hash >> 32) && this->bytes(entry.id) == bytes) return entry.id;
    }
  }

 private:
  struct Slot {
    int32_t id = kNoToken;
    uint32_t hash_high = 0;
  };
  static uint64_t hash_of(std::string_view bytes) { return std::hash<std::string_view>{}(bytes); }

  std::string arena_;
  std::vector<uint32_t> offsets_;  // size() + 1 entries
  std::vector<Slot> slots_;        // open addressing, at most half full
  size_t mask_ = 0;
};

}  // namespace hadal
