// Accelerators, when there are any: drivers and firmware as their kernel modules report them.
#include <array>
#include <cstdio>
#include <set>

#include "cli/doctor_checks.h"
#include "cli/doctor_files.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;
using enum FindingStatus;

constexpr const char* kHabanaVendor = "0x1da3";  // PCI
constexpr const char* kNvidiaVendor = "0x10de";
using Version = std::array<int, 3>;
constexpr Version kLeastGaudiVersion = {1, 20, 1};  // DeepSeek-R1 on Gaudi needs it (its quick start)

// The first three dotted numbers of "hl-gaudi2-1.20.1-fw-58.1.1".
std::optional<Version> find_version(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    Version version{};
    const bool starts = text[i] >= '0' && text[i] <= '9' && (i == 0 || text[i - 1] == '-' || text[i - 1] == ' ');
    if (starts && std::sscanf(text.c_str() + i, "%4d.%4d.%4d", &version[0], &version[1], &version[2]) == 3) {
      return version;
    }
  }
  return std::nullopt;
}

std::string text_of(const Version& version) { return fmt::format("{}.{}.{}", version[0], version[1], version[2]); }

int count_pci(const DoctorHost& host, const char* vendor, std::string_view class_prefix) {
  int count = 0;
  std::error_code error;
  for (auto entry = fs::directory_iterator(host.root / "sys/bus/pci/devices", error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string kind = read_line_file(entry->path() / "class").value_or("");
    if (read_line_file(entry->path() / "vendor") == vendor && kind.starts_with(class_prefix)) ++count;
  }
  return count;
}

std::vector<fs::path> gaudi_devices(const DoctorHost& host) {
  std::vector<fs::path> devices;
  for (const auto& [folder, prefix] :
       {std::pair("sys/class/accel", "accel"), std::pair("sys/class/habanalabs", "hl")}) {
    for (const fs::path& entry : numbered_entries(host.root / folder, prefix)) {
      const fs::path device = std::string_view(prefix) == "accel" ? entry / "device" : entry;
      if (read_line_file(device / "device_type")) devices.push_back(device);
    }
  }
  return devices;
}

std::optional<Version> firmware_version(const fs::path& device) {
  for (const char* file : {"fw_os_ver", "cpucp_ver", "armcp_ver", "preboot_btl_ver"}) {
    if (const auto text = read_line_file(device / file)) {
      if (const auto version = find_version(*text)) return version;
    }
  }
  return std::nullopt;
}

void examine_gaudi(const DoctorHost& host, std::vector<Finding>& findings) {
  const std::vector<fs::path> devices = gaudi_devices(host);
  const int num_cards = count_pci(host, kHabanaVendor, "");
  if (devices.empty() && num_cards == 0) return;
  if (devices.empty()) {
    findings.push_back({"gaudi", kWarning, fmt::format("{} cards, and no driver", num_cards),
                        "install habanalabs-dkms, then modprobe habanalabs"});
    return;
  }
  const std::string driver_text = read_line_file(host.root / "sys/module/habanalabs/version").value_or("");
  const auto driver = find_version(driver_text);
  std::set<std::string> types;
  std::set<Version> firmware;
  int num_down = 0;
  for (const fs::path& device : devices) {
    types.insert(read_line_file(device / "device_type").value_or(""));
    if (const auto version = firmware_version(device)) firmware.insert(*version);
    const std::string status = read_line_file(device / "status").value_or("Operational");
    num_down += status == "Operational" || status == "operational" ? 0 : 1;
  }
  std::string found = fmt::format("{} x {}, driver {}, firmware", devices.size(), types.empty() ? "?" : *types.begin(),
                                  driver ? text_of(*driver) : "unknown");
  for (const Version& version : firmware) found += " " + text_of(version);
  const char* reset = "hl-smi shows which; reset it as the vendor's guide says";
  if (num_down > 0) {
    findings.push_back({"gaudi", kWarning, fmt::format("{}; {} not operational", found, num_down), reset});
  } else if (driver && *driver < kLeastGaudiVersion) {
    findings.push_back({"gaudi", kWarning, fmt::format("{}; {} or later is needed", found, text_of(kLeastGaudiVersion)),
                        "upgrade driver, firmware and container together"});
  } else if (firmware.size() > 1 || (driver && !firmware.empty() && *firmware.begin() != *driver)) {
    findings.push_back({"gaudi", kWarning, found + ": they differ", "hl-fw-loader -y, with the driver's release"});
  } else if (!has_program(host.root, "hl-smi")) {
    findings.push_back({"gaudi", kNote, found + "; no hl-smi", "apt-get install habanalabs-firmware-tools"});
  } else {
    findings.push_back({"gaudi", kOk, found, ""});
  }
}

void examine_nvidia(const DoctorHost& host, std::vector<Finding>& findings) {
  const int num_cards = count_pci(host, kNvidiaVendor, "0x03");  // display controllers, 3D ones included
  const std::string line = read_line_file(host.root / "proc/driver/nvidia/version").value_or("");
  if (num_cards == 0 && line.empty()) return;
  if (line.empty()) {
    findings.push_back({"nvidia", kWarning, fmt::format("{} cards, and no driver", num_cards),
                        "install the nvidia-driver package of the distribution"});
    return;
  }
  const size_t module = line.find("Module");
  std::string version = module == std::string::npos ? line : line.substr(module + 6);
  version.erase(0, version.find_first_not_of(' '));
  version = version.substr(0, version.find(' '));
  const std::string found = fmt::format("{} cards, driver {}", num_cards, version);
  if (!has_program(host.root, "nvidia-smi")) {
    findings.push_back({"nvidia", kNote, found + "; no nvidia-smi", "apt-get install nvidia-smi"});
    return;
  }
  findings.push_back({"nvidia", kOk, found, ""});
}

}  // namespace

void examine_devices(const DoctorHost& host, std::vector<Finding>& findings) {
  const size_t before = findings.size();
  examine_gaudi(host, findings);
  examine_nvidia(host, findings);
  if (findings.size() == before) findings.push_back({"accelerators", kNote, "none; the CPU computes", ""});
}

}  // namespace hadal
