// A store inside one process, for ranks that are threads.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>

#include "comm/key_value_store.h"

namespace hadal {

class MemoryStore final : public KeyValueStore {
 public:
  Status set(const std::string& key, const std::string& value) override {
    const std::lock_guard lock(mutex_);
    values_[key] = value;
    changed_.notify_all();
    return {};
  }
  Expected<std::string> get(const std::string& key, std::chrono::milliseconds timeout) override {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, timeout, [&] { return values_.contains(key); })) {
      return make_error(ErrorCode::kUnavailable, "key {} was not set within {} ms", key, timeout.count());
    }
    return values_[key];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
};

}  // namespace hadal
