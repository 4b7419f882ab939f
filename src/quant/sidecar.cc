#include "quant/sidecar.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "formats/message_text.h"
#include "formats/safetensors.h"

namespace hadal {
namespace {

constexpr std::string_view kMagic = "HADALSC1";
constexpr std::string_view kMagicFamily = "HADALSC";
constexpr uint64_t kFooterBytes = 3 * 8 + 8;
constexpr uint64_t kChunkEntryBytes = 4 + 4 + 8 + 8;
constexpr uint64_t kMaxTableBytes = 1u << 30;
constexpr uint32_t kMaxNameBytes = 1u << 20;

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

uint64_t num_chunks_of(uint64_t num_codes) {
  return num_codes / kSidecarChunkCodes + (num_codes % kSidecarChunkCodes != 0 ? 1 : 0);
}

template <typename T>
void put(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>((value >> (8 * i)) & 0xFF));
}

void put_varint(std::vector<uint8_t>& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<uint8_t>(value | 0x80));
  out.push_back(static_cast<uint8_t>(value));
}

// Reads little-endian fields; every take checks what is left.
class FieldReader {
 public:
  explicit FieldReader(std::span<const uint8_t> bytes) : left_(bytes) {}

  template <typename T>
  bool take(T& out) {
    if (left_.size() < sizeof(T)) return false;
    out = 0;
    for (size_t i = 0; i < sizeof(T); ++i) out |= static_cast<T>(static_cast<T>(left_[i]) << (8 * i));
    left_ = left_.subspan(sizeof(T));
    return true;
  }
  bool take_text(size_t size, std::string& out) {
    if (left_.size() < size) return false;
    out.assign(reinterpret_cast<const char*>(left_.data()), size);
    left_ = left_.subspan(size);
    return true;
  }
  size_t size_left() const { return left_.size(); }

 private:
  std::span<const uint8_t> left_;
};

std::string table_bytes(const SidecarTable& table) {
  std::string out;
  put(out, table.header_bytes);
  put(out, table.header_hash);
  put(out, static_cast<uint32_t>(table.tensors.size()));
  for (const SidecarTensor& tensor : table.tensors) {
    put(out, static_cast<uint32_t>(tensor.name.size()));
    out += tensor.name;
    put(out, tensor.num_codes);
    for (const SidecarChunk& chunk : tensor.chunks) {
      put(out, chunk.num_lost);
      put(out, chunk.payload_bytes);
      put(out, chunk.payload_hash);
      put(out, chunk.codes_hash);
    }
  }
  return out;
}

tl::unexpected<Error> cut_table() { return make_error(ErrorCode::kCorrupt, "sidecar table ends in the middle"); }

Expected<SidecarTensor> parse_tensor(FieldReader& fields, uint64_t payloads_end, uint64_t& position) {
  SidecarTensor tensor;
  uint32_t name_bytes = 0;
  if (!fields.take(name_bytes)) return cut_table();
  if (name_bytes == 0 || name_bytes > kMaxNameBytes) {
    return make_error(ErrorCode::kCorrupt, "sidecar table holds a name of {} bytes", name_bytes);
  }
  if (!fields.take_text(name_bytes, tensor.name) || !fields.take(tensor.num_codes)) return cut_table();
  const uint64_t num_chunks = num_chunks_of(tensor.num_codes);
  if (num_chunks > fields.size_left() / kChunkEntryBytes) return cut_table();
  for (uint64_t i = 0; i < num_chunks; ++i) {
    SidecarChunk chunk;
    fields.take(chunk.num_lost);
    fields.take(chunk.payload_bytes);
    fields.take(chunk.payload_hash);
    fields.take(chunk.codes_hash);
    chunk.payload_offset = position;
    const uint64_t num_codes = std::min(kSidecarChunkCodes, tensor.num_codes - i * kSidecarChunkCodes);
    if (chunk.num_lost > num_codes || chunk.payload_bytes < chunk.num_lost ||
        chunk.payload_bytes > 4 * uint64_t{chunk.num_lost} || chunk.payload_bytes > payloads_end - position) {
      return make_error(ErrorCode::kCorrupt, "tensor {}, chunk {}: {} lost bits of {} codes in {} bytes",
                        quote_name(tensor.name), i, chunk.num_lost, num_codes, chunk.payload_bytes);
    }
    position += chunk.payload_bytes;
    tensor.chunks.push_back(chunk);
  }
  return tensor;
}

struct Footer {
  uint64_t table_offset = 0, table_bytes = 0, table_hash = 0;
};

