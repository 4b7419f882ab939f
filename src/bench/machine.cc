#include "bench/machine.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/file.h"
#include "base/names.h"

namespace hadal {
namespace {

constexpr double kGB = 1e9, kGiB = 1024.0 * 1024 * 1024, kTera = 1e12;
constexpr uint64_t kMaxMachineFileBytes = 1 << 20;

// This program's CPU kernels on 2 Zen 4 cores (docs/performance.md; `hadal bench kernels` prints all of it anew).
// Streaming: FP8 panels of K = 7168 at 1 to 4 tokens ran at 95-102 % of the bandwidth measured beside them; one thread
// alone took 27 GB/s. Multiplying: panels from 8 tokens on reached 90-94 % of the BF16 peak in the experiment; in the
// program 85-91 % for projections, 90 and 70-75 % for an expert's gate+up and down (2 to 1 in work), attention 60-87 %
// absorbed and 70-78 % expanded, waiting included. The values lie below, for steps as a whole.
constexpr Efficiency kOwnKernels = {.read = 0.95, .dense = 0.85, .experts = 0.82, .attention = 0.65};
constexpr double kOwnPanelBytesPerThread = 27 * kGB;
constexpr double kOwnKvBBytes = 2;         // kv_b_proj is kept in BF16
constexpr int64_t kOwnChunkTokens = 2048;  // --max-num-batched-tokens
// Parallel loops of a layer: two norms, projections (3), cache write, attention (2), output, routing (2), experts (2).
constexpr double kOwnLoopsPerLayer = 12;
// On two sockets with 100 cores each, assumed: a barrier of 128 threads costs 5 to 10 microseconds.
constexpr double kServerBarrierSeconds = 7e-6;

// A server of two sockets; each socket is a device, joined by memory (exchange over the sockets' links, assumed).
Machine cpu_server(Machine machine) {
  machine.num_devices = 2;
  machine.kv_b_bytes = kOwnKvBBytes;
  machine.chunk_tokens = kOwnChunkTokens;
  machine.sync_s = kServerBarrierSeconds;
  machine.syncs_per_layer = kOwnLoopsPerLayer;
  machine.exchange_bytes_per_s = 50 * kGB;
  machine.load_bytes_per_s = 6 * kGB;
  return machine;
}

std::vector<Machine> make_table() {
  constexpr double kDdr5Socket = 12 * 64 * kGB;  // 12 modules of 64 GB
  const char* const kLoadSource = "load 6 GB/s: one PCIe 4 NVMe drive (assumed)";
  Machine gaudi2 = {
      .name = "8x-gaudi2",
      .title = "8x Gaudi2 (96 GB)",
      .sources =
          "96 GiB (hl-smi: 98304 MiB), 2.45 TB/s, 432 TFLOP/s BF16: published figures; all-reduce 148 GB/s: the "
          "guide's "
          "hccl_demo line; 30 us per exchange, 70 % of bandwidth, 50 % of peak, 10 % reserve (its "
          "VLLM_GRAPH_RESERVED_MEM): assumed",
      .num_devices = 8,
      .expert_parallel = true,
      .memory_bytes = 96 * kGiB,
      .reserved_share = 0.1,
      .read_bytes_per_s = 2450 * kGB,
      .bf16_flops = 432 * kTera,
      .efficiency = {.read = 0.7, .dense = 0.5, .experts = 0.5, .attention = 0.4},
      .kv_element_bytes = 1,
      .kv_b_bytes = 2,
      .sync_s = 30e-6,
      .syncs_per_layer = 2,
      .exchange_bytes_per_s = 148 * kGB,
      .load_bytes_per_s = 6 * kGB,
  };
  Machine gaudi2_pair = gaudi2;
  gaudi2_pair.name = "2x8-gaudi2";
  gaudi2_pair.title = "2x8 Gaudi2 (96 GB)";
  gaudi2_pair.sources =
      "as 8x-gaudi2; all-reduce 110 GB/s over two nodes: the guide; 60 us per exchange: assumed; KV "
      "cache BF16, as its multi-node settings";
  gaudi2_pair.num_devices = 16;
  gaudi2_pair.kv_element_bytes = 2;
  gaudi2_pair.exchange_bytes_per_s = 110 * kGB;
  gaudi2_pair.sync_s = 60e-6;
  gaudi2_pair.load_bytes_per_s = 12 * kGB;

  return {
      cpu_server({
          .name = "2x-epyc-9005",
          .title = "2x EPYC 9005, 256-384 cores, 24 ch DDR5-6400",
          .sources =
              std::string("1.23 TB/s nominal, 950 GB/s usable, BF16 85 TFLOP/s (Zen 5: twice Zen 4 per core), 60 % "
                          "of it, 88 % of bandwidth: estimates, docs/performance.md; ") +
              kLoadSource,
          .memory_bytes = kDdr5Socket,
          .read_bytes_per_s = 475 * kGB,
          .bf16_flops = 42.5 * kTera,
          .efficiency = {.read = 0.88, .dense = 0.6, .experts = 0.6, .attention = 0.6},
      }),
      cpu_server({
          .name = "2x-xeon-6980p",
          .title = "2x Xeon 6980P, 256 cores, 24 ch MRDIMM-8800",
          .sources =
              std::string("1.69 TB/s nominal, 1.35 TB/s usable, AMX BF16 500 TFLOP/s nominal, 28 % of it, 88 % of "
                          "bandwidth: estimates, docs/performance.md; ") +
              kLoadSource,
          .memory_bytes = kDdr5Socket,
          .read_bytes_per_s = 675 * kGB,
          .bf16_flops = 250 * kTera,
          .efficiency = {.read = 0.88, .dense = 0.28, .experts = 0.28, .attention = 0.28},
      }),
      gaudi2,
      gaudi2_pair,
      {
          .name = "8x-h200",
          .title = "8x H200 (141 GB)",
          .sources = "141 GB, 4.8 TB/s, 989 TFLOP/s BF16 (half of the figure with sparsity): published figures; "
                     "all-reduce 300 GB/s, 12 us per exchange, 75 % "
                     "of bandwidth, 55 % of peak: assumed; load 12 GB/s: two drives (assumed)",
          .num_devices = 8,
          .expert_parallel = true,
          .memory_bytes = 141 * kGB,
          .reserved_share = 0.1,
          .read_bytes_per_s = 4800 * kGB,
          .bf16_flops = 989 * kTera,
          .efficiency = {.read = 0.75, .dense = 0.55, .experts = 0.55, .attention = 0.5},
          .chunk_tokens = 8192,
          .kv_b_bytes = 2,
          .sync_s = 12e-6,
          .syncs_per_layer = 2,
          .exchange_bytes_per_s = 300 * kGB,
          .load_bytes_per_s = 12 * kGB,
      },
  };
}

constexpr double kAny = std::numeric_limits<double>::max();
constexpr double kMostDevices = 4096;

// One number of a machine file. Integers and booleans are numbers here, too.
struct Field {
  const char* name;
  double min, max;
  bool required;
  bool integer;
  double (*get)(const Machine&);
  void (*set)(Machine&, double);
};

#define HADAL_MACHINE_FIELD(json_name, member, min, max, required, integer)                                   \
  Field {                                                                                                     \
    json_name, min, max, required, integer,                                                                   \
        [](const Machine& machine) { return static_cast<double>(machine.member); },                           \
        [](Machine& machine, double value) { machine.member = static_cast<decltype(machine.member)>(value); } \
  }

const std::vector<Field>& fields() {
  static const std::vector<Field> all = {
      HADAL_MACHINE_FIELD("num_devices", num_devices, 1, kMostDevices, false, true),
      HADAL_MACHINE_FIELD("memory_bytes", memory_bytes, 1, kAny, true, false),
      HADAL_MACHINE_FIELD("reserved_share", reserved_share, 0, 0.99, false, false),
      HADAL_MACHINE_FIELD("read_bytes_per_s", read_bytes_per_s, 1, kAny, true, false),
      HADAL_MACHINE_FIELD("bf16_flops", bf16_flops, 1, kAny, true, false),
      HADAL_MACHINE_FIELD("read_efficiency", efficiency.read, 0.01, 1, false, false),
      HADAL_MACHINE_FIELD("dense_efficiency", efficiency.dense, 0.01, 1, false, false),
      HADAL_MACHINE_FIELD("experts_efficiency", efficiency.experts, 0.01, 1, false, false),
      HADAL_MACHINE_FIELD("attention_efficiency", efficiency.attention, 0.01, 1, false, false),
      HADAL_MACHINE_FIELD("activation_bytes_per_token", activation_bytes_per_token, 0, kAny, false, false),
      HADAL_MACHINE_FIELD("chunk_tokens", chunk_tokens, 0, 1 << 30, false, true),
      HADAL_MACHINE_FIELD("kv_element_bytes", kv_element_bytes, 1, 4, false, false),
      HADAL_MACHINE_FIELD("kv_b_bytes", kv_b_bytes, 0, 4, false, false),
      HADAL_MACHINE_FIELD("sync_s", sync_s, 0, 1, false, false),
      HADAL_MACHINE_FIELD("syncs_per_layer", syncs_per_layer, 0, 1000, false, false),
      HADAL_MACHINE_FIELD("exchange_bytes_per_s", exchange_bytes_per_s, 0, kAny, false, false),
      HADAL_MACHINE_FIELD("load_bytes_per_s", load_bytes_per_s, 0, kAny, false, false),
  };
  return all;
}

#undef HADAL_MACHINE_FIELD

// Fields that are not numbers.
struct TextField {
  const char* name;
  std::string Machine::*value;
};
constexpr TextField kTextFields[] = {
    {"name", &Machine::name}, {"title", &Machine::title}, {"sources", &Machine::sources}};
constexpr const char* kExpertParallel = "expert_parallel";

Expected<double> checked_number(const Json& value, const Field& field) {
  if (!value.is_number()) {
    return make_error(ErrorCode::kCorrupt, "{} is {}, not a number", field.name, dump_json(value).substr(0, 40));
  }
  const double number = value.get<double>();
  if (!(number >= field.min && number <= field.max) || (field.integer && number != std::floor(number))) {
    return make_error(ErrorCode::kCorrupt, "{} is {}, it must be {} from {} to {}", field.name, number,
                      field.integer ? "a whole number" : "a number", field.min, field.max);
  }
  return number;
}

Status check_known_keys(const Json& json) {
  std::vector<std::string> known = {kExpertParallel};
  for (const TextField& field : kTextFields) known.emplace_back(field.name);
  for (const Field& field : fields()) known.emplace_back(field.name);
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string nearest = closest_name(key, known);
    return make_error(ErrorCode::kCorrupt, "unknown field {}{}", key.substr(0, 80),
                      nearest.empty() ? "" : " (did you mean " + nearest + "?)");
  }
  return {};
}

}  // namespace

