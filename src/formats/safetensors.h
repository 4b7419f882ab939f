// Reads safetensors files: an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}
// (and "__metadata__": strings), then the data. Nothing in the header is trusted: every length is checked against the
// file before it is used or allocated, and data is read by bounded pread only.
// Format: the safetensors project's README (offsets are relative to the end of the header; data covers the rest of the
// file without holes or overlap).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/tensor_view.h"

namespace hadal {

// The limit of the reference implementation.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t data_begin = 0;  // absolute offsets in the file, [begin, end)
  uint64_t data_end = 0;

  uint64_t size_bytes() const { return data_end - data_begin; }
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;              // in the order of their data
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// Parses the JSON part. `data_begin` is the absolute offset behind it, `file_size_bytes` the size of the whole file.
// Errors: kCorrupt or kUnsupported, naming the tensor, what was expected and found. Cost: a few times json.size().
Expected<SafetensorsHeader> parse_safetensors_header(std::string_view json, uint64_t data_begin,
                                                     uint64_t file_size_bytes);

// An open file whose header has been checked. Immutable; reads are thread-safe. Movable.
class SafetensorsFile {
 public:
  // Reads and checks the header. Errors name the file and what to do.
  static Expected<SafetensorsFile> open(const std::filesystem::path& path);

  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::filesystem::path& path() const { return file_.path(); }
  uint64_t size_bytes() const { return file_.size_bytes(); }
  // For readers with their own I/O (direct I/O, cache hints); offsets of TensorInfo apply.
  const File& file() const { return file_; }

  // Null when absent. Points into tensors(). O(log n).
  const TensorInfo* find(std::string_view name) const;

  // Fills `out`, whose size must be tensor.size_bytes(), with the tensor's bytes as stored (little-endian).
  // Errors: kInvalidArgument for a wrong size of `out`, kCorrupt when the file shrank, kIo.
  Status read(const TensorInfo& tensor, std::span<std::byte> out) const;
  // Fills `out` from byte `offset_bytes` of the tensor; kInvalidArgument when that leaves the tensor.
  Status read_range(const TensorInfo& tensor, uint64_t offset_bytes, std::span<std::byte> out) const;

 private:
  SafetensorsFile(File file, SafetensorsHeader header);

  File file_;
  SafetensorsHeader header_;
  std::vector<size_t> by_name_;  // indices into header_.tensors, sorted by name
};

}  // namespace hadal
