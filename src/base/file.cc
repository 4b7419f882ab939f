#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace hadal {
namespace {

tl::unexpected<Error> errno_error(const std::filesystem::path& path, const char* what) {
  const int code = errno;
  return make_error(code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot {}: {}", path.string(), what,
                    std::strerror(code));
}

Status write_all(int fd, const std::filesystem::path& path, std::string_view content) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno_error(path, "write");
    }
    content.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

}  // namespace

File::File(std::filesystem::path path, int fd, uint64_t size_bytes)
    : path_(std::move(path)), fd_(fd), size_bytes_(size_bytes) {}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_bytes_(other.size_bytes_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

Expected<File> File::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int code = errno;
    std::error_code ignored;
    const auto target = std::filesystem::read_symlink(path, ignored);
    if (code == ENOENT && !target.empty()) {
      return make_error(ErrorCode::kNotFound, "{}: a symbolic link to \"{}\", which does not exist", path.string(),
                        target.string());
    }
    errno = code;
    return errno_error(path, "open");
  }
  File file(path, fd, 0);
  struct stat info {};
  if (::fstat(fd, &info) != 0) return errno_error(path, "stat");
  if (!S_ISREG(info.st_mode)) {
    return make_error(ErrorCode::kInvalidArgument, "{}: not a regular file", path.string());
  }
  file.size_bytes_ = static_cast<uint64_t>(info.st_size);
  return file;
}

Status File::read_at(uint64_t offset, std::span<std::byte> out) const {
  if (offset > size_bytes_ || out.size() > size_bytes_ - offset) {
    return make_error(ErrorCode::kCorrupt, "{}: bytes {} to {} asked, the file has {}", path_.string(), offset,
                      offset + out.size(), size_bytes_);
  }
  while (!out.empty()) {
    const ssize_t got = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      return errno_error(path_, "read");
    }
    if (got == 0) {
      return make_error(ErrorCode::kCorrupt, "{}: ends at byte {}, it had {} when opened", path_.string(), offset,
                        size_bytes_);
    }
    out = out.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

Expected<std::string> read_file(const std::filesystem::path& path, uint64_t max_bytes) {
  HADAL_ASSIGN_OR_RETURN(const File file, File::open(path));
  if (file.size_bytes() > max_bytes) {
    return make_error(ErrorCode::kCorrupt, "{}: {} bytes, at most {} expected of such a file", path.string(),
                      file.size_bytes(), max_bytes);
  }
  std::string content(file.size_bytes(), '\0');
  HADAL_RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(content))));
  return content;
}

Status write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  std::filesystem::path temporary = path;
  temporary += fmt::format(".tmp.{}", ::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return errno_error(temporary, "create");
  Status status = write_all(fd, temporary, content);
  if (status && ::fsync(fd) != 0) status = errno_error(temporary, "fsync");
  ::close(fd);
  if (status && ::rename(temporary.c_str(), path.c_str()) != 0) status = errno_error(path, "rename to");
  if (!status) ::unlink(temporary.c_str());
  return status;
}

}  // namespace hadal
