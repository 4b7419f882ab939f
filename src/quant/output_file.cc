#include "quant/output_file.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/file.h"

namespace hadal {

namespace fs = std::filesystem;

namespace {

constexpr size_t kCopyBytes = size_t{1} << 20;

tl::unexpected<Error> os_error(const fs::path& path, const char* what) {
  const int code = errno;
  const bool full = code == ENOSPC || code == EDQUOT || code == EFBIG;
  return make_error(full ? ErrorCode::kResourceExhausted : ErrorCode::kIo, "{}: cannot {}: {}", path.string(), what,
                    std::strerror(code));
}

}  // namespace

OutputFile::OutputFile(fs::path path, fs::path temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::move(other.temporary_)), fd_(std::exchange(other.fd_, -1)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(temporary_, other.temporary_);
  std::swap(fd_, other.fd_);
  return *this;
}

OutputFile::~OutputFile() { discard(); }

void OutputFile::discard() {
  if (fd_ < 0) return;
  ::close(std::exchange(fd_, -1));
  ::unlink(temporary_.c_str());
}

Expected<OutputFile> OutputFile::create(const fs::path& path) {
  fs::path temporary = path;
  temporary += fmt::format(".tmp.{}", ::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd < 0) return os_error(temporary, "create");
  return OutputFile(path, std::move(temporary), fd);
}

Status OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      return os_error(temporary_, "write");
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return {};
}

void OutputFile::start_writeback(uint64_t offset, uint64_t size_bytes) const {
  ::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(size_bytes), SYNC_FILE_RANGE_WRITE);
}

Status OutputFile::commit() {
  if (::fsync(fd_) != 0) {
    auto error = os_error(temporary_, "fsync");
    discard();
    return error;
  }
  // What was written once is not read again soon.
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    auto error = os_error(path_, "rename to");
    discard();
    return error;
  }
  ::close(std::exchange(fd_, -1));
  sync_folder(path_.parent_path());
  return {};
}

Status copy_file_durably(const fs::path& from, const fs::path& to) {
  HADAL_ASSIGN_OR_RETURN(const File source, File::open(from));
  HADAL_ASSIGN_OR_RETURN(OutputFile out, OutputFile::create(to));
  std::vector<std::byte> buffer(std::min<uint64_t>(kCopyBytes, source.size_bytes()));
  for (uint64_t offset = 0; offset < source.size_bytes(); offset += buffer.size()) {
    const auto part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), source.size_bytes() - offset));
    HADAL_RETURN_IF_ERROR(source.read_at(offset, part));
    HADAL_RETURN_IF_ERROR(out.write_at(offset, part));
  }
  return out.commit();
}

bool is_temporary_name(std::string_view name) {
  const size_t at = name.rfind(".tmp.");
  if (at == std::string_view::npos || at == 0 || at + 5 == name.size()) return false;
  return std::all_of(name.begin() + static_cast<ptrdiff_t>(at) + 5, name.end(),
                     [](char c) { return c >= '0' && c <= '9'; });
}

void remove_stale_temporaries(const fs::path& dir) {
  std::vector<fs::path> stale;
  std::error_code code;
  for (fs::directory_iterator at(dir, code), end; !code && at != end; at.increment(code)) {
    if (is_temporary_name(at->path().filename().string())) stale.push_back(at->path());
  }
  for (const fs::path& path : stale) ::unlink(path.c_str());
}

void sync_folder(const fs::path& dir) {
  const int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

Expected<uint64_t> free_disk_bytes(const fs::path& dir) {
  struct statvfs info {};
  if (::statvfs(dir.c_str(), &info) != 0) return os_error(dir, "read the free space of");
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

}  // namespace hadal
