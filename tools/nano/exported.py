"""Loads an exported folder back into the PyTorch model, and decodes greedily with it."""

import json
from collections import defaultdict
from pathlib import Path

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor

from checkpoint_names import official_tensors
from config import NanoConfig
from fp8 import dequantize_blocks
from layers import LatentCache
from model import NanoModel

EOS_ID = 1


def load_exported(folder: Path, dtype: torch.dtype = torch.bfloat16) -> tuple[NanoModel, Tokenizer]:
    """The exported weights, FP8 de-quantised to `dtype`, held in float32."""
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    files = {name: safe_open(folder / name, "pt") for name in set(weight_map.values())}

    def read(name: str) -> Tensor:
        return files[weight_map[name]].get_tensor(name)

    config = NanoConfig()
    assert json.loads((folder / "config.json").read_text()) == json.loads(json.dumps(config.to_hf())), "another configuration"
    model = NanoModel(config).eval()
    unread = set(weight_map)
    for name, target, quantized in official_tensors(model):
        value = dequantize_blocks(read(name), read(f"{name}_scale_inv"), dtype) if quantized else read(name)
        target.copy_(value.float())
        unread -= {name, f"{name}_scale_inv"} if quantized else {name}
    assert not unread, f"tensors nobody asked for: {sorted(unread)[:3]}"
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


@torch.no_grad()
def next_logits(model: NanoModel, rows: list[list[int]], dtype: torch.dtype, known_tokens: int) -> Tensor:
    """Logits after each row; ids the tokenizer does not know are masked."""
    width = max(map(len, rows))
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    hidden = model.hidden_states(tokens, dtype)
    last = hidden[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
    logits = model.lm_head(last).float()
    logits[:, known_tokens:] = float("-inf")
    return logits


@torch.no_grad()
def _greedy_lockstep(model: NanoModel, rows: list[list[int]], limit: int, dtype: torch.dtype, known_tokens: int) -> list[list[int]]:
    """Continuations of prompts of equal length, with a latent cache."""
    caches = [LatentCache() for _ in model.layers]
    fresh, start, chosen = torch.tensor(rows), 0, []
    ended = torch.zeros(len(rows), dtype=torch.bool)
    for _ in range(limit):
        hidden = model.hidden_states(fresh, dtype, caches, start)
        best = model.lm_head(hidden[:, -1])[:, :known_tokens].float().argmax(-1)
        chosen.append(best)
        ended |= best == EOS_ID
        if ended.all():
            break
        start, fresh = start + fresh.shape[1], best.unsqueeze(1)
    columns = torch.stack(chosen, 1).tolist()
    return [ids[: ids.index(EOS_ID)] if EOS_ID in ids else ids for ids in columns]


def greedy(model: NanoModel, tokenizer: Tokenizer, prompts: list[str], limit: int, dtype: torch.dtype = torch.bfloat16) -> list[str]:
    """Completions as text, control tokens included, without the end token."""
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        by_length[len(ids)].append((i, ids))
    texts = [""] * len(prompts)
    for group in by_length.values():
        found = _greedy_lockstep(model, [ids for _, ids in group], limit, dtype, tokenizer.get_vocab_size())
        for (i, _), ids in zip(group, found):
            texts[i] = tokenizer.decode(ids, skip_special_tokens=False)
    return texts