Expected<Footer> read_footer(const File& file) {
  std::string magic(kMagic.size(), '\0'), end(kFooterBytes, '\0');
  if (file.size_bytes() < kMagic.size() + kFooterBytes) {
    return make_error(ErrorCode::kCorrupt, "{} bytes, too short for a sidecar", file.size_bytes());
  }
  HADAL_RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(magic))));
  HADAL_RETURN_IF_ERROR(file.read_at(file.size_bytes() - kFooterBytes, std::as_writable_bytes(std::span(end))));
  if (!magic.starts_with(kMagicFamily)) return make_error(ErrorCode::kCorrupt, "not a sidecar of hadal convert");
  if (magic != kMagic) {
    return make_error(ErrorCode::kUnsupported, "sidecar version {}, this program reads version 1; use a newer hadal",
                      quote_name(magic.substr(kMagicFamily.size())));
  }
  if (!end.ends_with(kMagic)) return make_error(ErrorCode::kCorrupt, "truncated: the footer is missing");
  Footer footer;
  FieldReader fields({reinterpret_cast<const uint8_t*>(end.data()), end.size()});
  fields.take(footer.table_offset);
  fields.take(footer.table_bytes);
  fields.take(footer.table_hash);
  const uint64_t table_end = file.size_bytes() - kFooterBytes;
  if (footer.table_bytes > kMaxTableBytes || footer.table_bytes > table_end ||
      footer.table_offset != table_end - footer.table_bytes || footer.table_offset < kMagic.size()) {
    return make_error(ErrorCode::kCorrupt, "table of {} bytes at {}, the file has {}", footer.table_bytes,
                      footer.table_offset, file.size_bytes());
  }
  return footer;
}

Expected<SidecarTable> read_table(const File& file) {
  HADAL_ASSIGN_OR_RETURN(const Footer footer, read_footer(file));
  std::vector<uint8_t> bytes(footer.table_bytes);
  HADAL_RETURN_IF_ERROR(file.read_at(footer.table_offset, std::as_writable_bytes(std::span(bytes))));
  if (hash_bytes(std::as_bytes(std::span(bytes))) != footer.table_hash) {
    return make_error(ErrorCode::kCorrupt, "checksum of the sidecar's table is wrong");
  }
  return parse_sidecar_table(bytes, footer.table_offset);
}

}  // namespace

