#!/usr/bin/env python3
"""Writes a GGUF file of arch deepseek2 with random weights, for llama.cpp to run beside hadal.

    python3 -m venv VENV && VENV/bin/pip install -r bench/peers/requirements.txt
    VENV/bin/python bench/peers/write_gguf.py --config bench/shapes/small.json --out small.gguf

The shape comes from a Hugging Face config.json. Every matrix is Q8_0 (34 bytes for 32 weights); the router and its bias
and the norms are F32, as llama.cpp's own conversion keeps them. Weights have a root mean square of 1/sqrt(in_features),
so activations stay finite. The bytes depend on the shape and the seed only: one random pool is written again and
again from changing places, so the disk decides how long it takes. Memory: about 100 MB.
"""

import argparse
import json
import math
import sys
import time

import gguf
import numpy as np
from gguf import MODEL_ARCH, MODEL_TENSOR, TENSOR_NAMES, GGMLQuantizationType

BLOCK_WEIGHTS = 32
BLOCK = np.dtype([("scale", "<f2"), ("codes", "i1", BLOCK_WEIGHTS)])
POOL_BLOCKS = 1 << 20
# Root mean square of the codes, uniform over -128..127.
CODE_RMS = math.sqrt((256**2 - 1) / 12 + 0.25)


class Pool:
    """Random Q8_0 blocks. Scales follow the fan-in of the matrix that is being written."""

    def __init__(self, rng):
        self.rng = rng
        self.blocks = np.zeros(POOL_BLOCKS, BLOCK)
        self.blocks["codes"] = np.frombuffer(rng.bytes(POOL_BLOCKS * BLOCK_WEIGHTS), np.int8).reshape(-1, BLOCK_WEIGHTS)
        self.spread = rng.uniform(0.5, 1.5, POOL_BLOCKS)
        self.in_features = None

    def set_in_features(self, in_features):
        if in_features != self.in_features:
            rms = CODE_RMS * math.sqrt(np.mean(self.spread**2))
            self.blocks["scale"] = self.spread / (rms * math.sqrt(in_features))
            self.in_features = in_features


