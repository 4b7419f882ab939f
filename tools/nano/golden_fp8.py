"""Golden data for the numerics profiles: log-probabilities of hadal-nano under each, from a plain transcription.

Written from the definitions (vLLM's Gaudi fork, Intel Neural Compressor, DeepSeek's act_quant), without the engine: every
rounding is spelled out, sums are in float64. Prefill form throughout. The texts are those of golden_nano.json.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from config import NanoConfig

FULL_SCALE = 240.0  # Gaudi 2
GROUP = 128
TOP = 5


def bf16(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def cast(x: Tensor, full_scale: float) -> Tensor:
    """To the FP8 grid: nearest even, saturating."""
    return x.clamp(-full_scale, full_scale).to(torch.float8_e4m3fn).float()


def product(x: Tensor, w: Tensor) -> Tensor:
    return (x.double() @ w.double().T).float()


@dataclass
class Scale:
    """Naive scaling of INC, in BF16: not exactly reciprocal."""

    amax: float
    scale: Tensor = field(init=False)
    inv: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.scale = bf16(torch.tensor(self.amax) / FULL_SCALE)
        self.inv = bf16(1 / self.scale)


class Checkpoint:
    def __init__(self, folder: Path) -> None:
        weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        self._files = {name: safe_open(folder / name, "pt") for name in set(weight_map.values())}
        self._map = weight_map

    def tensor(self, name: str) -> Tensor:
        return self._files[self._map[name]].get_tensor(name)

    def plain(self, name: str) -> Tensor:
        return self.tensor(name).float()

    def codes_and_scales(self, name: str) -> tuple[Tensor, Tensor]:
        codes = self.tensor(f"{name}.weight").float()
        scales = self.tensor(f"{name}.weight_scale_inv").repeat_interleave(128, 0).repeat_interleave(128, 1)
        return codes, scales[: codes.shape[0], : codes.shape[1]]


class Arithmetic:
    """How one profile multiplies. `amax` collects ranges by module where a profile needs none of its own."""

    gaudi = False

    def __init__(self, weights: Checkpoint) -> None:
        self.weights = weights
        self.amax: dict[str, float] = {}

    def observe(self, name: str, x: Tensor) -> None:
        if x.numel():
            self.amax[name] = max(self.amax.get(name, 0.0), x.abs().max().item())

    def sums(self, name: str, x: Tensor, key: str) -> Tensor:
        """A linear's result before it is rounded to the dtype of activations."""
        self.observe(key, x)
        codes, scales = self.weights.codes_and_scales(name)
        return product(x, codes * scales)

    def linear(self, name: str, x: Tensor, key: str) -> Tensor:
        sums = self.sums(name, x, key)
        return bf16(sums) if self.gaudi else sums

    def kv_b(self, name: str, latent: Tensor, key: str) -> Tensor:
        self.observe(key, latent)
        codes, scales = self.weights.codes_and_scales(name)
        return product(latent, bf16(codes * scales))

    def cached(self, key: str, row: Tensor) -> Tensor:
        self.observe(key, row)
        return row

    def attention(self, key: str, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """[heads, time, dim] each, causal; BF16 probabilities that the normaliser sums as rounded."""
        for part, x in (("q", q), ("k", k), ("v", v)):
            self.observe(f"{key}.{part}", x)
        scores = (q.double() @ k.double().transpose(1, 2)).float() * scale
        scores = scores.masked_fill(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), float("-inf"))
        p = bf16(torch.exp(scores - scores.max(-1, keepdim=True).values))
        out = bf16(((p.double() @ v.double()) / p.double().sum(-1, keepdim=True)).float())
        self.observe(f"{key}.out", out)
        return out


class Fp8Dynamic(Arithmetic):
    def sums(self, name: str, x: Tensor, key: str) -> Tensor:
        codes, scales = self.weights.codes_and_scales(name)
        total = torch.zeros(x.shape[0], codes.shape[0])
        for begin in range(0, x.shape[1], GROUP):
            part = slice(begin, begin + GROUP)
            s = x[:, part].abs().amax(1, keepdim=True).clamp(min=1e-4) / 448
            total += product(cast(x[:, part] / s, 448), codes[:, part]) * scales[:, begin] * s
        return total


class RuntimeDequant(Arithmetic):
    gaudi = True

    def on_device(self, name: str) -> Tensor:
        """Halved codes, doubled scales, both in BF16."""
        codes, scales = self.weights.codes_and_scales(name)
        return bf16(cast(codes / 2, 448) * bf16(scales * 2))

    def sums(self, name: str, x: Tensor, key: str) -> Tensor:
        return product(x, self.on_device(name))

    def kv_b(self, name: str, latent: Tensor, key: str) -> Tensor:
        return self.linear(name, latent, key)


