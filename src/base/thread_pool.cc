#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace hadal {
namespace {

void relax_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns the value of `flag` once it differs from `old`.
uint32_t wait_for_change(const std::atomic<uint32_t>& flag, uint32_t old, int spin_rounds) {
  for (int i = 0; i < spin_rounds; ++i) {
    const uint32_t value = flag.load(std::memory_order_acquire);
    if (value != old) return value;
    relax_cpu();
  }
  flag.wait(old, std::memory_order_acquire);
  return flag.load(std::memory_order_acquire);
}

void pin_current_thread(int cpu) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  CPU_SET(cpu, &mask);
  pthread_setaffinity_np(pthread_self(), sizeof(mask), &mask);  // best effort: a cpuset may forbid it
}

}  // namespace

ThreadPool::ThreadPool(ThreadPoolOptions options)
    : num_threads_(std::max(1, options.num_threads)), spin_rounds_(std::max(0, options.spin_rounds)) {
  workers_.reserve(static_cast<size_t>(num_threads_) - 1);
  for (int worker_idx = 1; worker_idx < num_threads_; ++worker_idx) {
    const int cpu =
        options.pin_cpus.empty() ? -1 : options.pin_cpus[static_cast<size_t>(worker_idx) % options.pin_cpus.size()];
    workers_.emplace_back([this, worker_idx, cpu] {
      if (cpu >= 0) pin_current_thread(cpu);
      worker_main(worker_idx);
    });
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  job_epoch_.fetch_add(1, std::memory_order_release);
  job_epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::dispatch(Invoke invoke, void* target) {
  invoke_ = invoke;
  target_ = target;
  num_running_.store(static_cast<uint32_t>(num_threads_) - 1, std::memory_order_relaxed);
  job_epoch_.fetch_add(1, std::memory_order_release);
  job_epoch_.notify_all();
  invoke(target, 0);
  for (uint32_t running; (running = num_running_.load(std::memory_order_acquire)) != 0;) {
    wait_for_change(num_running_, running, spin_rounds_);
  }
}

void ThreadPool::worker_main(int worker_idx) {
  for (uint32_t epoch = 0;;) {
    epoch = wait_for_change(job_epoch_, epoch, spin_rounds_);
    if (stopping_) return;
    invoke_(target_, worker_idx);
    // The owner waits for zero only, but parks on any value it saw last.
    if (num_running_.fetch_sub(1, std::memory_order_acq_rel) == 1) num_running_.notify_one();
  }
}

}  // namespace hadal
