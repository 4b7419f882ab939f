#include "bench/kernel_cases.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "base/check.h"

namespace hadal {
namespace {

constexpr int64_t kMaxLeaves = 16;
constexpr int64_t kBlockSize = 64;
// With more tokens fewer copies do: time goes into multiplying.
constexpr int64_t kStreamedTokens = 16;

int64_t align(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// As the model cuts row-parallel linears: the largest power of two, at most 16, that divides the width.
int64_t num_leaves(int64_t cols) {
  int64_t leaves = kMaxLeaves;
  while (cols % leaves != 0) leaves /= 2;
  return leaves;
}

// Random bytes that are numbers between 2^-31 and 2 in FP8, BF16 and FP32 alike.
void fill_numbers(std::byte* data, int64_t size_bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int64_t i = 0; i + 8 <= size_bytes; i += 8) {
    const uint64_t word = (random() & 0x8F8F8F8F8F8F8F8FULL) | 0x3030303030303030ULL;
    std::memcpy(data + i, &word, 8);
  }
}

// Hands [0, total) out to the workers in ranges, large ones first, as the model's step does.
template <typename Fn>
void run_ranges(ThreadPool& pool, int64_t total, Fn&& fn) {
  std::atomic<int64_t> next{0};
  pool.run([&](int worker_idx) {
    for (int64_t begin = next.load(std::memory_order_relaxed); begin < total;) {
      const int64_t end = begin + std::max<int64_t>(1, (total - begin) / (4 * pool.num_threads()));
      if (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      fn(begin, end, worker_idx);
      begin = next.load(std::memory_order_relaxed);
    }
  });
}

std::byte* aligned(std::vector<std::byte>& storage) {
  const auto address = reinterpret_cast<uintptr_t>(storage.data());
  return storage.data() + (64 - address % 64) % 64;
}

}  // namespace

std::vector<KernelCase> matrix_cases(const ModelConfig& c) {
  const DType quantised = c.fp8_weights ? DType::kF8E4M3 : DType::kBF16;
  const int64_t q_rows = c.num_attention_heads * c.qk_head_dim();
  std::vector<KernelCase> cases;
  const auto add = [&](KernelOp op, const char* name, DType dtype, int64_t rows, int64_t cols) {
    const auto same = [&](const KernelCase& k) {
      return k.op == op && k.dtype == dtype && k.rows == rows && k.cols == cols;
    };
    if (rows > 0 && cols > 0 && std::none_of(cases.begin(), cases.end(), same)) {
      cases.push_back({.op = op, .name = name, .dtype = dtype, .rows = rows, .cols = cols});
    }
  };
  const auto add_mlp = [&](const char* gate_up, const char* down, int64_t width) {
    add(KernelOp::kGateUp, gate_up, quantised, width, c.hidden_size);
    add(KernelOp::kDown, down, quantised, c.hidden_size, width);
  };
  add(KernelOp::kLinear, "q_a", quantised, c.q_lora_rank, c.hidden_size);
  add(KernelOp::kLinear, c.q_lora_rank > 0 ? "q_b" : "q", quantised, q_rows,
      c.q_lora_rank > 0 ? c.q_lora_rank : c.hidden_size);
  add(KernelOp::kLinear, "kv_a", quantised, c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size);
  add(KernelOp::kLinear, "W_UK^T, one head", DType::kBF16, c.kv_lora_rank, c.qk_nope_head_dim);
  add(KernelOp::kLinear, "W_UV, one head", DType::kBF16, c.v_head_dim, c.kv_lora_rank);
  add(KernelOp::kDown, "o", quantised, c.hidden_size, c.num_attention_heads * c.v_head_dim);
  if (c.first_k_dense_replace > 0 || c.router.n_routed_experts == 0) {
    add_mlp("dense gate+up", "dense down", c.intermediate_size);
  }
  if (c.router.n_routed_experts > 0) {
    add_mlp("expert gate+up", "expert down", c.moe_intermediate_size);
    add_mlp("shared gate+up", "shared down", c.shared_intermediate_size());
    add(KernelOp::kLinear, "router", DType::kBF16, c.router.n_routed_experts, c.hidden_size);
  }
  add(KernelOp::kLinear, "lm_head", DType::kBF16, c.vocab_size, c.hidden_size);
  return cases;
}

Expected<KernelRunner> KernelRunner::create(const ModelConfig& config, const KernelTable& kernels,
                                            uint64_t memory_bytes) {
  HADAL_ASSIGN_OR_RETURN(AlignedBuffer memory, AlignedBuffer::create(memory_bytes, "the benchmark's matrices"));
  fill_numbers(memory.data(), static_cast<int64_t>(memory.size_bytes()), 1);
  return KernelRunner(config, kernels, std::move(memory));
}

KernelRunner::KernelRunner(const ModelConfig& config, const KernelTable& kernels, AlignedBuffer memory)
    : config_(config), kernels_(&kernels), memory_(std::move(memory)) {}

PackedMatrix KernelRunner::matrix(DType dtype, int64_t rows, int64_t cols, int64_t idx) const {
  PackedMatrix w = {.dtype = dtype, .rows = rows, .cols = cols};
  HADAL_CHECK((idx + 1) * align(w.panels_bytes()) <= static_cast<int64_t>(memory_.size_bytes()), "matrix {} x {}", rows,
              cols);
  w.panels = memory_.data() + idx * align(w.panels_bytes());
  if (w.num_scales() > 0) w.scales = scales_.data();
  return w;
}

void KernelRunner::make_scratch(int64_t bytes_each, const ThreadPool& pool) {
  scratch_bytes_ = align(bytes_each);
  scratch_.resize(static_cast<size_t>(scratch_bytes_ * pool.num_threads() + 64));
}

std::byte* KernelRunner::scratch_of(int worker_idx) { return aligned(scratch_) + worker_idx * scratch_bytes_; }

KernelRunner::Work KernelRunner::run(const KernelCase& what, ThreadPool& pool) {
  HADAL_CHECK(what.tokens > 0, "tokens not set");
  if (what.op == KernelOp::kAbsorbed) return run_absorbed(what, pool);
  if (what.op == KernelOp::kExpanded) return run_expanded(what, pool);
  return run_matrices(what, pool);
}

void KernelRunner::use_inputs(int64_t elements) {
  const auto bytes = static_cast<size_t>(elements * act_bytes() + 64);
  if (inputs_.size() >= bytes) return;
  inputs_.resize(bytes);
  fill_numbers(inputs_.data(), static_cast<int64_t>(bytes), 2);
}

KernelRunner::Work KernelRunner::run_matrices(const KernelCase& what, ThreadPool& pool) {
  KernelCase fitted = what;
  // A table with F32 activations has F32 matrices only.
  if (kernels_->act_dtype == DType::kF32) fitted.dtype = DType::kF32;
  const int64_t matrices_each = what.op == KernelOp::kGateUp ? 2 : 1;
  const auto memory_bytes = static_cast<int64_t>(memory_.size_bytes());
  PackedMatrix shape = {.dtype = fitted.dtype, .rows = fitted.rows, .cols = fitted.cols};
  // The vocabulary of a large model: as many rows as there is memory for.
  const int64_t most_panels = memory_bytes / matrices_each / shape.panel_bytes();
  fitted.rows = std::min(fitted.rows, most_panels * kPanelRows);
  shape.rows = fitted.rows;
  const int64_t copy_bytes = matrices_each * align(shape.panels_bytes());
  const int64_t wanted_bytes = memory_bytes * kStreamedTokens / std::max(what.tokens, kStreamedTokens);
  const int64_t num_copies = std::clamp<int64_t>(wanted_bytes / copy_bytes, 1, memory_bytes / copy_bytes);

  scales_.resize(static_cast<size_t>(shape.num_panels() * shape.num_scale_cols()), 1.0F);
  use_inputs(what.tokens * std::max(fitted.cols, fitted.rows));
  output_.resize(static_cast<size_t>(num_copies * what.tokens * fitted.rows) * sizeof(float));
  if (what.op == KernelOp::kDown) {
    const DownSource source = {.w = &shape, .num_tokens = what.tokens};
    make_scratch(kernels_->down_scratch_bytes(
                     {.sources = {&source, 1}, .num_leaves = num_leaves(fitted.cols), .num_tokens = what.tokens}),
                 pool);
  }
  const int64_t panels = shape.num_panels();
  run_ranges(pool, num_copies * panels, [&](int64_t begin, int64_t end, int worker_idx) {
    while (begin < end) {
      const int64_t copy = begin / panels;
      const int64_t stop = std::min(end, (copy + 1) * panels);
      run_panels(fitted, copy, begin - copy * panels, stop - copy * panels, worker_idx);
      begin = stop;
    }
  });
  const auto count = static_cast<double>(num_copies * matrices_each);
  const auto bytes_each = static_cast<double>(shape.panels_bytes()) + 4.0 * static_cast<double>(shape.num_scales());
  return {.bytes = count * bytes_each,
          .flops = count * 2 * static_cast<double>(what.tokens * fitted.rows * fitted.cols),
          .num_copies = num_copies};
}

void KernelRunner::run_panels(const KernelCase& what, int64_t copy, int64_t panel_begin, int64_t panel_end,
                              int worker_idx) {
  std::byte* out = output_.data() + copy * what.tokens * what.rows * static_cast<int64_t>(sizeof(float));
  if (what.op == KernelOp::kLinear) {
    const PackedMatrix w = matrix(what.dtype, what.rows, what.cols, copy);
    kernels_->linear(
        {.w = &w, .x = inputs_.data(), .ldx = what.cols, .num_tokens = what.tokens, .y = out, .ldy = what.rows},
        panel_begin, panel_end);
  } else if (what.op == KernelOp::kGateUp) {
    const PackedMatrix gate = matrix(what.dtype, what.rows, what.cols, 2 * copy);
    const PackedMatrix up = matrix(what.dtype, what.rows, what.cols, 2 * copy + 1);
    kernels_->gate_up({.gate = &gate,
                       .up = &up,
                       .x = inputs_.data(),
                       .ldx = what.cols,
                       .num_tokens = what.tokens,
                       .h = out,
                       .ldh = what.rows},
                      panel_begin, panel_end);
  } else {
    const PackedMatrix w = matrix(what.dtype, what.rows, what.cols, copy);
    const DownSource source = {.w = &w, .h = inputs_.data(), .ldh = what.cols, .num_tokens = what.tokens};
    kernels_->down({.sources = {&source, 1},
                    .num_leaves = num_leaves(what.cols),
                    .num_tokens = what.tokens,
                    .y = reinterpret_cast<float*>(out),
                    .ldy = what.rows},
                   panel_begin, panel_end, scratch_of(worker_idx));
  }
}

PagedKvView KernelRunner::cache_view() {
  const int64_t row_elements = config_.kv_lora_rank + config_.qk_rope_head_dim;
  const int64_t row_bytes = row_elements * act_bytes();
  const int64_t num_blocks = static_cast<int64_t>(memory_.size_bytes()) / (kBlockSize * row_bytes);
  block_table_.resize(static_cast<size_t>(num_blocks));
  std::iota(block_table_.begin(), block_table_.end(), 0);
  return {.dtype = kernels_->act_dtype,
          .base = memory_.data(),
          .block_stride_bytes = kBlockSize * row_bytes,
          .block_size = kBlockSize,
          .row_elements = row_elements,
          .row_bytes = row_bytes};
}

KernelRunner::Work KernelRunner::run_absorbed(const KernelCase& what, ThreadPool& pool) {
  const PagedKvView kv = cache_view();
  const int64_t heads = config_.num_attention_heads, lora = config_.kv_lora_rank, rope = config_.qk_rope_head_dim;
  const int64_t blocks_each = (what.tokens + kBlockSize - 1) / kBlockSize;
  const int64_t most = static_cast<int64_t>(block_table_.size()) / blocks_each;
  HADAL_CHECK(most >= 1, "{} positions do not fit", what.tokens);
  // A quarter of the memory is more than caches hold; the same number for every worker.
  const int64_t threads = pool.num_threads();
  const int64_t num_sequences = std::clamp<int64_t>((most / 4 + threads - 1) / threads * threads, 1, most);
  use_inputs(heads * (lora + rope));
  output_.resize(static_cast<size_t>(num_sequences * heads * lora * act_bytes()));
  const int64_t groups = (heads + kMaxAbsorbedHeads - 1) / kMaxAbsorbedHeads;
  const auto args_of = [&](int64_t item) {
    const int64_t sequence = item / groups, head = item % groups * kMaxAbsorbedHeads;
    return AbsorbedAttentionArgs{.q_latent = inputs_.data() + head * lora * act_bytes(),
                                 .q_latent_stride = lora,
                                 .q_rope = inputs_.data() + (heads * lora + head * rope) * act_bytes(),
                                 .q_rope_stride = rope,
                                 .num_heads = std::min(kMaxAbsorbedHeads, heads - head),
                                 .kv_lora_rank = lora,
                                 .qk_rope_head_dim = rope,
                                 .scale = 0.1F,
                                 .kv = &kv,
                                 .block_table = block_table_.data() + sequence * blocks_each,
                                 .num_positions = what.tokens,
                                 .out = output_.data() + (sequence * heads + head) * lora * act_bytes(),
                                 .out_stride = lora};
  };
  make_scratch(absorbed_scratch_bytes(*kernels_, args_of(0)), pool);
  run_ranges(pool, num_sequences * groups, [&](int64_t begin, int64_t end, int worker_idx) {
    for (int64_t item = begin; item < end; ++item) attend_absorbed(*kernels_, args_of(item), scratch_of(worker_idx));
  });
  const auto rows = static_cast<double>(num_sequences * what.tokens);
  return {.bytes = rows * static_cast<double>(kv.row_bytes),
          .flops = 2 * rows * static_cast<double>(heads * (2 * lora + rope)),
          .num_copies = num_sequences};
}

KernelRunner::Work KernelRunner::run_expanded(const KernelCase& what, ThreadPool& pool) {
  const PagedKvView kv = cache_view();
  const int64_t heads = config_.num_attention_heads, lora = config_.kv_lora_rank;
  const int64_t qk = config_.qk_head_dim(), v = config_.v_head_dim;
  HADAL_CHECK(what.tokens <= static_cast<int64_t>(block_table_.size()) * kBlockSize, "{} tokens do not fit",
              what.tokens);
  use_inputs(what.tokens * heads * qk);
  output_.resize(static_cast<size_t>(what.tokens * heads * v * act_bytes()));
  const DType dtype = kernels_->act_dtype;
  const auto run_head = [&](int64_t head, int worker_idx, bool only_count) {
    const PackedMatrix w_uk = matrix(dtype, config_.qk_nope_head_dim, lora, head);
    const PackedMatrix w_uv = matrix(dtype, v, lora, heads + head);
    const ExpandedAttentionArgs args = {.q = inputs_.data() + head * qk * act_bytes(),
                                        .q_stride = heads * qk,
                                        .num_queries = what.tokens,
                                        .kv_lora_rank = lora,
                                        .qk_nope_head_dim = config_.qk_nope_head_dim,
                                        .qk_rope_head_dim = config_.qk_rope_head_dim,
                                        .v_head_dim = v,
                                        .w_uk = &w_uk,
                                        .w_uv = &w_uv,
                                        .scale = 0.1F,
                                        .kv = &kv,
                                        .block_table = block_table_.data(),
                                        .out = output_.data() + head * v * act_bytes(),
                                        .out_stride = heads * v};
    if (only_count) {
      make_scratch(kernels_->expanded_scratch_bytes(args), pool);
    } else {
      kernels_->attend_expanded(args, scratch_of(worker_idx));
    }
  };
  run_head(0, 0, true);
  run_ranges(pool, heads, [&](int64_t begin, int64_t end, int worker_idx) {
    for (int64_t head = begin; head < end; ++head) run_head(head, worker_idx, false);
  });
  const auto n = static_cast<double>(what.tokens);
  const auto projection = static_cast<double>((config_.qk_nope_head_dim + v) * lora);
  const double flops_each = 2 * (n * (n + 1) / 2 * static_cast<double>(qk + v) + n * projection);
  return {.bytes = static_cast<double>(heads) * projection * static_cast<double>(act_bytes()) +
                   n * static_cast<double>(kv.row_bytes),
          .flops = static_cast<double>(heads) * flops_each,
          .num_copies = heads};
}

}  // namespace hadal
