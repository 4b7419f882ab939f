#include "server/responses_store.h"

#include <algorithm>

namespace hadal {

void ResponsesStore::put(const std::string& id, StoredResponse response) {
  const size_t num_bytes = dump_json(response.body).size() + dump_json(response.messages).size();
  if (num_bytes > max_bytes_ || max_entries_ == 0) return;
  const std::lock_guard lock(mutex_);
  while (entries_.size() >= max_entries_ || num_bytes_ + num_bytes > max_bytes_) {
    drop(order_.front());
    order_.pop_front();
  }
  entries_[id] = {std::make_shared<const StoredResponse>(std::move(response)), num_bytes};
  order_.push_back(id);
  num_bytes_ += num_bytes;
}

std::shared_ptr<const StoredResponse> ResponsesStore::find(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : found->second.response;
}

void ResponsesStore::drop(const std::string& id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  num_bytes_ -= found->second.num_bytes;
  entries_.erase(found);
}

bool ResponsesStore::erase(const std::string& id) {
  const std::lock_guard lock(mutex_);
  if (!entries_.contains(id)) return false;
  drop(id);
  order_.erase(std::find(order_.begin(), order_.end(), id));
  return true;
}

}  // namespace hadal
