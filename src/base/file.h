// Bounded reading of files that nobody vouches for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/status.h"

namespace hadal {

// An open regular file. Movable, thread-safe for pread. Directories, devices and broken links are refused at open.
class File {
 public:
  static Expected<File> open(const std::filesystem::path& path);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  const std::filesystem::path& path() const { return path_; }
  uint64_t size_bytes() const { return size_bytes_; }
  int fd() const { return fd_; }

  // Fills `out` from `offset`. Errors: kCorrupt when [offset, offset + out.size()) leaves the file, kIo from the OS.
  Status read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  File(std::filesystem::path path, int fd, uint64_t size_bytes);

  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t size_bytes_ = 0;
};

// The whole file as bytes; refuses files over max_bytes before allocating.
Expected<std::string> read_file(const std::filesystem::path& path, uint64_t max_bytes);

// Writes to a temporary name beside `path`, fsyncs, renames: readers see the old or the new file, never a part.
Status write_file_atomically(const std::filesystem::path& path, std::string_view content);

}  // namespace hadal