class GaudiDynamic(RuntimeDequant):
    epsilon = 1e-8

    def rows(self, name: str) -> tuple[Tensor, Tensor]:
        w = self.on_device(name)
        s = bf16(bf16(w.abs().amax(1, keepdim=True) + self.epsilon) / FULL_SCALE)
        return cast(w * bf16(1 / s), FULL_SCALE), s.T

    def sums(self, name: str, x: Tensor, key: str) -> Tensor:
        codes, row_scale = self.rows(name)
        s = bf16(bf16(x.abs().amax(1, keepdim=True) + 1e-8) / FULL_SCALE)
        return product(cast(x * bf16(1 / s), FULL_SCALE), codes) * s * row_scale


class GaudiStatic(GaudiDynamic):
    epsilon = 0.0

    def __init__(self, weights: Checkpoint, amax: dict[str, float]) -> None:
        super().__init__(weights)
        self.scales = {name: Scale(value) for name, value in amax.items()}

    def sums(self, name: str, x: Tensor, key: str) -> Tensor:
        codes, row_scale = self.rows(name)
        s = self.scales[key]
        return product(cast(x * s.inv, FULL_SCALE), codes) * s.scale * row_scale

    def cached(self, key: str, row: Tensor) -> Tensor:
        s = self.scales[key]
        return bf16(cast(row * s.inv, FULL_SCALE) * s.scale)

    def attention(self, key: str, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        sq, sk, sv, so = (self.scales[f"{key}.{part}"] for part in ("q", "k", "v", "out"))
        sp = Scale(1.0)
        qc, kc, vc = cast(q * sq.inv, FULL_SCALE), cast(k * sk.inv, FULL_SCALE), cast(v * sv.inv, FULL_SCALE)
        scores = (qc.double() @ kc.double().transpose(1, 2)).float() * (sq.scale * sk.scale) * scale
        scores = scores.masked_fill(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), float("-inf"))
        e = torch.exp(scores - scores.max(-1, keepdim=True).values)
        pc = cast(bf16(e / e.sum(-1, keepdim=True)) * sp.inv, FULL_SCALE)
        out = bf16((pc.double() @ vc.double()).float() * (sp.scale * sv.scale))
        return bf16(cast(out * so.inv, FULL_SCALE) * so.scale)


