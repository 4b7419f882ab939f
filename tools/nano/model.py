"""The whole model: embedding, decoder layers, head, and one multi-token-prediction layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import NanoConfig
from layers import DecoderLayer, Gate, LatentCache, Matrix, Norm


class MtpLayer(nn.Module):
    """Predicts the token after next from the normed hidden state and the embedding of the next token."""

    def __init__(self, c: NanoConfig) -> None:
        super().__init__()
        self.enorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.hnorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.eh_proj = Matrix(c.hidden_size, 2 * c.hidden_size, quantized=False)
        self.layer = DecoderLayer(c, dense=False)
        self.shared_head_norm = Norm(c.hidden_size, c.rms_norm_eps)

    def forward(self, hidden: Tensor, next_embedding: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        joined = torch.cat((self.enorm(next_embedding), self.hnorm(hidden)), -1)  # the embedding half comes first
        return self.shared_head_norm(self.layer(self.eh_proj(joined), rope, mask))


class NanoModel(nn.Module):
    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embed_tokens = nn.Parameter(torch.randn(c.vocab_size, c.hidden_size) * 0.3)
        self.layers = nn.ModuleList(
            DecoderLayer(c, dense=i < c.first_k_dense_replace) for i in range(c.num_hidden_layers))
        self.norm = Norm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = Matrix(c.vocab_size, c.hidden_size, quantized=False, gain=0.1)
        self.mtp = MtpLayer(c)
        self.register_buffer("frequencies", torch.tensor(c.rope_frequencies()), persistent=False)

    def positions(self, length: int, dtype: torch.dtype, start: int = 0) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """RoPE tables and the causal mask of `length` tokens that follow `start` earlier ones."""
        angles = torch.outer(torch.arange(start, start + length, dtype=torch.float32), self.frequencies).unsqueeze(1)
        mask = torch.full((length, start + length), float("-inf")).triu(1 + start).to(dtype)
        return (angles.cos(), angles.sin()), mask

    def hidden_states(self, tokens: Tensor, dtype: torch.dtype = torch.bfloat16,
                      caches: list[LatentCache] | None = None, start: int = 0) -> Tensor:
        """The normed output of the last layer, [batch, time, hidden]."""
        rope, mask = self.positions(tokens.shape[1], dtype, start)
        x = F.embedding(tokens, self.embed_tokens).to(dtype)
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers)):
            x = layer(x, rope, mask, cache)
        return self.norm(x)

    def mtp_hidden_states(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """For hidden states of positions 0..n-2 and the tokens 0..n-1: states that predict the token after next."""
        rope, mask = self.positions(tokens.shape[1] - 1, hidden.dtype)
        embedding = F.embedding(tokens[:, 1:], self.embed_tokens).to(hidden.dtype)
        return self.mtp(hidden[:, :-1], embedding, rope, mask)

    def token_loss(self, hidden: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean cross-entropy; the head runs only where the weight is not zero."""
        wanted = weight > 0
        each = F.cross_entropy(self.lm_head(hidden[wanted]).float(), targets[wanted], reduction="none")
        return (each * weight[wanted]).sum() / weight[wanted].sum()

    def gates(self) -> list[Gate]:
        return [module for module in self.modules() if isinstance(module, Gate)]

    def simulate_fp8(self) -> None:
        """Uses the weights as an export at this moment would round them."""
        for module in self.modules():
            if isinstance(module, Matrix):
                module.simulate_fp8()
