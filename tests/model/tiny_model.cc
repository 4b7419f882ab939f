#include "tiny_model.h"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <random>
#include <stdexcept>

#include "formats/safetensors_writer.h"

namespace hadal {
namespace {

void require(const Status& status) {
  if (!status) throw std::runtime_error(status.error().message);
}

template <typename T>
T require(Expected<T> value) {
  if (!value) throw std::runtime_error(value.error().message);
  return std::move(*value);
}

}  // namespace

Json tiny_config() {
  return Json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 512, "hidden_size": 256,
    "num_hidden_layers": 3, "num_nextn_predict_layers": 1, "intermediate_size": 512, "max_position_embeddings": 4096,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "num_attention_heads": 4, "q_lora_rank": 96, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
    "v_head_dim": 32, "attention_bias": false, "rope_theta": 10000, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "moe_intermediate_size": 128, "n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 4,
    "n_group": 4, "topk_group": 2, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true,
    "routed_scaling_factor": 2.5,
    "rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "beta_fast": 32,
                     "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}})");
}

Json tiny_config_without_lora() {
  Json config = tiny_config();
  const Json changes = Json::parse(R"({
    "vocab_size": 640, "hidden_size": 192, "num_nextn_predict_layers": 0, "intermediate_size": 320,
    "rms_norm_eps": 1e-5, "num_attention_heads": 3, "q_lora_rank": null, "rope_theta": 50000,
    "moe_intermediate_size": 96, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3, "n_group": 1,
    "topk_group": 1, "routed_scaling_factor": 2.446})");
  for (const auto& [key, value] : changes.items()) config[key] = value;
  config.erase("rope_scaling");
  return config;
}

void write_tiny_checkpoint(const std::filesystem::path& dir, const Json& config, SynthWeights weights) {
  const std::filesystem::path config_path = dir.string() + ".config.json";
  std::ofstream(config_path) << config.dump();
  SynthOptions options;
  options.config_path = config_path;
  options.out_dir = dir;
  options.values = SynthValues::kTinyFormula;
  options.weights = weights;
  require(write_synth_checkpoint(options));
}

StoredTensors read_all_tensors(const std::filesystem::path& dir) {
  const Checkpoint checkpoint = require(Checkpoint::open(dir));
  StoredTensors tensors;
  for (const Checkpoint::Entry& entry : checkpoint.entries()) {
    StoredTensor& tensor = tensors[entry.info.name];
    tensor = {entry.info.dtype, entry.info.shape, std::vector<std::byte>(entry.info.size_bytes())};
    require(checkpoint.read(entry, tensor.bytes));
  }
  return tensors;
}

void write_single_file(const std::filesystem::path& dir, const StoredTensors& tensors) {
  std::filesystem::remove(dir / kCheckpointIndexName);
  std::vector<TensorToWrite> layout;
  for (const auto& [name, tensor] : tensors) layout.push_back({name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer = require(SafetensorsWriter::create(dir / kCheckpointSingleName, layout));
  for (const auto& [name, tensor] : tensors) require(writer.append(tensor.bytes));
  require(writer.finish());
}

TestRunner::TestRunner(const std::filesystem::path& dir, const Options& options) : options_(options) {
  LoadOptions load;
  load.kernels = &kernels_for(options.isa);
  load.kv_dtype = options.kv_dtype;
  load.numerics = options.numerics;
  load.num_threads = options.num_threads;
  load.observer = options.observer;
  load.ranges = options.ranges;
  load.slice = options.slice;
  model_ = require(load_deepseek_v3(dir, load));
  model_->set_communicator(options.communicator);
  require(model_->allocate_kv(options.num_blocks, options.block_size, options.max_tokens));
  if (options.max_tokens_between > 0) require(model_->prepare_pieces(options.max_tokens_between));
  free_blocks_.resize(static_cast<size_t>(options.num_blocks));
  std::iota(free_blocks_.begin(), free_blocks_.end(), 0);
  std::shuffle(free_blocks_.begin(), free_blocks_.end(), std::mt19937(options.seed));
}

TestSequence TestRunner::make_sequence(std::vector<int32_t> ids, int64_t tile) {
  TestSequence sequence;
  sequence.expanded_end = static_cast<int64_t>(ids.size()) / tile * tile;
  const auto blocks = (static_cast<int64_t>(ids.size()) + options_.block_size - 1) / options_.block_size;
  if (blocks > static_cast<int64_t>(free_blocks_.size())) throw std::runtime_error("out of test blocks");
  sequence.block_table.assign(free_blocks_.end() - blocks, free_blocks_.end());
  free_blocks_.resize(free_blocks_.size() - static_cast<size_t>(blocks));
  sequence.ids = std::move(ids);
  return sequence;
}

void TestRunner::step(std::span<TestSequence* const> sequences, std::span<const int64_t> chunks) {
  step_by(sequences, chunks,
          [this](const StepInput& input, float* logits) { require(model_->forward(input, logits)); });
}

void TestRunner::step_in_pieces(std::span<TestSequence* const> sequences, std::span<const int64_t> chunks,
                                int64_t count, const std::function<void()>& between) {
  step_by(sequences, chunks, [&](const StepInput& input, float* logits) {
    require(model_->open_step(input));
    for (int64_t left = model_->num_pieces(); left > 0; left -= count) {
      require(model_->run_pieces(std::min(count, left), logits));
      if (left > count) between();
    }
  });
}

void TestRunner::step_by(std::span<TestSequence* const> sequences, std::span<const int64_t> chunks,
                         const std::function<void(const StepInput& input, float* logits)>& run) {
  std::vector<int32_t> ids, rows;
  std::vector<SequenceSpan> spans;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const TestSequence& sequence = *sequences[i];
    spans.push_back({.token_begin = static_cast<int64_t>(ids.size()),
                     .num_tokens = chunks[i],
                     .first_position = sequence.num_done,
                     .expanded_end = sequence.expanded_end,
                     .block_table = sequence.block_table});
    for (int64_t t = 0; t < chunks[i]; ++t) {
      rows.push_back(static_cast<int32_t>(ids.size()));
      ids.push_back(sequence.ids[static_cast<size_t>(sequence.num_done + t)]);
    }
  }
  const auto vocab = static_cast<size_t>(model_->vocab_size());
  std::vector<float> logits(ids.size() * vocab);
  run({ids, spans, rows}, options_.slice.rank == 0 ? logits.data() : nullptr);
  auto row = logits.begin();
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (int64_t t = 0; t < chunks[i]; ++t, row += static_cast<ptrdiff_t>(vocab)) {
      sequences[i]->logits.emplace_back(row, row + static_cast<ptrdiff_t>(vocab));
    }
    sequences[i]->num_done += chunks[i];
  }
}

void TestRunner::run(TestSequence& sequence, int64_t chunk) {
  TestSequence* const sequences[] = {&sequence};
  while (sequence.num_done < static_cast<int64_t>(sequence.ids.size())) {
    const int64_t chunks[] = {std::min(chunk, static_cast<int64_t>(sequence.ids.size()) - sequence.num_done)};
    step(sequences, chunks);
  }
}

std::vector<int32_t> random_ids(size_t count, int64_t vocab_size, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_size));
  return ids;
}

}  // namespace hadal
