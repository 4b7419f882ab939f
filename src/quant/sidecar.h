// What the exact map (range_map.h) cannot keep: one bit for every code that it rounded, and the original header of the
// shard. One file a shard beside the converted one: with both, the original shard can be restored to the byte.
//
// Layout, integers little-endian, version 1 (numbers never change; readers refuse other versions):
//   "HADALSC1" | original header (its length field included) | payloads | table | footer
//   payload of a chunk of 2^20 codes: its lost bits ascending, each a varint of (gap << 1 | above), gap = codes skipped
//     since the previous one
//   table: u64 header bytes, u64 XXH3 of the header, u32 number of tensors, then for each: u32 name length, name,
//     u64 number of codes, and for each chunk: u32 lost bits, u32 payload bytes, u64 XXH3 of the payload,
//     u64 XXH3 of the original codes
//   footer: u64 table offset, u64 table bytes, u64 XXH3 of the table, "HADALSC1"
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "quant/code_map.h"
#include "quant/output_file.h"

namespace hadal {

inline constexpr uint64_t kSidecarChunkCodes = kMaxMapCodes;

struct SidecarChunk {
  uint32_t num_lost = 0;
  uint32_t payload_bytes = 0;
  uint64_t payload_hash = 0;
  uint64_t codes_hash = 0;
  uint64_t payload_offset = 0;  // in the file; not stored
};

struct SidecarTensor {
  std::string name;
  uint64_t num_codes = 0;
  std::vector<SidecarChunk> chunks;  // [ceil(num_codes / kSidecarChunkCodes)]
};

struct SidecarTable {
  uint64_t header_bytes = 0, header_hash = 0;
  std::vector<SidecarTensor> tensors;
};

// XXH3, 64 bits.
uint64_t hash_bytes(std::span<const std::byte> bytes);

// A chunk's lost bits on their way into a file. Thread-safe (a pure function).
struct EncodedChunk {
  std::vector<uint8_t> payload;
  uint32_t num_lost = 0;
  uint64_t codes_hash = 0;
};
EncodedChunk encode_lost_bits(const LostBits& lost, std::span<const uint8_t> original_codes);

// Errors: kCorrupt. `num_codes` bounds the positions.
Expected<LostBits> decode_lost_bits(std::span<const uint8_t> payload, uint32_t num_lost, uint64_t num_codes);

// Checks everything against the file's size; allocates no more than a few times table.size(). `payloads_end` is where
// the payloads must end. Errors: kCorrupt.
Expected<SidecarTable> parse_sidecar_table(std::span<const uint8_t> table, uint64_t payloads_end);

// Single-owner. Chunks come in order: tensor by tensor.
class SidecarWriter {
 public:
  static Expected<SidecarWriter> create(const std::filesystem::path& path, std::string_view original_header);

  void begin_tensor(const std::string& name, uint64_t num_codes);
  Status add_chunk(const EncodedChunk& chunk);
  uint64_t size_bytes() const { return position_; }
  // Requires every chunk of every tensor.
  Status commit();

 private:
  SidecarWriter(OutputFile file, SidecarTable table, uint64_t position);

  OutputFile file_;
  SidecarTable table_;
  uint64_t position_ = 0;
};

// Immutable; reads are thread-safe.
class SidecarReader {
 public:
  // Errors name the file: kNotFound, kCorrupt, kUnsupported (another version), kIo.
  static Expected<SidecarReader> open(const std::filesystem::path& path);

  const std::string& original_header() const { return header_; }
  const SidecarTable& table() const { return table_; }
  // Null when absent.
  const SidecarTensor* find(std::string_view name) const;
  Expected<LostBits> read_chunk(const SidecarTensor& tensor, size_t chunk_idx) const;

 private:
  SidecarReader(File file, SidecarTable table, std::string header);

  File file_;
  SidecarTable table_;
  std::string header_;
};

}  // namespace hadal
