"""Writes a training checkpoint as an official DeepseekV3ForCausalLM folder with FP8 block weights."""

import argparse
import json
import os
import shutil
import struct
from pathlib import Path

import torch
from torch import Tensor

from checkpoint_names import official_dtype, official_tensors
from config import NanoConfig
from fp8 import quantize_blocks
from model import NanoModel

SHARDS = 2
DTYPE_NAMES = {torch.float8_e4m3fn: "F8_E4M3", torch.bfloat16: "BF16", torch.float32: "F32"}
TEMPLATE = Path(__file__).parent / "chat_template.jinja"


def collect(model: NanoModel) -> dict[str, Tensor]:
    """All tensors in their storage types, scales next to their weights."""
    tensors: dict[str, Tensor] = {}
    for name, value, quantized in official_tensors(model):
        if quantized:
            tensors[name], tensors[f"{name}_scale_inv"] = quantize_blocks(value)
        else:
            tensors[name] = value.to(official_dtype(name))
    return tensors


def byte_count(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def write_atomically(path: Path, data: bytes) -> None:
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_bytes(data)
    os.replace(scratch, path)


def shard_bytes(tensors: dict[str, Tensor]) -> bytes:
    """The safetensors container: header length, JSON header padded to 8 bytes, data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + byte_count(tensor)
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(t.contiguous().flatten().view(torch.uint8).numpy().tobytes() for t in tensors.values())
    return struct.pack("<Q", len(text)) + text + data


def split_shards(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Equal parts by bytes, in order."""
    total, seen = sum(map(byte_count, tensors.values())), 0
    shards: list[dict[str, Tensor]] = [{} for _ in range(SHARDS)]
    for name, tensor in tensors.items():
        shards[min(seen * SHARDS // total, SHARDS - 1)][name] = tensor
        seen += byte_count(tensor)
    return shards


def write_weights(tensors: dict[str, Tensor], folder: Path) -> None:
    weight_map = {}
    for number, shard in enumerate(split_shards(tensors), 1):
        file_name = f"model-{number:05d}-of-{SHARDS:06d}.safetensors"
        write_atomically(folder / file_name, shard_bytes(shard))
        weight_map |= dict.fromkeys(shard, file_name)
    index = {"metadata": {"total_size": sum(map(byte_count, tensors.values()))}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def write_json(path: Path, value: object) -> None:
    write_atomically(path, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def added_token(content: str) -> dict[str, object]:
    return {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": True, "rstrip": False,
            "single_word": False}


def write_text_files(config: NanoConfig, folder: Path) -> None:
    hf = config.to_hf()
    write_json(folder / "config.json", hf)
    write_json(folder / "generation_config.json", {
        "_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 0.6, "top_p": 0.95})
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "bos_token": added_token("<｜begin▁of▁sentence｜>"),
        "clean_up_tokenization_spaces": False, "eos_token": added_token("<｜end▁of▁sentence｜>"), "legacy": True,
        "model_max_length": hf["max_position_embeddings"], "pad_token": added_token("<｜end▁of▁sentence｜>"),
        "sp_model_kwargs": {}, "unk_token": None, "tokenizer_class": "LlamaTokenizerFast",
        "chat_template": TEMPLATE.read_text(encoding="utf-8")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="copied into the folder when it is not there already")
    parser.add_argument("--out", type=Path, default=Path("models/nano"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = NanoModel(NanoConfig())
    stored = torch.load(arguments.checkpoint, weights_only=True)
    model.load_state_dict(stored["model"])
    write_weights(collect(model), arguments.out)
    write_text_files(model.config, arguments.out)
    if arguments.tokenizer:
        shutil.copyfile(arguments.tokenizer, arguments.out / "tokenizer.json")
    print("exported", stored["progress"])


if __name__ == "__main__":
    main()
