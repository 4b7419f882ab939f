// What `hadal doctor` looks at: whether a host is prepared for serving, one finding per fact, each with the line that
// changes it. Reads kernel interface files below a root folder and asks a few functions, so that tests bring hosts of
// their own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "base/json.h"
#include "base/status.h"

namespace hadal {

enum class FindingStatus {
  kOk,
  kNote,     // worth knowing, nothing to do
  kWarning,  // serves, but slower or less safely than this host could
  kFault,    // would not serve
};

struct Finding {
  std::string check;  // "cpu-governor"
  FindingStatus status = FindingStatus::kOk;
  std::string found;
  std::string fix;  // one line to type or write; empty when there is nothing to change
};

struct DoctorHost {
  std::filesystem::path root = "/";
  CpuFeatures features;
  std::string kernels;                                      // that would run: "AVX-512 BF16"
  std::function<std::optional<bool>()> clock_synchronised;  // nothing: the system does not say
  std::function<bool(int port)> port_is_free;
  // Direct reads of the folder's largest file. kUnsupported: the file system has no direct I/O.
  std::function<Expected<double>(const std::filesystem::path& folder)> disk_bytes_per_s;
};

struct DoctorRequest {
  std::string model;  // folder; empty: memory and disk are not compared with it
  int port = 8000;
};

std::vector<Finding> examine_host(const DoctorHost& host, const DoctorRequest& request);

// The worst of them.
FindingStatus worst_status(const std::vector<Finding>& findings);
const char* finding_status_name(FindingStatus status);  // "ok", "note", "warning", "fault"

// Lines for people; {"status": .., "findings": [{"check", "status", "found", "fix"}, ..]}.
std::string findings_text(const std::vector<Finding>& findings);
Json findings_json(const std::vector<Finding>& findings);

// The groups that examine_host() puts together.
void examine_cpu(const DoctorHost& host, std::vector<Finding>& findings);
void examine_memory(const DoctorHost& host, std::vector<Finding>& findings);
void examine_numa(const DoctorHost& host, std::vector<Finding>& findings);
void examine_limits(const DoctorHost& host, const DoctorRequest& request, std::vector<Finding>& findings);
void examine_devices(const DoctorHost& host, std::vector<Finding>& findings);
void examine_model(const DoctorHost& host, const DoctorRequest& request, std::vector<Finding>& findings);

}  // namespace hadal
