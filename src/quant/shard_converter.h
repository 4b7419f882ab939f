// Makes one shard: cuts its tensors into chunks of at most 1 MiB, which all threads read, convert and write at once, in
// waves that bound memory. Reads go past the page cache where the checkpoint does not lie in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "formats/shard_reader.h"
#include "quant/convert_journal.h"
#include "quant/convert_plan.h"
#include "quant/output_file.h"
#include "quant/sidecar.h"

namespace hadal {

// Folder in the output with the sidecars (sidecar.h) and the original config.json and index.
inline constexpr const char* kSidecarFolder = "hadal_sidecar";
// "hadal_sidecar/model-00001-of-000163.safetensors.lost"
std::filesystem::path sidecar_path(const std::filesystem::path& dir, const std::string& shard_name);

// A shard whose bytes are written but which has no name yet. Movable.
struct ConvertedShard {
  OutputFile file;
  std::optional<SidecarWriter> sidecar;
  ShardRecord record;

  // Sidecar first: a shard with its final name always has its sidecar. Errors: those of OutputFile.
  Status commit();
};

// Single-owner. All it points to outlives it.
class ShardConverter {
 public:
  struct Context {
    const Checkpoint* checkpoint = nullptr;
    const ConvertPlan* plan = nullptr;
    const ShardReader* reader = nullptr;
    ThreadPool* pool = nullptr;
    std::filesystem::path input, output;
    std::function<void(uint64_t)> on_progress;  // bytes written since the last call; on the calling thread
  };
  explicit ShardConverter(Context context);
  ~ShardConverter();

  // Errors name the file: kIo, kResourceExhausted, kCorrupt (the source changed or contradicts its sidecar).
  Expected<ConvertedShard> convert(const ShardPlan& shard);

 private:
  struct Worker;
  Context context_;
  std::vector<Worker> workers_;
};

// Largest wave of chunks, for the memory budget: bytes that a converter with so many threads may hold.
uint64_t converter_memory_bytes(int num_threads);

}  // namespace hadal
