// A fixed team of threads for data-parallel loops. The calling thread is worker 0, so a pool of one runs everything
// inline. Between jobs workers spin briefly, then park; a call allocates nothing and takes no lock.
// Single-owner: one thread calls run() and parallel_for(), never from inside a job.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace hadal {

struct ThreadPoolOptions {
  int num_threads = 1;  // the caller included, at least 1
  // Not empty: worker i is bound to pin_cpus[i % size]. The calling thread, worker 0, keeps its affinity.
  std::vector<int> pin_cpus;
  // How long an idle worker polls before it parks, in rounds of a few cycles; about 50 microseconds.
  int spin_rounds = 2000;
};

class ThreadPool {
 public:
  explicit ThreadPool(ThreadPoolOptions options);
  explicit ThreadPool(int num_threads) : ThreadPool(ThreadPoolOptions{.num_threads = num_threads}) {}
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(worker_idx) once on every worker and returns when all have; everything they wrote is then visible.
  // fn must not throw.
  template <typename Fn>
  void run(Fn&& fn) {
    if (num_threads_ == 1) {
      fn(0);
      return;
    }
    using Target = std::remove_reference_t<Fn>;
    dispatch([](void* target, int worker_idx) { (*static_cast<Target*>(target))(worker_idx); },
             const_cast<void*>(static_cast<const void*>(&fn)));
  }

  // Calls fn(begin, end, worker_idx) for disjoint ranges that cover [0, num_items). chunk = 0: one equal share for
  // each worker; chunk > 0: workers take the next `chunk` items until none are left.
  template <typename Fn>
  void parallel_for(int64_t num_items, Fn&& fn, int64_t chunk = 0) {
    if (num_items <= 0) return;
    if (num_threads_ == 1 || num_items == 1) {
      fn(int64_t{0}, num_items, 0);
    } else if (chunk == 0) {
      run([&](int worker_idx) {
        const int64_t begin = num_items * worker_idx / num_threads_;
        const int64_t end = num_items * (worker_idx + 1) / num_threads_;
        if (begin < end) fn(begin, end, worker_idx);
      });
    } else {
      std::atomic<int64_t> next{0};
      run([&](int worker_idx) {
        for (int64_t begin; (begin = next.fetch_add(chunk, std::memory_order_relaxed)) < num_items;) {
          fn(begin, begin + chunk < num_items ? begin + chunk : num_items, worker_idx);
        }
      });
    }
  }

 private:
  using Invoke = void (*)(void* target, int worker_idx);

  void dispatch(Invoke invoke, void* target);
  void worker_main(int worker_idx);

  const int num_threads_;
  const int spin_rounds_;
  // The job: written by the owner before it advances job_epoch_, read by workers after they saw the advance.
  Invoke invoke_ = nullptr;
  void* target_ = nullptr;
  bool stopping_ = false;
  alignas(64) std::atomic<uint32_t> job_epoch_{0};
  alignas(64) std::atomic<uint32_t> num_running_{0};
  std::vector<std::thread> workers_;
};

}  // namespace hadal
