// Facts about the machine and this process that reports carry. Linux; elsewhere fields stay empty or zero.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace hadal {

struct HostFacts {
  std::string cpu_model;     // "AMD EPYC 9654 96-Core Processor"
  std::string cpu_features;  // as in base/cpu_features.h
  int num_cpus = 0;          // logical, in this process's mask
  int num_cores = 0;
  int num_numa_nodes = 1;
  uint64_t memory_bytes = 0;
  std::string kernel;  // of the operating system: "Linux 6.1.0"
};

HostFacts host_facts();
Json host_json(const HostFacts& facts);

struct ProcessMemory {
  uint64_t resident_bytes = 0;       // VmRSS
  uint64_t peak_resident_bytes = 0;  // VmHWM
};
ProcessMemory process_memory();

// CPU seconds, since start-up, of all processes of the machine except this one: how quiet a measurement was. 0 where
// the system does not say.
double others_cpu_s();

// Seconds since the operating system started this process, to 10 ms.
double process_age_s();

}  // namespace hadal
