#include "tensor/dtype.h"

#include <array>

namespace hadal {
namespace {

struct DTypeRow {
  DType dtype;
  const char* name;
  size_t size_bytes;
};

// In the order of the enum: dtype_row() indexes by value.
constexpr std::array<DTypeRow, 15> kRows = {{
    {DType::kF64, "F64", 8},
    {DType::kF32, "F32", 4},
    {DType::kF16, "F16", 2},
    {DType::kBF16, "BF16", 2},
    {DType::kF8E4M3, "F8_E4M3", 1},
    {DType::kF8E5M2, "F8_E5M2", 1},
    {DType::kI64, "I64", 8},
    {DType::kI32, "I32", 4},
    {DType::kI16, "I16", 2},
    {DType::kI8, "I8", 1},
    {DType::kU64, "U64", 8},
    {DType::kU32, "U32", 4},
    {DType::kU16, "U16", 2},
    {DType::kU8, "U8", 1},
    {DType::kBool, "BOOL", 1},
}};

constexpr bool rows_follow_enum() {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<size_t>(kRows[i].dtype) != i) return false;
  }
  return kRows.size() == static_cast<size_t>(DType::kBool) + 1;
}
static_assert(rows_follow_enum());

const DTypeRow& dtype_row(DType dtype) { return kRows[static_cast<size_t>(dtype)]; }

}  // namespace

size_t dtype_size_bytes(DType dtype) { return dtype_row(dtype).size_bytes; }

const char* dtype_name(DType dtype) { return dtype_row(dtype).name; }

std::optional<DType> parse_dtype(std::string_view name) {
  for (const DTypeRow& row : kRows) {
    if (name == row.name) return row.dtype;
  }
  return std::nullopt;
}

const std::vector<std::string>& dtype_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const DTypeRow& row : kRows) all.emplace_back(row.name);
    return all;
  }();
  return names;
}

}  // namespace hadal
