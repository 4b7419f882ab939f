// Writes safetensors files: the header first, then the data, in order or in parallel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/safetensors.h"
#include "tensor/dtype.h"
#include "tensor/tensor_view.h"

namespace hadal {

struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
};

// Length field and JSON, padded with blanks so that data begins at a multiple of 8 bytes. Fills `layout` (may be null)
// with the absolute offsets, tensors in the given order. Requires distinct names and sizes that do not overflow.
std::string build_safetensors_header(std::span<const TensorToWrite> tensors,
                                     const std::map<std::string, std::string>& metadata,
                                     std::vector<TensorInfo>* layout = nullptr);

// One file in the making, under a temporary name until finish(). Without finish() nothing remains.
// append() is single-owner; write_range() is thread-safe. Movable.
class SafetensorsWriter {
 public:
  static Expected<SafetensorsWriter> create(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                                            const std::map<std::string, std::string>& metadata = {});
  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) noexcept;
  ~SafetensorsWriter();

  const std::vector<TensorInfo>& layout() const;

  // The next bytes of the data section: tensors in order, in pieces of any size.
  Status append(std::span<const std::byte> bytes);
  // Bytes [offset_bytes, + bytes.size()) of tensor tensor_idx, in any order, each byte once.
  Status write_range(size_t tensor_idx, uint64_t offset_bytes, std::span<const std::byte> bytes);

  // Gives the file its name. kInvalidArgument when not every byte was written.
  Status finish();

 private:
  struct State;
  explicit SafetensorsWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace hadal
