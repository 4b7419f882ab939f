// Where ranks leave each other their addresses before they can talk.
#pragma once

#include <chrono>
#include <string>

#include "base/status.h"

namespace hadal {

// Thread-safe.
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  virtual Status set(const std::string& key, const std::string& value) = 0;
  // Waits for the key. Errors: kUnavailable naming the key after `timeout`.
  virtual Expected<std::string> get(const std::string& key, std::chrono::milliseconds timeout) = 0;
};

}  // namespace hadal