class Q8Matrix:
    """What GGUFWriter.write_tensor_data() needs of an array, without holding it in memory."""

    dtype = GGMLQuantizationType.Q8_0

    def __init__(self, pool, shape):
        if shape[-1] % BLOCK_WEIGHTS:
            raise SystemExit(f"Q8_0 needs rows of a multiple of {BLOCK_WEIGHTS} weights, not {shape[-1]}")
        self.pool, self.shape = pool, shape
        self.num_blocks = math.prod(shape) // BLOCK_WEIGHTS
        self.nbytes = self.num_blocks * BLOCK.itemsize

    def tofile(self, file):
        self.pool.set_in_features(self.shape[-1])
        left = self.num_blocks
        while left:
            begin = int(self.pool.rng.integers(POOL_BLOCKS // 2))
            count = min(left, POOL_BLOCKS - begin)
            self.pool.blocks[begin : begin + count].tofile(file)
            left -= count


class F32Tensor:
    dtype = GGMLQuantizationType.F32

    def __init__(self, values):
        self.values = values.astype("<f4")
        self.shape, self.nbytes = self.values.shape, self.values.nbytes

    def tofile(self, file):
        self.values.tofile(file)


def set_hyperparameters(writer, c):
    kv_rank, rope_dim = c["kv_lora_rank"], c["qk_rope_head_dim"]
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_leading_dense_block_count(c["first_k_dense_replace"])
    writer.add_vocab_size(c["vocab_size"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    # MLA in its absorbed form: one KV head, as wide as the latent.
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(1)
    if c.get("q_lora_rank"):
        writer.add_q_lora_rank(c["q_lora_rank"])
    writer.add_kv_lora_rank(kv_rank)
    writer.add_key_length(kv_rank + rope_dim)
    writer.add_value_length(kv_rank)
    writer.add_key_length_mla(c["qk_nope_head_dim"] + rope_dim)
    writer.add_value_length_mla(c["v_head_dim"])
    writer.add_expert_count(c["n_routed_experts"])
    writer.add_expert_used_count(c["num_experts_per_tok"])
    writer.add_expert_shared_count(c["n_shared_experts"])
    writer.add_expert_feed_forward_length(c["moe_intermediate_size"])
    writer.add_expert_group_count(c["n_group"])
    writer.add_expert_group_used_count(c["topk_group"])
    writer.add_expert_weights_scale(c["routed_scaling_factor"])
    writer.add_expert_weights_norm(c["norm_topk_prob"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType[c["scoring_func"].upper()])
    writer.add_rope_dimension_count(rope_dim)
    writer.add_rope_freq_base(float(c["rope_theta"]))
    if rope := c.get("rope_scaling"):
        writer.add_rope_scaling_type(gguf.RopeScalingType[rope["type"].upper()])
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        # llama.cpp expects this tenth for arch deepseek2.
        writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
    writer.add_tokenizer_model("none")  # its benchmarks make up token ids
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def model_tensors(c, pool):
    """(name, tensor) in file order. Shapes are [rows, in_features], with a leading axis for experts and heads."""
    T = MODEL_TENSOR
    hidden, heads, vocab = c["hidden_size"], c["num_attention_heads"], c["vocab_size"]
    kv_rank, q_rank, rope_dim = c["kv_lora_rank"], c.get("q_lora_rank"), c["qk_rope_head_dim"]
    nope_dim, v_dim = c["qk_nope_head_dim"], c["v_head_dim"]
    experts, width = c["n_routed_experts"], c["moe_intermediate_size"]

    def matrix(kind, *shape, layer=None):
        return f"{TENSOR_NAMES[kind].format(bid=layer)}.weight", Q8Matrix(pool, shape)

    def norm(kind, size, layer=None):
        return f"{TENSOR_NAMES[kind].format(bid=layer)}.weight", F32Tensor(np.ones(size))

    yield matrix(T.TOKEN_EMBD, vocab, hidden)
    yield norm(T.OUTPUT_NORM, hidden)
    yield matrix(T.OUTPUT, vocab, hidden)
    for layer in range(c["num_hidden_layers"]):
        yield norm(T.ATTN_NORM, hidden, layer)
        if q_rank:
            yield matrix(T.ATTN_Q_A, q_rank, hidden, layer=layer)
            yield norm(T.ATTN_Q_A_NORM, q_rank, layer)
            yield matrix(T.ATTN_Q_B, heads * (nope_dim + rope_dim), q_rank, layer=layer)
        else:
            yield matrix(T.ATTN_Q, heads * (nope_dim + rope_dim), hidden, layer=layer)
        yield matrix(T.ATTN_KV_A_MQA, kv_rank + rope_dim, hidden, layer=layer)
        yield norm(T.ATTN_KV_A_NORM, kv_rank, layer)
        yield matrix(T.ATTN_K_B, heads, kv_rank, nope_dim, layer=layer)
        yield matrix(T.ATTN_V_B, heads, v_dim, kv_rank, layer=layer)
        yield matrix(T.ATTN_OUT, hidden, heads * v_dim, layer=layer)
        yield norm(T.FFN_NORM, hidden, layer)
        if layer < c["first_k_dense_replace"]:
            yield matrix(T.FFN_GATE, c["intermediate_size"], hidden, layer=layer)
            yield matrix(T.FFN_UP, c["intermediate_size"], hidden, layer=layer)
            yield matrix(T.FFN_DOWN, hidden, c["intermediate_size"], layer=layer)
            continue
        router, bias = (TENSOR_NAMES[kind].format(bid=layer) for kind in (T.FFN_GATE_INP, T.FFN_EXP_PROBS_B))
        yield f"{router}.weight", F32Tensor(pool.rng.standard_normal((experts, hidden)) / math.sqrt(hidden))
        yield f"{bias}.bias", F32Tensor(pool.rng.uniform(-0.05, 0.05, experts))
        yield matrix(T.FFN_GATE_EXP, experts, width, hidden, layer=layer)
        yield matrix(T.FFN_UP_EXP, experts, width, hidden, layer=layer)
        yield matrix(T.FFN_DOWN_EXP, experts, hidden, width, layer=layer)
        shared = width * c["n_shared_experts"]
        yield matrix(T.FFN_GATE_SHEXP, shared, hidden, layer=layer)
        yield matrix(T.FFN_UP_SHEXP, shared, hidden, layer=layer)
        yield matrix(T.FFN_DOWN_SHEXP, hidden, shared, layer=layer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="config.json of a DeepseekV3ForCausalLM model")
    parser.add_argument("--out", required=True, help="file to write")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with open(args.config, encoding="utf-8") as file:
        config = json.load(file)

    start = time.monotonic()
    writer = gguf.GGUFWriter(args.out, gguf.MODEL_ARCH_NAMES[MODEL_ARCH.DEEPSEEK2])
    set_hyperparameters(writer, config)
    tensors = list(model_tensors(config, Pool(np.random.default_rng(args.seed))))
    for name, tensor in tensors:
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), tensor.nbytes, raw_dtype=tensor.dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, tensor in tensors:
        writer.write_tensor_data(tensor)
    writer.close()
    gigabytes = sum(tensor.nbytes for _, tensor in tensors) / 1e9
    seconds = time.monotonic() - start
    print(f"{args.out}: {len(tensors)} tensors, {gigabytes:.2f} GB in {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
