"""Maps the training model's parameters to the official tensor names, and back."""

from collections.abc import Iterator

import torch
from torch import Tensor

from config import NanoConfig
from model import NanoModel

EXPERT_STACKS = ("mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")
TOP_LEVEL = {"embed_tokens": "model.embed_tokens.weight", "norm.weight": "model.norm.weight", "lm_head.weight": "lm_head.weight"}
MTP_EXTRAS = {"enorm.weight": "enorm.weight", "hnorm.weight": "hnorm.weight", "eh_proj.weight": "eh_proj.weight",
              "shared_head_norm.weight": "shared_head.norm.weight"}


def official_tensors(model: NanoModel) -> Iterator[tuple[str, Tensor, bool]]:
    """(official name, value, is quantised) for every tensor; views share memory with the model."""
    for name, value in model.state_dict().items():
        if name in TOP_LEVEL:
            yield TOP_LEVEL[name], value, False
        elif name.startswith("mtp."):
            yield from _mtp_tensors(model.config, name.removeprefix("mtp."), value)
        else:
            index, rest = name.removeprefix("layers.").split(".", 1)
            yield from _layer_tensors(int(index), rest, value)


def _mtp_tensors(config: NanoConfig, name: str, value: Tensor) -> Iterator[tuple[str, Tensor, bool]]:
    layer = config.num_hidden_layers
    if name in MTP_EXTRAS:
        yield f"model.layers.{layer}.{MTP_EXTRAS[name]}", value, False
    else:
        yield from _layer_tensors(layer, name.removeprefix("layer."), value)


def _layer_tensors(layer: int, name: str, value: Tensor) -> Iterator[tuple[str, Tensor, bool]]:
    if name in EXPERT_STACKS and value.ndim == 3:
        for expert, matrix in enumerate(value):
            yield f"model.layers.{layer}.{name.replace('mlp.', f'mlp.experts.{expert}.')}", matrix, True
    else:
        is_gate = name.startswith("mlp.gate.")
        yield f"model.layers.{layer}.{name}", value, value.ndim == 2 and not is_gate


def official_dtype(name: str) -> torch.dtype:
    return torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
