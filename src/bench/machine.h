// Machines to plan for: the built-in table, a JSON file, or this one by its measured ceilings. Plain figures of one
// device (a socket, a GPU, an accelerator) and of what joins them; plan.h computes with them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "bench/ceilings.h"

namespace hadal {

// Shares of a device's rates that kernels reach.
struct Efficiency {
  double read = 0.85;       // of read_bytes_per_s, streaming weights
  double dense = 0.85;      // of bf16_flops: projections, MLPs, head
  double experts = 0.85;    // the same, a few tokens each
  double attention = 0.85;  // the same
};

struct Machine {
  std::string name;              // as --machine takes it
  std::string title;             // for people
  std::string sources;           // of the figures
  int num_devices = 1;           // ranks; what is shared by all is cut into so many parts
  bool expert_parallel = false;  // whole experts on each device; else slices of every expert
  double memory_bytes = 0;       // of a device; 0: unknown, everything fits
  // Of what the weights leave: graphs, fragmentation, the runtime's buffers.
  double reserved_share = 0.1;
  double read_bytes_per_s = 0;  // usable, of a device
  double bf16_flops = 0;        // peak of a device, dense
  Efficiency efficiency;
  // Bytes of activations that one token of a prompt step takes on a device; 0: kActivationVectors of hidden_size BF16.
  double activation_bytes_per_token = 0;
  int64_t chunk_tokens = 0;     // of a prompt, per step; 0: the whole prompt in one step
  double kv_element_bytes = 2;  // latent cache: 2 BF16, 1 FP8
  double kv_b_bytes = 0;        // see WeightLayout
  double sync_s = 0;            // one barrier or exchange of all devices, without its bytes
  double syncs_per_layer = 0;
  double exchange_bytes_per_s = 0;  // of an all-reduce of hidden_size BF16 per token, two per layer; 0: free
  double load_bytes_per_s = 0;      // of the whole machine, from disk into place; 0: unknown
};

// Between 16,384 and 32,768 prompt tokens in one step, the Gaudi guide's start script gives up a further fifth of the
// 17.8 GB that R1's weights leave on a device (--gpu-memory-utilization 0.85 -> 0.65): 217 kB per token, 15.2 vectors
// of 7168 BF16 values.
inline constexpr double kActivationVectors = 16;

// "2x-epyc-9005", ..., in the order of printing.
const std::vector<Machine>& machine_table();

// Errors: kNotFound with the nearest name, or all of them.
Expected<Machine> machine_by_name(const std::string& name);

// {"name": ..., "memory_bytes": ..., ...}: the fields of Machine, efficiencies as "read_efficiency" and so on.
// Required: memory_bytes, read_bytes_per_s, bf16_flops. Errors: kCorrupt naming the field (missing, wrong type, out of
// range, unknown with the nearest known one).
Expected<Machine> machine_from_json(const Json& json);
Json machine_to_json(const Machine& machine);

// The same from a file; errors begin with its path.
Expected<Machine> load_machine(const std::filesystem::path& path);

// This machine as one device, with this program's kernels. memory_bytes: what may be used.
Machine machine_from_ceilings(const Ceilings& ceilings, double memory_bytes);

}  // namespace hadal
