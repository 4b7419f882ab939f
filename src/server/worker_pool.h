// Threads for work that would hold up an IO thread: parsing, templates, tokenising.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace hadal {

// Thread-safe. The queue is as long as its users make it: here at most one task per connection.
class WorkerPool {
 public:
  explicit WorkerPool(int num_threads);
  ~WorkerPool();  // as stop()

  void run(std::function<void()> task);  // dropped after stop()
  // Drops what has not begun, and joins. Idempotent.
  void stop();

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace hadal