const std::vector<Machine>& machine_table() {
  static const std::vector<Machine> table = make_table();
  return table;
}

Expected<Machine> machine_by_name(const std::string& name) {
  std::vector<std::string> names = {"auto"};
  std::string list = "auto";
  for (const Machine& machine : machine_table()) {
    if (machine.name == name) return machine;
    names.push_back(machine.name);
    list += ", " + machine.name;
  }
  const std::string nearest = closest_name(name, names);
  return make_error(ErrorCode::kNotFound, "machine '{}' is neither a file nor known{}; known: {}", name,
                    nearest.empty() ? "" : " (did you mean " + nearest + "?)", list);
}

Expected<Machine> machine_from_json(const Json& json) {
  if (!json.is_object()) return make_error(ErrorCode::kCorrupt, "not a JSON object");
  HADAL_RETURN_IF_ERROR(check_known_keys(json));
  Machine machine;
  for (const TextField& field : kTextFields) {
    const auto found = json.find(field.name);
    if (found == json.end()) continue;
    if (!found->is_string()) return make_error(ErrorCode::kCorrupt, "{} is not a string", field.name);
    machine.*field.value = found->get<std::string>();
  }
  if (const auto found = json.find(kExpertParallel); found != json.end()) {
    if (!found->is_boolean()) return make_error(ErrorCode::kCorrupt, "{} is neither true nor false", kExpertParallel);
    machine.expert_parallel = found->get<bool>();
  }
  for (const Field& field : fields()) {
    const auto found = json.find(field.name);
    if (found == json.end()) {
      if (field.required) return make_error(ErrorCode::kCorrupt, "{} is missing", field.name);
      continue;
    }
    HADAL_ASSIGN_OR_RETURN(const double number, checked_number(*found, field));
    field.set(machine, number);
  }
  if (machine.title.empty()) machine.title = machine.name;
  return machine;
}

