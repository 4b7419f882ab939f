// Fake hosts: a healthy one has nothing to change, and each fault is named, alone, with a line that changes it.
#include <gmock/gmock.h>

#include <fstream>
#include <map>

#include "cli/doctor_checks.h"
#include "cli/doctor_files.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Files = std::map<std::string, std::string>;

constexpr const char* kLimits =
    "Limit                     Soft Limit           Hard Limit           Units     \n"
    "Max processes             4096                 4096                 processes \n"
    "Max open files            1024                 524288               files     \n"
    "Max locked memory         unlimited            unlimited            bytes     \n";
constexpr const char* kMeminfo =
    "MemTotal:       131072000 kB\nMemAvailable:   120000000 kB\nSwapTotal:             0 kB\nSwapFree:              0 "
    "kB\n"
    "HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n";

// Two sockets, one node each, four processors.
Files healthy_files() {
  Files files = {{"proc/self/limits", kLimits},
                 {"proc/meminfo", kMeminfo},
                 {"proc/loadavg", "0.10 0.20 0.30 1/500 4242"},
                 {"proc/self/cgroup", "0::/\n"},
                 {"sys/fs/cgroup/cgroup.controllers", "cpu memory\n"},
                 {"proc/sys/kernel/numa_balancing", "0"},
                 {"proc/sys/vm/zone_reclaim_mode", "0"},
                 {"proc/sys/vm/overcommit_memory", "0"},
                 {"sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"},
                 {"sys/devices/system/cpu/intel_pstate/no_turbo", "0"},
                 {"sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"},
                 {"sys/devices/system/edac/mc/mc0/ce_count", "0"},
                 {"sys/devices/system/edac/mc/mc0/ue_count", "0"},
                 {"usr/bin/podman", ""}};
  for (int cpu = 0; cpu < 4; ++cpu) {
    const std::string base = "sys/devices/system/cpu/cpu" + std::to_string(cpu);
    files[base + "/cpufreq/scaling_governor"] = "performance\n";
    files[base + "/topology/physical_package_id"] = std::to_string(cpu / 2);
    files[base + "/thermal_throttle/package_throttle_count"] = "0";
  }
  for (int node = 0; node < 2; ++node) {
    const std::string name = std::to_string(node);
    files["sys/devices/system/node/node" + name + "/cpulist"] = name + "-" + name;
    files["sys/devices/system/node/node" + name + "/meminfo"] = "Node " + name + " MemTotal:       65536000 kB\n";
  }
  return files;
}

CpuFeatures all_features() {
  CpuFeatures features;
  features.avx2 = features.fma = features.avx512f = features.avx512_bf16 = true;
  return features;
}

class FakeHost {
 public:
  explicit FakeHost(const Files& files, const Files& model = {{"model.safetensors", std::string(1000, 'w')}}) {
    write(dir_.path() / "root", files);
    write(dir_.path() / "model", model);
    host.root = dir_.path() / "root";
    host.features = all_features();
    host.kernels = "avx512-bf16";
    host.clock_synchronised = [] { return true; };
    host.port_is_free = [](int) { return true; };
    host.disk_bytes_per_s = [](const std::filesystem::path&) -> Expected<double> { return 3e9; };
    request.model = (dir_.path() / "model").string();
  }
  std::vector<Finding> examine() const { return examine_host(host, request); }

 private:
  static void write(const std::filesystem::path& root, const Files& files) {
    std::filesystem::create_directories(root);
    for (const auto& [name, content] : files) {
      std::filesystem::create_directories((root / name).parent_path());
      std::ofstream(root / name) << content;
    }
  }
  TempDir dir_;

 public:
  DoctorHost host;
  DoctorRequest request;
};

std::vector<std::string> names_worth_changing(const std::vector<Finding>& findings) {
  std::vector<std::string> names;
  for (const Finding& finding : findings) {
    if (finding.status >= FindingStatus::kWarning) names.push_back(finding.check);
  }
  return names;
}

TEST(Doctor, AHealthyHostHasNothingToChange) {
  const FakeHost fake(healthy_files());
  const std::vector<Finding> findings = fake.examine();
  EXPECT_THAT(names_worth_changing(findings), ElementsAre());
  EXPECT_LE(worst_status(findings), FindingStatus::kNote);
  EXPECT_GE(findings.size(), 20U);
}

// Each line of output is one finding, and each finding that asks for a change says which, in one line.
TEST(Doctor, EveryFindingFitsItsLine) {
  for (const Files& files : {healthy_files(), Files{}}) {
    const std::vector<Finding> findings = FakeHost(files).examine();
    for (const Finding& finding : findings) {
      EXPECT_EQ((finding.check + finding.found + finding.fix).find('\n'), std::string::npos) << finding.check;
      EXPECT_FALSE(finding.found.empty()) << finding.check;
      if (finding.status < FindingStatus::kWarning) continue;
      EXPECT_FALSE(finding.fix.empty()) << finding.check;
    }
  }
}

struct Fault {
  const char* check;
  FindingStatus status;
  const char* found;
  const char* fix;
  Files files;  // in place of the healthy host's
};

