// SafetensorsFile::open on a whole file: no input may crash it, and what it accepts must be readable to the last byte.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "formats/safetensors.h"

namespace {

void check_accepted(const hadal::SafetensorsFile& file, size_t size) {
  uint64_t position = file.tensors().empty() ? size : file.tensors().front().data_begin;
  for (const hadal::TensorInfo& tensor : file.tensors()) {
    if (tensor.data_begin != position || tensor.data_end > size) std::abort();
    if (file.find(tensor.name) != &tensor) std::abort();
    std::vector<std::byte> bytes(tensor.size_bytes());
    if (!file.read(tensor, bytes)) std::abort();
    position = tensor.data_end;
  }
  if (position != size) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > (1 << 20)) return 0;
  const int fd = ::memfd_create("safetensors", MFD_CLOEXEC);
  if (fd < 0) std::abort();
  if (size > 0 && ::write(fd, data, size) != static_cast<ssize_t>(size)) std::abort();
  const auto file = hadal::SafetensorsFile::open("/proc/self/fd/" + std::to_string(fd));
  if (file) {
    check_accepted(*file, size);
  } else if (file.error().message.empty()) {
    std::abort();
  }
  ::close(fd);
  return 0;
}