class Model:
    def __init__(self, weights: Checkpoint, math: Arithmetic) -> None:
        self.c, self.w, self.math = NanoConfig(), weights, math

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        factor = torch.rsqrt(x.double().square().mean(-1, keepdim=True) + eps).float()
        return bf16(self.w.plain(f"{name}.weight") * (x * factor))

    def rotate(self, x: Tensor) -> Tensor:
        """[time, heads, rope], interleaved pairs."""
        angles = torch.outer(torch.arange(x.shape[0], dtype=torch.float32), torch.tensor(self.c.rope_frequencies()))
        cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return bf16(torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2))

    def attention(self, layer: int, x: Tensor) -> Tensor:
        c, math, key = self.c, self.math, f"{layer}."
        name = f"model.layers.{layer}.self_attn."
        q_a = self.norm(name + "q_a_layernorm", math.linear(name + "q_a_proj", x, key + "attention_in"), 1e-6)
        q = math.linear(name + "q_b_proj", q_a, key + "q_b_in").unflatten(-1, (c.num_attention_heads, c.qk_head_dim))
        q = torch.cat((bf16(q[..., : c.qk_nope_head_dim]), self.rotate(q[..., c.qk_nope_head_dim :])), -1)
        kv = math.linear(name + "kv_a_proj_with_mqa", x, key + "attention_in")
        latent = self.norm(name + "kv_a_layernorm", kv[:, : c.kv_lora_rank], 1e-6)
        row = math.cached(key + "latent_cache", torch.cat((latent, self.rotate(kv[:, None, c.kv_lora_rank :])[:, 0]), -1))
        latent, k_pe = row[:, : c.kv_lora_rank], row[:, None, c.kv_lora_rank :]
        expanded = bf16(math.kv_b(name + "kv_b_proj", latent, key + "kv_b_in")).unflatten(-1, (c.num_attention_heads, -1))
        k = torch.cat((expanded[..., : c.qk_nope_head_dim], k_pe.expand(-1, c.num_attention_heads, -1)), -1)
        v = expanded[..., c.qk_nope_head_dim :]
        out = math.attention(key + "sdpa", *(t.transpose(0, 1) for t in (q, k, v)), c.attention_scale())
        return math.linear(name + "o_proj", out.transpose(0, 1).flatten(1), key + "o_in")

    def mlp(self, name: str, x: Tensor, in_key: str, down_key: str) -> Tensor:
        gate, up = (self.math.linear(f"{name}.{part}_proj", x, in_key) for part in ("gate", "up"))
        return self.math.sums(f"{name}.down_proj", bf16(gate / (1 + torch.exp(-gate)) * up), down_key)

    def route(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        c, rounded = self.c, bf16 if self.math.gaudi else (lambda t: t)
        scores = torch.sigmoid(rounded(product(x, self.w.plain(f"model.layers.{layer}.mlp.gate.weight"))))
        biased = scores + rounded(self.w.plain(f"model.layers.{layer}.mlp.gate.e_score_correction_bias"))
        grouped = biased.unflatten(-1, (c.n_group, -1))
        group_score = grouped.topk(2, -1).values.sum(-1)
        kept = torch.zeros_like(group_score).scatter_(-1, group_score.topk(c.topk_group, -1).indices, 1.0)
        chosen = grouped.masked_fill(kept.unsqueeze(-1) == 0, float("-inf")).flatten(-2).topk(c.num_experts_per_tok, -1).indices
        weights = scores.gather(-1, chosen)
        return chosen, rounded(weights / (weights.sum(-1, keepdim=True) + 1e-20) * c.routed_scaling_factor)

    def moe(self, layer: int, x: Tensor) -> Tensor:
        key, name = f"{layer}.", f"model.layers.{layer}.mlp."
        chosen, weights = self.route(layer, x)
        total = self.mlp(name + "shared_experts", x, key + "mlp_in", key + "down_in")
        for expert in range(self.c.n_routed_experts):
            rows, slots = (chosen == expert).nonzero(as_tuple=True)
            if len(rows):
                out = self.mlp(f"{name}experts.{expert}", x[rows], key + "mlp_in", f"{key}expert{expert}")
                total[rows] += weights[rows, slots, None] * out
        return total

    def logprobs(self, ids: list[int], known_tokens: int) -> Tensor:
        add = (lambda x, y: bf16(x + bf16(y))) if self.math.gaudi else (lambda x, y: x + y)
        x = self.w.plain("model.embed_tokens.weight")[torch.tensor(ids)]
        for layer in range(self.c.num_hidden_layers):
            name = f"model.layers.{layer}."
            x = add(x, self.attention(layer, self.norm(name + "input_layernorm", x, self.c.rms_norm_eps)))
            normed = self.norm(name + "post_attention_layernorm", x, self.c.rms_norm_eps)
            dense = layer < self.c.first_k_dense_replace
            x = add(x, self.mlp(name + "mlp", normed, f"{layer}.mlp_in", f"{layer}.down_in") if dense else self.moe(layer, normed))
        logits = product(self.norm("model.norm", x, self.c.rms_norm_eps), self.w.plain("lm_head.weight"))
        if self.math.gaudi:
            logits = bf16(logits)
        return torch.log_softmax(logits[:, :known_tokens].double(), -1)


def golden_case(case: dict, maths: dict[str, Arithmetic], weights: Checkpoint, known_tokens: int) -> dict:
    ids = case["prompt_ids"] + case["ids"][:-1]
    first = len(case["prompt_ids"]) - 1
    profiles = {}
    for name, math in maths.items():
        values, tokens = Model(weights, math).logprobs(ids, known_tokens)[first:].topk(TOP)
        profiles[name] = [[[t, round(v, 4)] for t, v in zip(*row)] for row in zip(tokens.tolist(), values.tolist())]
    return {"name": case["name"], "ids": ids, "first": first, "profiles": profiles}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/nano"))
    folder = parser.parse_args().model
    golden = json.loads((folder / "golden_nano.json").read_text())
    known_tokens = golden["rules"]["masked_ids_from"]
    weights = Checkpoint(folder)
    observed = Arithmetic(weights)
    for case in golden["cases"]:
        Model(weights, observed).logprobs(case["prompt_ids"] + case["ids"][:-1], known_tokens)
    maths = {"bf16": observed, "fp8-dynamic": Fp8Dynamic(weights), "gaudi2-runtime-dequant": RuntimeDequant(weights),
             "gaudi2-dynamic": GaudiDynamic(weights), "gaudi2-static": GaudiStatic(weights, observed.amax)}
    cases = [golden_case(case, maths, weights, known_tokens) for case in golden["cases"]]
    text = json.dumps({"masked_ids_from": known_tokens, "amax": observed.amax, "cases": cases}).replace('{"name"', '\n{"name"')
    (folder / "golden_fp8.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
