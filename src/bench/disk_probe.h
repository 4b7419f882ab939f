// Reads a file past the page cache, several requests at a time. Internal to bench/.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/status.h"

namespace hadal {

// Goes through the file in pieces, from the start again at its end. Movable.
class DiskProbe {
 public:
  // `path`: a file, or a folder whose largest file is taken (not of subfolders). Errors: those of opening it,
  // kNotFound (a folder without files), kUnsupported (the file system has no direct I/O, or the file is under 1 MiB).
  static Expected<DiskProbe> open(const std::filesystem::path& path);
  DiskProbe(DiskProbe&& other) noexcept;
  DiskProbe(const DiskProbe&) = delete;
  DiskProbe& operator=(const DiskProbe&) = delete;
  ~DiskProbe();

  const std::filesystem::path& path() const { return path_; }
  // Reads the next piece with num_jobs requests in flight. Bytes per second. Errors: kIo.
  Expected<double> sample(int num_jobs);

 private:
  DiskProbe(std::filesystem::path path, int fd, int64_t num_blocks);

  std::filesystem::path path_;
  int fd_ = -1;
  int64_t num_blocks_ = 0;  // whole ones in the file
  int64_t next_block_ = 0;
};

}  // namespace hadal
