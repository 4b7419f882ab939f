"""DeepSeek-V3's layers: RMSNorm, interleaved RoPE, MLA, SwiGLU, the noaux_tc gate and the experts."""

import threading
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import NanoConfig
from fp8 import dequantize_blocks, quantize_blocks


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def _rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (2i, 2i+1); x is [batch, time, heads, rope], cos and sin are [time, 1, rope / 2]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class Fused:
    """Element-wise functions, optionally compiled: eager PyTorch makes a memory pass for every operation."""

    rms_norm = staticmethod(_rms_norm)
    rotate_pairs = staticmethod(_rotate_pairs)

    @staticmethod
    def prepare_thread() -> None:
        torch.set_num_threads(1)
        torch._dynamo.config.recompile_limit = 64  # one variant per width and stride pattern; a thread's own setting

    @classmethod
    def compile(cls) -> None:
        cls.rms_norm = staticmethod(torch.compile(_rms_norm, dynamic=True))
        cls.rotate_pairs = staticmethod(torch.compile(_rotate_pairs, dynamic=True))


class Norm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return Fused.rms_norm(x.reshape(-1, x.shape[-1]), self.weight, self.eps).view(x.shape)


class Matrix(nn.Module):
    """A weight [out, in], or a stack of them; `quantized` marks the ones that are FP8 on disk."""

    def __init__(self, *shape: int, quantized: bool = True, gain: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape) * gain * shape[-1] ** -0.5)
        self.quantized = quantized
        self._rounding: Tensor | None = None

    @torch.no_grad()
    def simulate_fp8(self) -> None:
        """From now on adds what rounding to FP8 would add at this moment; the gradient passes straight through."""
        if self.quantized:
            self._rounding = dequantize_blocks(*quantize_blocks(self.weight)) - self.weight.to(torch.bfloat16)

    def value(self, dtype: torch.dtype) -> Tensor:
        plain = self.weight.to(dtype)
        return plain if self._rounding is None else plain + self._rounding

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.value(x.dtype))


@dataclass
class LatentCache:
    """What one layer remembers of earlier tokens: normed latents and rotated shared keys."""

    latent: Tensor | None = None
    k_pe: Tensor | None = None

    def extend(self, latent: Tensor, k_pe: Tensor) -> tuple[Tensor, Tensor]:
        if self.latent is not None:
            latent, k_pe = torch.cat((self.latent, latent), 1), torch.cat((self.k_pe, k_pe), 1)
        self.latent, self.k_pe = latent, k_pe
        return latent, k_pe


