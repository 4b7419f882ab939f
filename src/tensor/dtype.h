// Element types of tensors as files store them. Names are those of the safetensors format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,  // OCP e4m3fn: +-448, no infinities (fp8.h)
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,  // one byte
};

size_t dtype_size_bytes(DType dtype);

// "BF16", "F8_E4M3", "F32", ...
const char* dtype_name(DType dtype);

// Exact spelling only; nothing for an unknown name.
std::optional<DType> parse_dtype(std::string_view name);

// Every name parse_dtype() takes, for "did you mean".
const std::vector<std::string>& dtype_names();

}  // namespace hadal
