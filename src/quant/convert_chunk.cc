#include "quant/convert_chunk.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "tensor/bf16.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

constexpr uint64_t kChunkFloats = uint64_t{1} << 18;

std::span<const uint8_t> codes_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}
std::span<uint8_t> codes_of(std::span<std::byte> bytes) {
  return {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()};
}

// Tensors begin at any byte of a file.
float load_f32(const std::byte* at) {
  float value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
float load_float(DType dtype, const std::byte* at) {
  if (dtype == DType::kF32) return load_f32(at);
  bf16_t value;
  std::memcpy(&value, at, sizeof value);
  return bf16_to_f32(value);
}

template <typename Map>
void map_floats(std::span<const std::byte> in, std::span<std::byte> out, Map map) {
  for (size_t at = 0; at < in.size(); at += sizeof(float)) {
    const float value = map(load_f32(in.data() + at));
    std::memcpy(out.data() + at, &value, sizeof value);
  }
}

// PyTorch's cast to float8_e4m3fn does not saturate: what would round beyond 448 becomes NaN.
uint8_t cast_as_peer(float value) {
  const float scaled = value * 240.0f / 448.0f;
  if (std::fabs(scaled) > 464.0f) return static_cast<uint8_t>(kE4m3NaN | (std::signbit(scaled) ? 0x80 : 0));
  return f32_to_e4m3(scaled);
}

void cast_chunk(const PlannedOutput& output, std::span<const std::byte> in, std::span<std::byte> out) {
  const DType dtype = output.source->info.dtype;
  const size_t in_bytes = dtype_size_bytes(dtype), out_bytes = dtype_size_bytes(output.dtype);
  for (size_t i = 0; i * in_bytes < in.size(); ++i) {
    const float value = load_float(dtype, in.data() + i * in_bytes);
    if (output.action == TensorAction::kSeedCast) {
      out[i] = static_cast<std::byte>(cast_as_peer(value));
    } else {
      const float scaled = value * 448.0f / 240.0f;
      std::memcpy(out.data() + i * out_bytes, &scaled, sizeof scaled);
    }
  }
}

}  // namespace

ChunkLayout chunk_layout(const PlannedOutput& output) {
  switch (output.action) {
    case TensorAction::kCopy:
    case TensorAction::kMapCodes:
    case TensorAction::kRestoreCodes:
      return {output.size_bytes(), kMaxMapCodes, 1, 1};
    case TensorAction::kMapScales:
    case TensorAction::kRestoreScales:
      return {output.size_bytes() / sizeof(float), kChunkFloats, sizeof(float), sizeof(float)};
    case TensorAction::kSeedCast:
    case TensorAction::kSeedScales:
      return {static_cast<uint64_t>(output.shape.num_elements()), kChunkFloats,
              dtype_size_bytes(output.source->info.dtype), dtype_size_bytes(output.dtype)};
    case TensorAction::kConstant:
      return {1, 1, 0, sizeof(float)};
    case TensorAction::kRowCodes:
    case TensorAction::kRowScales:
      break;
  }
  HADAL_CHECK(false, "{} is cut by rows", output.name);
}

bool transform_chunk(const PlannedOutput& output, RangeMap map, std::span<const std::byte> in, std::span<std::byte> out,
                     LostBits& lost, CodeMapStats& stats) {
  switch (output.action) {
    case TensorAction::kMapCodes:
      stats = map_codes(map, codes_of(in), codes_of(out), map == RangeMap::kExact ? &lost : nullptr);
      return true;
    case TensorAction::kRestoreCodes:
      stats.num_codes = in.size();
      stats.num_inexact = lost.size();
      return unmap_exact_codes(codes_of(in), lost, codes_of(out));
    default:
      define_chunk(output, map, in, out);
      return true;
  }
}

void define_chunk(const PlannedOutput& output, RangeMap map, std::span<const std::byte> in, std::span<std::byte> out) {
  switch (output.action) {
    case TensorAction::kCopy:
      std::copy(in.begin(), in.end(), out.begin());
      return;
    case TensorAction::kMapCodes: {
      const auto& table = range_map_codes(map);
      std::transform(in.begin(), in.end(), out.begin(),
                     [&](std::byte code) { return static_cast<std::byte>(table[static_cast<uint8_t>(code)]); });
      return;
    }
    case TensorAction::kMapScales:
      map_floats(in, out, [map](float scale) { return range_map_scale(map, scale); });
      return;
    case TensorAction::kRestoreScales:
      map_floats(in, out, [](float scale) { return scale / 2; });
      return;
    case TensorAction::kSeedCast:
    case TensorAction::kSeedScales:
      return cast_chunk(output, in, out);
    case TensorAction::kConstant:
      std::memcpy(out.data(), &output.value, sizeof output.value);
      return;
    case TensorAction::kRestoreCodes:
    case TensorAction::kRowCodes:
    case TensorAction::kRowScales:
      break;
  }
  HADAL_CHECK(false, "{} is not defined element by element", output.name);
}

}  // namespace hadal
