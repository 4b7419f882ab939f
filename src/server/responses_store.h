// Answers of the Responses API that clients may come back to, in memory: the oldest are forgotten first.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/json.h"

namespace hadal {

struct StoredResponse {
  Json body;      // the response object
  Json messages;  // the conversation up to and with this answer, without instructions
};

// Thread-safe.
class ResponsesStore {
 public:
  explicit ResponsesStore(size_t max_entries = 1024, size_t max_bytes = size_t{64} << 20)
      : max_entries_(max_entries), max_bytes_(max_bytes) {}

  // Keeps nothing that is larger than the whole store. An id is put once.
  void put(const std::string& id, StoredResponse response);
  std::shared_ptr<const StoredResponse> find(const std::string& id) const;  // null: unknown or forgotten
  bool erase(const std::string& id);

 private:
  struct Entry {
    std::shared_ptr<const StoredResponse> response;
    size_t num_bytes = 0;
  };
  void drop(const std::string& id);

  const size_t max_entries_;
  const size_t max_bytes_;  // of the JSON texts
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Entry> entries_;
  std::deque<std::string> order_;  // oldest first
  size_t num_bytes_ = 0;
};

}  // namespace hadal