constexpr auto kWarning = FindingStatus::kWarning;
constexpr auto kFault = FindingStatus::kFault;

std::vector<Fault> file_faults() {
  const auto with = [](std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  const std::string cpu1 = "sys/devices/system/cpu/cpu1/";
  const std::string node1 = "sys/devices/system/node/node1/meminfo";
  return {
      {"cpu-governor",
       kWarning,
       "performance, powersave",
       "cpupower",
       {{cpu1 + "cpufreq/scaling_governor", "powersave"}}},
      {"cpu-turbo", kWarning, "off", "no_turbo", {{"sys/devices/system/cpu/intel_pstate/no_turbo", "1"}}},
      {"cpu-turbo", kWarning, "off", "cpufreq/boost", {{"sys/devices/system/cpu/cpufreq/boost", "0"}}},
      {"cpu-thermal", kWarning, "17 times", "fans", {{cpu1 + "thermal_throttle/package_throttle_count", "17"}}},
      {"cpu-limit", kWarning, "2.5 of 4", "--cpuset-cpus", {{"sys/fs/cgroup/cpu.max", "250000 100000"}}},
      {"cpu-load", kWarning, "3.9 threads", "top", {{"proc/loadavg", "3.90 1.00 1.00 5/500 4242"}}},
      {"huge-pages",
       kWarning,
       "never",
       "madvise",
       {{"sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]"}}},
      {"huge-pages-reserved",
       kWarning,
       "1000 free pages, 2.1 GB",
       "vm.nr_hugepages=0",
       {{"proc/meminfo", with(kMeminfo, "HugePages_Free:        0", "HugePages_Free:     1000")}}},
      {"swap",
       kWarning,
       "in use",
       "swapoff",
       {{"proc/meminfo", with(with(kMeminfo, "SwapTotal:             0", "SwapTotal:       8000000"),
                              "SwapFree:              0", "SwapFree:        4000000")}}},
      {"overcommit", kWarning, "2:", "vm.overcommit_memory=0", {{"proc/sys/vm/overcommit_memory", "2"}}},
      {"memory-errors", kWarning, "3 corrected", "edac-util", {{"sys/devices/system/edac/mc/mc0/ce_count", "3"}}},
      {"memory-errors", kFault, "1 uncorrected", "replace", {{"sys/devices/system/edac/mc/mc0/ue_count", "1"}}},
      {"numa-balancing", kWarning, "on", "kernel.numa_balancing=0", {{"proc/sys/kernel/numa_balancing", "1"}}},
      {"zone-reclaim", kWarning, "on", "vm.zone_reclaim_mode=0", {{"proc/sys/vm/zone_reclaim_mode", "1"}}},
      {"numa-nodes", kWarning, "no memory", "every socket", {{node1, "Node 1 MemTotal:       0 kB\n"}}},
      {"numa-nodes", kWarning, "GB a node", "alike", {{node1, "Node 1 MemTotal:       32768000 kB\n"}}},
      {"open-files",
       kWarning,
       "at most 4096",
       "LimitNOFILE",
       {{"proc/self/limits", with(kLimits, "524288", "4096  ")}}},
      {"threads",
       kFault,
       "50 allowed, 68 needed",
       "TasksMax",
       {{"proc/self/limits", with(kLimits, "4096                 4096                 processes",
                                  "50                   50                   processes")}}},
      {"memlock",
       kWarning,
       "8192 KiB; Gaudi",
       "LimitMEMLOCK",
       {{"proc/self/limits", with(kLimits, "memory         unlimited", "memory         8388608  ")},
        {"sys/class/infiniband/mlx5_0/node_type", "1"}}},
      {"clock-source",
       kWarning,
       "hpet",
       "tsc",
       {{"sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"}}},
      {"model-memory",
       kFault,
       "0.0 GB of memory free",
       "hadal plan",
       {{"proc/meminfo", with(kMeminfo, "120000000 kB", "        0 kB")}}},
      {"gaudi",
       kWarning,
       "1 cards, and no driver",
       "habanalabs-dkms",
       {{"sys/bus/pci/devices/0000:19:00.0/vendor", "0x1da3"}, {"sys/bus/pci/devices/0000:19:00.0/class", "0x120000"}}},
      {"gaudi",
       kWarning,
       "1.17.0; 1.20.1 or later",
       "together",
       {{"sys/class/accel/accel0/device/device_type", "GAUDI2"},
        {"sys/module/habanalabs/version", "1.17.0-495"},
        {"sys/class/accel/accel0/device/fw_os_ver", "hl-gaudi2-1.17.0-fw-51.3.0-sec-9"}}},
      {"gaudi",
       kWarning,
       "they differ",
       "hl-fw-loader",
       {{"sys/class/accel/accel0/device/device_type", "GAUDI2"},
        {"sys/module/habanalabs/version", "1.21.0-1"},
        {"sys/class/accel/accel0/device/fw_os_ver", "hl-gaudi2-1.20.1-fw-58.1.1-sec-9"}}},
      {"gaudi",
       kWarning,
       "1 not operational",
       "hl-smi",
       {{"sys/class/habanalabs/hl0/device_type", "GAUDI2"},
        {"sys/class/habanalabs/hl0/status", "Malfunction"},
        {"sys/module/habanalabs/version", "1.21.0-1"}}},
      {"nvidia",
       kWarning,
       "1 cards, and no driver",
       "nvidia-driver",
       {{"sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de"}, {"sys/bus/pci/devices/0000:01:00.0/class", "0x030200"}}},
  };
}

void expect_only(const std::vector<Finding>& findings, const Fault& fault) {
  EXPECT_THAT(names_worth_changing(findings), ElementsAre(fault.check)) << fault.found;
  for (const Finding& finding : findings) {
    if (finding.check != fault.check) continue;
    EXPECT_EQ(finding.status, fault.status) << fault.check << " " << fault.found;
    EXPECT_THAT(finding.found, HasSubstr(fault.found));
    EXPECT_THAT(finding.fix, HasSubstr(fault.fix));
  }
}

TEST(Doctor, NamesEachFaultOfTheFiles) {
  for (const Fault& fault : file_faults()) {
    Files files = healthy_files();
    for (const auto& [name, content] : fault.files) files[name] = content;
    expect_only(FakeHost(files).examine(), fault);
  }
}

TEST(Doctor, NamesEachFaultOfTheRest) {
  FakeHost port(healthy_files());
  port.host.port_is_free = [](int port) { return port != 8000; };
  expect_only(port.examine(), {"port", kFault, "8000 is taken", "ss -ltnp", {}});

  FakeHost clock(healthy_files());
  clock.host.clock_synchronised = [] { return false; };
  expect_only(clock.examine(), {"clock", kWarning, "not synchronised", "timedatectl", {}});

  FakeHost old_cpu(healthy_files());
  old_cpu.host.features = {};
  expect_only(old_cpu.examine(), {"isa", kWarning, "no AVX2", "AVX-512 BF16", {}});

  FakeHost disk(healthy_files());
  disk.host.disk_bytes_per_s = [](const std::filesystem::path&) -> Expected<double> { return 1e8; };
  expect_only(disk.examine(), {"model-disk", kWarning, "0.10 GB/s", "NVMe", {}});

  FakeHost tight(healthy_files());
  tight.host.root /= "nowhere";
  tight.request.model = "/nowhere";
  const std::vector<Finding> findings = tight.examine();
  EXPECT_THAT(names_worth_changing(findings), testing::Contains("model"));

  Files docker = healthy_files();
  docker.erase("usr/bin/podman");
  docker["usr/bin/docker"] = "";
  expect_only(FakeHost(docker).examine(), {"containers", kWarning, "daemon does not run", "systemctl", {}});
}

TEST(Doctor, NotesAskForNothing) {
  Files files = healthy_files();
  for (int cpu = 0; cpu < 4; ++cpu) {
    files["sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/physical_package_id"] = "0";  // SNC
  }
  files["sys/fs/cgroup/memory.max"] = "1000000000";
  files["sys/fs/cgroup/cpu.max"] = "200000 100000";
  files[".dockerenv"] = "";
  const std::vector<Finding> findings = FakeHost(files).examine();
  EXPECT_THAT(names_worth_changing(findings), ElementsAre());
  const std::string text = findings_text(findings);
  EXPECT_THAT(text, HasSubstr("sub-NUMA clustering"));
  EXPECT_THAT(text, HasSubstr("1.0 of 134.2 GB by the control group"));
  EXPECT_THAT(text, HasSubstr("2 of 4 processors by the control group"));
  EXPECT_THAT(text, HasSubstr("this is a container"));
}

TEST(Doctor, JsonHasEveryFinding) {
  FakeHost fake(healthy_files());
  fake.host.port_is_free = [](int) { return false; };
  const std::vector<Finding> findings = fake.examine();
  const Json json = findings_json(findings);
  EXPECT_EQ(json["status"], "fault");
  ASSERT_EQ(json["findings"].size(), findings.size());
  for (size_t i = 0; i < findings.size(); ++i) {
    EXPECT_EQ(json["findings"][i]["check"], findings[i].check);
    EXPECT_EQ(json["findings"][i]["status"], finding_status_name(findings[i].status));
  }
}

// A hostile or empty /sys must not matter.
TEST(Doctor, SurvivesStrangeFiles) {
  Files files = healthy_files();
  for (auto& [name, content] : files) content = std::string(100'000, '[') + "999999999999999999999999";
  EXPECT_FALSE(FakeHost(files).examine().empty());
  for (auto& [name, content] : files) content.clear();
  EXPECT_FALSE(FakeHost(files).examine().empty());
  EXPECT_FALSE(FakeHost({}).examine().empty());
}

TEST(DoctorFiles, Words) {
  EXPECT_EQ(selected_word("always [madvise] never"), "madvise");
  EXPECT_EQ(selected_word("] ["), "");
  EXPECT_EQ(selected_word("none"), "");
  EXPECT_EQ(number_after("A: 1\nAB:   22 kB\n", "AB"), 22);
  EXPECT_EQ(number_after("A: x\n", "A"), std::nullopt);
}

}  // namespace
}  // namespace hadal
