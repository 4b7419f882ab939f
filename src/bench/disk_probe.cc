#include "bench/disk_probe.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"

namespace hadal {
namespace {

constexpr int64_t kBlockBytes = 1 << 20;   // of one request
constexpr int64_t kBlocksPerSample = 128;  // 0.1 s at 1.3 GB/s
constexpr size_t kDirectAlignment = 4096;  // direct I/O: buffer, offset and length; covers 512 and 4096-byte sectors

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};

Expected<std::filesystem::path> largest_file(const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::path largest;
  uint64_t largest_bytes = 0;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (!it->is_regular_file(ignored)) continue;
    const uint64_t size_bytes = it->file_size(ignored);
    if (!ignored && size_bytes > largest_bytes) {
      largest = it->path();
      largest_bytes = size_bytes;
    }
  }
  if (error) return make_error(ErrorCode::kIo, "{}: {}", dir.string(), error.message());
  if (largest.empty()) return make_error(ErrorCode::kNotFound, "{}: no file to measure the disk with", dir.string());
  return largest;
}

}  // namespace

Expected<DiskProbe> DiskProbe::open(const std::filesystem::path& path) {
  std::filesystem::path file_path = path;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    HADAL_ASSIGN_OR_RETURN(file_path, largest_file(path));
  }
  HADAL_ASSIGN_OR_RETURN(const File file, File::open(file_path));
  const int64_t num_blocks = static_cast<int64_t>(file.size_bytes()) / kBlockBytes;
  if (num_blocks == 0) {
    return make_error(ErrorCode::kUnsupported, "{}: {} bytes, the disk probe needs a file of at least {}",
                      file_path.string(), file.size_bytes(), kBlockBytes);
  }
  const int fd = ::open(file_path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0) {
    return make_error(ErrorCode::kUnsupported, "{}: no direct I/O: {}", file_path.string(), std::strerror(errno));
  }
  return DiskProbe(std::move(file_path), fd, num_blocks);
}

DiskProbe::DiskProbe(std::filesystem::path path, int fd, int64_t num_blocks)
    : path_(std::move(path)), fd_(fd), num_blocks_(num_blocks) {}

DiskProbe::DiskProbe(DiskProbe&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      num_blocks_(other.num_blocks_),
      next_block_(other.next_block_) {}

DiskProbe::~DiskProbe() {
  if (fd_ >= 0) ::close(fd_);
}

Expected<double> DiskProbe::sample(int num_jobs) {
  const int64_t first_block = next_block_, count = std::min(kBlocksPerSample, num_blocks_);
  next_block_ = (first_block + count) % num_blocks_;
  std::atomic<int64_t> next{0};
  std::atomic<int> failure{0};
  const auto read_blocks = [&] {
    const std::unique_ptr<void, FreeDeleter> buffer(std::aligned_alloc(kDirectAlignment, kBlockBytes));
    if (buffer == nullptr) failure = ENOMEM;
    for (int64_t i; failure == 0 && (i = next.fetch_add(1)) < count;) {
      const off_t offset = (first_block + i) % num_blocks_ * kBlockBytes;
      ssize_t got = 0;
      do {
        got = ::pread(fd_, buffer.get(), kBlockBytes, offset);
      } while (got < 0 && errno == EINTR);
      if (got != kBlockBytes) failure = got < 0 ? errno : EIO;
    }
  };
  const auto begin = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> jobs;
    for (int i = 0; i < num_jobs; ++i) jobs.emplace_back(read_blocks);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (failure != 0) {
    return make_error(ErrorCode::kIo, "{}: direct read: {}", path_.string(), std::strerror(failure));
  }
  return static_cast<double>(count * kBlockBytes) / seconds.count();
}

}  // namespace hadal