uint64_t hash_bytes(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

EncodedChunk encode_lost_bits(const LostBits& lost, std::span<const uint8_t> original_codes) {
  EncodedChunk chunk;
  chunk.num_lost = static_cast<uint32_t>(lost.size());
  chunk.codes_hash = hash_bytes(std::as_bytes(original_codes));
  uint64_t next = 0;
  for (const uint32_t bit : lost) {
    put_varint(chunk.payload, ((bit >> 1) - next) << 1 | (bit & 1));
    next = (bit >> 1) + 1;
  }
  return chunk;
}

Expected<LostBits> decode_lost_bits(std::span<const uint8_t> payload, uint32_t num_lost, uint64_t num_codes) {
  const auto corrupt = [] { return make_error(ErrorCode::kCorrupt, "lost bits contradict their table"); };
  LostBits lost;
  lost.reserve(std::min<size_t>(num_lost, payload.size()));
  uint64_t next = 0;
  size_t at = 0;
  while (at < payload.size()) {
    uint64_t value = 0;
    int shift = 0;
    for (;; shift += 7) {
      if (at == payload.size() || shift > 21) return corrupt();
      const uint8_t byte = payload[at++];
      value |= uint64_t{byte & 0x7Fu} << shift;
      if ((byte & 0x80) == 0) break;
    }
    const uint64_t position = next + (value >> 1);
    if (position >= num_codes) return corrupt();
    lost.push_back(static_cast<uint32_t>(position << 1 | (value & 1)));
    next = position + 1;
  }
  if (lost.size() != num_lost) return corrupt();
  return lost;
}

Expected<SidecarTable> parse_sidecar_table(std::span<const uint8_t> bytes, uint64_t payloads_end) {
  FieldReader fields(bytes);
  SidecarTable table;
  uint32_t num_tensors = 0;
  if (!fields.take(table.header_bytes) || !fields.take(table.header_hash) || !fields.take(num_tensors)) {
    return cut_table();
  }
  if (payloads_end < kMagic.size() || table.header_bytes > payloads_end - kMagic.size() ||
      table.header_bytes > kMaxSafetensorsHeaderBytes + 8) {
    return make_error(ErrorCode::kCorrupt, "original header of {} bytes does not fit the sidecar", table.header_bytes);
  }
  uint64_t position = kMagic.size() + table.header_bytes;
  for (uint32_t i = 0; i < num_tensors; ++i) {
    HADAL_ASSIGN_OR_RETURN(SidecarTensor tensor, parse_tensor(fields, payloads_end, position));
    table.tensors.push_back(std::move(tensor));
  }
  if (fields.size_left() != 0 || position != payloads_end) {
    return make_error(ErrorCode::kCorrupt, "sidecar table describes payloads up to byte {}, they end at {}", position,
                      payloads_end);
  }
  return table;
}

SidecarWriter::SidecarWriter(OutputFile file, SidecarTable table, uint64_t position)
    : file_(std::move(file)), table_(std::move(table)), position_(position) {}

Expected<SidecarWriter> SidecarWriter::create(const std::filesystem::path& path, std::string_view original_header) {
  HADAL_ASSIGN_OR_RETURN(OutputFile file, OutputFile::create(path));
  HADAL_RETURN_IF_ERROR(file.write_at(0, as_bytes(kMagic)));
  HADAL_RETURN_IF_ERROR(file.write_at(kMagic.size(), as_bytes(original_header)));
  SidecarTable table;
  table.header_bytes = original_header.size();
  table.header_hash = hash_bytes(as_bytes(original_header));
  return SidecarWriter(std::move(file), std::move(table), kMagic.size() + original_header.size());
}

void SidecarWriter::begin_tensor(const std::string& name, uint64_t num_codes) {
  table_.tensors.push_back({.name = name, .num_codes = num_codes, .chunks = {}});
}

Status SidecarWriter::add_chunk(const EncodedChunk& chunk) {
  const auto payload = std::as_bytes(std::span(chunk.payload));
  HADAL_RETURN_IF_ERROR(file_.write_at(position_, payload));
  table_.tensors.back().chunks.push_back({.num_lost = chunk.num_lost,
                                          .payload_bytes = static_cast<uint32_t>(payload.size()),
                                          .payload_hash = hash_bytes(payload),
                                          .codes_hash = chunk.codes_hash,
                                          .payload_offset = position_});
  position_ += payload.size();
  return {};
}

Status SidecarWriter::commit() {
  for (const SidecarTensor& tensor : table_.tensors) {
    HADAL_CHECK(tensor.chunks.size() == num_chunks_of(tensor.num_codes), "{}: {} chunks", tensor.name,
                tensor.chunks.size());
  }
  std::string tail = table_bytes(table_);
  const uint64_t size = tail.size(), hash = hash_bytes(as_bytes(tail));
  put(tail, position_);
  put(tail, size);
  put(tail, hash);
  tail += kMagic;
  HADAL_RETURN_IF_ERROR(file_.write_at(position_, as_bytes(tail)));
  position_ += tail.size();
  return file_.commit();
}

SidecarReader::SidecarReader(File file, SidecarTable table, std::string header)
    : file_(std::move(file)), table_(std::move(table)), header_(std::move(header)) {}

Expected<SidecarReader> SidecarReader::open(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(File file, File::open(path));
  auto table = read_table(file);
  if (!table) return forward_error(std::move(table), path.string());
  std::string header(table->header_bytes, '\0');
  HADAL_RETURN_IF_ERROR(file.read_at(kMagic.size(), std::as_writable_bytes(std::span(header))));
  if (hash_bytes(as_bytes(header)) != table->header_hash) {
    return make_error(ErrorCode::kCorrupt, "{}: checksum of the original header is wrong", path.string());
  }
  return SidecarReader(std::move(file), std::move(*table), std::move(header));
}

const SidecarTensor* SidecarReader::find(std::string_view name) const {
  const auto at = std::find_if(table_.tensors.begin(), table_.tensors.end(),
                               [name](const SidecarTensor& tensor) { return tensor.name == name; });
  return at != table_.tensors.end() ? &*at : nullptr;
}

Expected<LostBits> SidecarReader::read_chunk(const SidecarTensor& tensor, size_t chunk_idx) const {
  const SidecarChunk& chunk = tensor.chunks.at(chunk_idx);
  std::vector<uint8_t> payload(chunk.payload_bytes);
  HADAL_RETURN_IF_ERROR(file_.read_at(chunk.payload_offset, std::as_writable_bytes(std::span(payload))));
  const auto where = [&] {
    return fmt::format("{}: tensor {}, chunk {}", file_.path().string(), quote_name(tensor.name), chunk_idx);
  };
  if (hash_bytes(std::as_bytes(std::span(payload))) != chunk.payload_hash) {
    return make_error(ErrorCode::kCorrupt, "{}: checksum is wrong", where());
  }
  const uint64_t num_codes = std::min(kSidecarChunkCodes, tensor.num_codes - chunk_idx * kSidecarChunkCodes);
  auto lost = decode_lost_bits(payload, chunk.num_lost, num_codes);
  if (!lost) return forward_error(std::move(lost), where());
  return lost;
}

}  // namespace hadal
