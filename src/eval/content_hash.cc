#include "eval/content_hash.h"

#include <xxhash.h>

#include <algorithm>
#include <span>

#include "base/file.h"
#include "formats/checkpoint.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxJsonBytes = uint64_t{256} << 20;

// Bytes of weights looked at in each of three places of a shard: models of one shape differ there.
constexpr uint64_t kSampleBytes = 64 << 10;

std::string hex(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

// Header and three samples of the data.
Expected<std::string> shard_facts(const SafetensorsFile& shard) {
  // The header ends where the first tensor begins; a shard without tensors is all header.
  uint64_t data_begin = shard.size_bytes();
  for (const TensorInfo& tensor : shard.tensors()) data_begin = std::min(data_begin, tensor.data_begin);
  std::string bytes(std::min(data_begin, kMaxSafetensorsHeaderBytes + sizeof(uint64_t)), '\0');
  HADAL_RETURN_IF_ERROR(shard.file().read_at(0, std::as_writable_bytes(std::span(bytes))));
  const uint64_t data_bytes = shard.size_bytes() - data_begin;
  std::string sample(std::min(kSampleBytes, data_bytes), '\0');
  const uint64_t last = data_bytes - sample.size();
  for (const uint64_t at : {uint64_t{0}, last / 2, last}) {
    HADAL_RETURN_IF_ERROR(shard.file().read_at(data_begin + at, std::as_writable_bytes(std::span(sample))));
    bytes += sample;
  }
  return fmt::format("{} {} {}\n", shard.path().filename().string(), shard.size_bytes(), content_hash(bytes));
}

}  // namespace

std::string content_hash(std::string_view bytes) { return hex(XXH3_128bits(bytes.data(), bytes.size())); }

Expected<std::string> model_hash(const std::filesystem::path& dir) {
  HADAL_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir));
  HADAL_ASSIGN_OR_RETURN(std::string facts, read_file(dir / "config.json", kMaxJsonBytes));
  facts = content_hash(facts);
  std::error_code ignored;
  if (std::filesystem::exists(dir / kCheckpointIndexName, ignored)) {
    HADAL_ASSIGN_OR_RETURN(const std::string index, read_file(dir / kCheckpointIndexName, kMaxJsonBytes));
    facts += content_hash(index);
  }
  for (const SafetensorsFile& shard : checkpoint.shards()) {
    HADAL_ASSIGN_OR_RETURN(const std::string shard_text, shard_facts(shard));
    facts += shard_text;
  }
  return content_hash(facts);
}

}  // namespace hadal