Json machine_to_json(const Machine& machine) {
  Json out = Json::object();
  for (const TextField& field : kTextFields) out[field.name] = machine.*field.value;
  out[kExpertParallel] = machine.expert_parallel;
  for (const Field& field : fields()) out[field.name] = field.get(machine);
  return out;
}

Expected<Machine> load_machine(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxMachineFileBytes));
  auto json = parse_json(text, {.max_bytes = kMaxMachineFileBytes, .refuse_duplicate_keys = true});
  if (!json) return forward_error(std::move(json), path.string());
  auto machine = machine_from_json(*json);
  if (!machine) return forward_error(std::move(machine), path.string());
  if (machine->name.empty()) machine->name = path.stem().string();
  if (machine->title.empty()) machine->title = machine->name;
  return machine;
}

Machine machine_from_ceilings(const Ceilings& ceilings, double memory_bytes) {
  Machine machine;
  machine.name = "auto";
  machine.title = fmt::format("this machine, {} threads", ceilings.num_threads);
  machine.sources = "hadal bench ceilings";
  machine.memory_bytes = memory_bytes;
  machine.reserved_share = 0;
  // Planning is for the usual state of a shared machine, not for its best moment.
  machine.read_bytes_per_s =
      ceilings.read_median_bytes_per_s > 0 ? ceilings.read_median_bytes_per_s : ceilings.read_bytes_per_s;
  machine.read_bytes_per_s = std::min(machine.read_bytes_per_s, ceilings.num_threads * kOwnPanelBytesPerThread);
  // Without BF16 instructions the kernels multiply in FP32.
  machine.bf16_flops = ceilings.bf16_flops > 0 ? ceilings.bf16_flops : ceilings.fp32_flops;
  machine.efficiency = kOwnKernels;
  machine.chunk_tokens = kOwnChunkTokens;
  machine.kv_b_bytes = kOwnKvBBytes;
  machine.sync_s = ceilings.barrier_s;
  machine.syncs_per_layer = kOwnLoopsPerLayer;
  machine.load_bytes_per_s = ceilings.first_touch_bytes_per_s;
  if (ceilings.disk_read_bytes_per_s > 0) {
    machine.load_bytes_per_s = std::min(machine.load_bytes_per_s, ceilings.disk_read_bytes_per_s);
  }
  return machine;
}

}  // namespace hadal
