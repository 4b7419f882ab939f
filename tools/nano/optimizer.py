"""Muon for the matrices, AdamW for embeddings, head, norms and gates."""

from collections import defaultdict
from concurrent.futures import Executor

import torch
from torch import Tensor, nn

from model import NanoModel


STACKS = 4


@torch.no_grad()
def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest orthogonal matrices of a stack [n, rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315  # Jordan's quintic coefficients: fast, and exact enough for an update
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(torch.bfloat16)
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).to(torch.bfloat16)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalised; parameters of one shape go through the iteration as stacks, one per worker."""

    def __init__(self, params: list[nn.Parameter], pool: Executor, lr: float, momentum: float = 0.95,
                 weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._pool = pool

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape[-2:]].append(parameter)
            for shape, parameters in by_shape.items():
                self._step_stack(group, shape, parameters)

    def _step_stack(self, group: dict, shape: torch.Size, parameters: list[nn.Parameter]) -> None:
        directions = []
        for parameter in parameters:
            buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            buffer.lerp_(parameter.grad, 1 - group["momentum"])
            directions.append(parameter.grad.lerp(buffer, group["momentum"]).reshape(-1, *shape))  # Nesterov
        stacks = torch.cat(directions).chunk(STACKS)
        updates = torch.cat(list(self._pool.map(orthogonalize, stacks))).float()
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        for parameter, update in zip(parameters, updates.split([len(d) for d in directions])):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)


def build_optimizers(model: NanoModel, pool: Executor, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Every group remembers its peak rate as `peak_lr`; the schedule scales that."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        is_table = name in ("embed_tokens", "lm_head.weight") or name.endswith("gate.weight")
        (others if is_table or parameter.ndim < 2 else matrices).append(parameter)
    optimizers = [Muon(matrices, pool, muon_lr),
                  torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, foreach=True)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers
