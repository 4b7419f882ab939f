// SidecarReader::open and read_chunk on a whole file, and the table parser behind the checksum: no input may crash
// them, and lost bits that are accepted must ascend and stay in their chunk.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "quant/sidecar.h"

namespace {

void check_lost(const hadal::LostBits& lost, uint64_t num_codes) {
  for (size_t i = 0; i < lost.size(); ++i) {
    if (lost[i] >> 1 >= num_codes) std::abort();
    if (i > 0 && lost[i] >> 1 <= lost[i - 1] >> 1) std::abort();
  }
}

void read_all(const hadal::SidecarReader& reader) {
  for (const hadal::SidecarTensor& tensor : reader.table().tensors) {
    for (size_t i = 0; i < tensor.chunks.size(); ++i) {
      const auto lost = reader.read_chunk(tensor, i);
      if (lost) check_lost(*lost, tensor.num_codes - i * hadal::kSidecarChunkCodes);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > (1 << 20)) return 0;
  // Past the checksums, which an attacker can compute and a fuzzer cannot.
  const auto table = hadal::parse_sidecar_table({data, size}, 1 << 20);
  if (!table && table.error().message.empty()) std::abort();
  if (size > 4) {
    const auto lost = hadal::decode_lost_bits({data + 4, size - 4}, data[0] | data[1] << 8u, data[2] | data[3] << 8u);
    if (lost) check_lost(*lost, static_cast<uint64_t>(data[2] | data[3] << 8u));
  }
  const int fd = ::memfd_create("sidecar", MFD_CLOEXEC);
  if (fd < 0) std::abort();
  if (size > 0 && ::write(fd, data, size) != static_cast<ssize_t>(size)) std::abort();
  const auto reader = hadal::SidecarReader::open("/proc/self/fd/" + std::to_string(fd));
  if (reader) {
    read_all(*reader);
  } else if (reader.error().message.empty()) {
    std::abort();
  }
  ::close(fd);
  return 0;
}