class Attention(nn.Module):
    """Multi-head latent attention in its expanded form."""

    def __init__(self, c: NanoConfig) -> None:
        super().__init__()
        self.c, self.scale = c, c.attention_scale()
        heads = c.num_attention_heads
        self.q_a_proj = Matrix(c.q_lora_rank, c.hidden_size)
        self.q_a_layernorm = Norm(c.q_lora_rank, 1e-6)
        self.q_b_proj = Matrix(heads * c.qk_head_dim, c.q_lora_rank)
        self.kv_a_proj_with_mqa = Matrix(c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size)
        self.kv_a_layernorm = Norm(c.kv_lora_rank, 1e-6)
        self.kv_b_proj = Matrix(heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank)
        self.o_proj = Matrix(c.hidden_size, heads * c.v_head_dim, gain=0.0)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, cache: LatentCache | None = None) -> Tensor:
        c, heads = self.c, self.c.num_attention_heads
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).unflatten(-1, (heads, c.qk_head_dim))
        q_nope, q_pe = q.split((c.qk_nope_head_dim, c.qk_rope_head_dim), -1)
        latent, k_pe = self.kv_a_proj_with_mqa(x).split((c.kv_lora_rank, c.qk_rope_head_dim), -1)
        latent, k_pe = self.kv_a_layernorm(latent.contiguous()), Fused.rotate_pairs(k_pe.unsqueeze(2), *rope)
        if cache is not None:
            latent, k_pe = cache.extend(latent, k_pe)
        kv = self.kv_b_proj(latent).unflatten(-1, (heads, -1))
        k_nope, value = kv.split((c.qk_nope_head_dim, c.v_head_dim), -1)
        query = torch.cat((q_nope, Fused.rotate_pairs(q_pe, *rope)), -1).transpose(1, 2) * self.scale
        key = torch.cat((k_nope, k_pe.expand(-1, -1, heads, -1)), -1).transpose(1, 2)
        weights = torch.softmax(query @ key.transpose(-1, -2) + mask, -1)
        out = weights @ value.transpose(1, 2)
        return self.o_proj(out.transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = Matrix(width, hidden)
        self.up_proj = Matrix(width, hidden)
        self.down_proj = Matrix(hidden, width, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    """noaux_tc: sigmoid scores, a selection-only bias, the best groups by their two best experts."""

    def __init__(self, c: NanoConfig) -> None:
        super().__init__()
        self.c = c
        self.weight = nn.Parameter(torch.randn(c.n_routed_experts, c.hidden_size) * c.hidden_size**-0.5)
        self.register_buffer("e_score_correction_bias", torch.zeros(c.n_routed_experts))
        self.register_buffer("load", torch.zeros(c.n_routed_experts), persistent=False)
        self._load_lock = threading.Lock()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c = self.c
        scores = torch.sigmoid(F.linear(x.float(), self.weight))
        with torch.no_grad():
            biased = scores + self.e_score_correction_bias
            grouped = biased.unflatten(-1, (c.n_group, -1))
            group_score = grouped.topk(2, -1).values.sum(-1)
            kept = torch.zeros_like(group_score).scatter_(-1, group_score.topk(c.topk_group, -1).indices, 1.0)
            masked = grouped.masked_fill(kept.unsqueeze(-1) == 0, float("-inf")).flatten(-2)
            chosen = masked.topk(c.num_experts_per_tok, -1).indices
            if self.training:
                with self._load_lock:
                    self.load += torch.bincount(chosen.flatten(), minlength=c.n_routed_experts)
        weights = scores.gather(-1, chosen)
        return chosen, weights / (weights.sum(-1, keepdim=True) + 1e-20) * c.routed_scaling_factor

    @torch.no_grad()
    def rebalance(self, speed: float) -> None:
        """The auxiliary-loss-free rule: overloaded experts become less attractive, idle ones more."""
        self.e_score_correction_bias += speed * torch.sign(self.load.mean() - self.load)
        self.load.zero_()


class Permute(torch.autograd.Function):
    """Row gather by a permutation of (token, choice) pairs; the gradient is a gather too, not a slow scatter."""

    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor, inverse: Tensor, copies: int) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(inverse)
        ctx.copies = copies
        return x.index_select(0, order // copies)

    @staticmethod
    def backward(ctx, grad: Tensor):  # noqa: ANN001, ANN205
        (inverse,) = ctx.saved_tensors
        back = grad.index_select(0, inverse)
        if ctx.copies > 1:
            back = back.unflatten(0, (-1, ctx.copies)).sum(1)
        return back, None, None, None


class Moe(nn.Module):
    def __init__(self, c: NanoConfig) -> None:
        super().__init__()
        experts, hidden, width = c.n_routed_experts, c.hidden_size, c.moe_intermediate_size
        self.gate = Gate(c)
        self.gate_proj = Matrix(experts, width, hidden)
        self.up_proj = Matrix(experts, width, hidden)
        self.down_proj = Matrix(experts, hidden, width, gain=0.0)
        self.shared_experts = Mlp(hidden, width * c.n_shared_experts)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        chosen, weights = self.gate(flat)
        order = chosen.flatten().argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        counts = torch.bincount(chosen.flatten(), minlength=self.gate.c.n_routed_experts).tolist()
        copies = chosen.shape[1]
        rows = Permute.apply(flat, order, inverse, copies).split(counts)
        parts = [m.value(x.dtype).unbind(0) for m in (self.gate_proj, self.up_proj, self.down_proj)]
        outputs = [F.linear(F.silu(F.linear(r, g)) * F.linear(r, u), d) for r, g, u, d in zip(rows, *parts)]
        routed = Permute.apply(torch.cat(outputs), inverse, order, 1).unflatten(0, (-1, copies))
        mixed = torch.einsum("tkd,tk->td", routed, weights.to(x.dtype))
        return mixed.view_as(x) + self.shared_experts(x)


class DecoderLayer(nn.Module):
    def __init__(self, c: NanoConfig, dense: bool) -> None:
        super().__init__()
        self.input_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.mlp = Mlp(c.hidden_size, c.intermediate_size) if dense else Moe(c)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, cache: LatentCache | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))
