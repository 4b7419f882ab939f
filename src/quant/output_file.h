// A file in the making: written under a temporary name, at any offset, and given its name only when it is whole and on
// the disk. What a killed process leaves behind is a temporary file, never a part under the final name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hadal {

// Movable. write_at() is thread-safe; the rest single-owner. Destroyed without commit(), nothing remains.
class OutputFile {
 public:
  // Creates PATH.tmp.<process id>.
  static Expected<OutputFile> create(const std::filesystem::path& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  const std::filesystem::path& path() const { return path_; }

  // Errors: kResourceExhausted when the disk, the quota or the file size limit is reached, kIo.
  Status write_at(uint64_t offset, std::span<const std::byte> bytes) const;
  // Asks the system to start writing this range to the disk now, so that commit() has less to wait for.
  void start_writeback(uint64_t offset, uint64_t size_bytes) const;
  // fsync, rename, fsync of the folder. Errors as write_at(); the temporary file is then removed.
  Status commit();

 private:
  OutputFile(std::filesystem::path path, std::filesystem::path temporary, int fd);
  void discard();

  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

// Copies the bytes of a file (a link's target) to a new plain file that nobody may execute. Errors name the file.
Status copy_file_durably(const std::filesystem::path& from, const std::filesystem::path& to);

// "*.tmp.<digits>".
bool is_temporary_name(std::string_view name);

// Removes temporary names from a folder (not its subfolders): what processes that were killed left there.
void remove_stale_temporaries(const std::filesystem::path& dir);

// Waits until the folder's entries are on the disk. File systems that cannot are taken at their word.
void sync_folder(const std::filesystem::path& dir);

// Bytes an unprivileged process may still write to the file system of an existing folder.
Expected<uint64_t> free_disk_bytes(const std::filesystem::path& dir);

}  // namespace hadal
