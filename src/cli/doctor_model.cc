// The model's folder against this host: does it fit, and how long does reading it take.
#include "base/resource_limits.h"
#include "cli/doctor_checks.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;
using enum FindingStatus;

constexpr double kSlowDisk = 500e6;  // bytes per second: a single SATA disk; DeepSeek-R1 takes 22 minutes from it
constexpr double kRoom = 1.1;        // weights, and some for cache, workspace and the rest of the system

// Sum of the weight files; 0 when there are none.
uint64_t weight_bytes(const fs::path& folder) {
  uint64_t total = 0;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    std::error_code ignored;
    if (entry->path().extension() == ".safetensors" && entry->is_regular_file(ignored)) {
      total += entry->file_size(ignored);
    }
  }
  return total;
}

Finding check_memory(const DoctorHost& host, const DoctorRequest& request, double weights) {
  const auto available = available_memory_bytes(host.root);
  if (!available) return {"model-memory", kNote, "the system does not say how much memory is free", ""};
  const double free = static_cast<double>(*available);
  const std::string found = fmt::format("{:.1f} GB of weights, {:.1f} GB of memory free", weights / 1e9, free / 1e9);
  if (free < weights) {
    return {"model-memory", kFault, found, fmt::format("hadal plan --model {} shows what would fit", request.model)};
  }
  if (free < weights * kRoom) {
    return {"model-memory", kWarning, found + ": little room for the cache",
            "end other programs, or hadal serve --max-model-len N --kv-cache-dtype fp8"};
  }
  return {"model-memory", kOk, found, ""};
}

Finding check_disk(const DoctorHost& host, const DoctorRequest& request, double weights) {
  const Expected<double> speed = host.disk_bytes_per_s(request.model);
  if (!speed) return {"model-disk", kNote, "not measured: " + speed.error().message, ""};
  const std::string found = fmt::format("{:.2f} GB/s: {:.0f} s to read the weights", *speed / 1e9, weights / *speed);
  if (*speed < kSlowDisk) {
    return {"model-disk", kWarning, found, "keep the folder on local NVMe; several in a RAID 0 add up"};
  }
  return {"model-disk", kOk, found, ""};
}

}  // namespace

void examine_model(const DoctorHost& host, const DoctorRequest& request, std::vector<Finding>& findings) {
  if (request.model.empty()) {
    findings.push_back({"model", kNote, "not given", "hadal doctor --model DIR compares it with memory and disk"});
    return;
  }
  const auto weights = static_cast<double>(weight_bytes(request.model));
  if (weights == 0) {
    findings.push_back({"model", kFault, request.model + ": no folder with *.safetensors",
                        fmt::format("hadal inspect {} says what is missing", request.model)});
    return;
  }
  findings.push_back(check_memory(host, request, weights));
  findings.push_back(check_disk(host, request, weights));
}

}  // namespace hadal
