"""Checks the model's arithmetic against golden logits of a tiny model whose weights are a formula of their names."""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

from checkpoint_names import official_tensors
from config import NanoConfig, YarnConfig
from model import NanoModel

TOLERANCE = 5e-5


def config_from(path: Path) -> NanoConfig:
    stored = json.loads(path.read_text())
    known = {field.name for field in dataclasses.fields(NanoConfig)}
    values = {key: value for key, value in stored.items() if key in known}
    return NanoConfig(**values | {"rope_scaling": YarnConfig(**stored["rope_scaling"])})


def formula_weight(name: str, shape: torch.Size) -> torch.Tensor:
    """SplitMix64 of the flat index, seeded with FNV-1a of the tensor's name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    z = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    t = 2.0 * (z >> np.uint64(40)).astype(np.float64) / 2**24 - 1
    if name.endswith("e_score_correction_bias"):
        return torch.from_numpy(0.2 * t).float()
    if name == "model.embed_tokens.weight":
        t *= math.sqrt(3)
    elif len(shape) == 2:
        t *= math.sqrt(3 / shape[1])
    else:
        t = 1 + 0.2 * t
    return torch.from_numpy(t).float().to(torch.bfloat16).float().view(shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("golden", type=Path)
    arguments = parser.parse_args()
    model = NanoModel(config_from(arguments.config)).eval()
    golden = next(m for m in json.loads(arguments.golden.read_text())["models"] if m["name"] == "tiny_v3")
    tokens = torch.tensor([golden["all_ids"]])
    with torch.no_grad():
        for name, target, _ in official_tensors(model):
            target.copy_(formula_weight(name, target.shape).view(target.shape))
        hidden = model.hidden_states(tokens, torch.float32)
        differences = {
            "main": model.lm_head(hidden)[0] - torch.tensor(golden["logits"]),
            "mtp": model.lm_head(model.mtp_hidden_states(hidden, tokens))[0] - torch.tensor(golden["mtp_logits_from_postnorm_hidden"])}
    worst = {name: difference.abs().max().item() for name, difference in differences.items()}
    print(worst)
    sys.exit(max(worst.values()) > TOLERANCE)


if __name__ == "__main__":
    main()
