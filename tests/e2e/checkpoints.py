"""Small made-up block-FP8 checkpoints, and the arithmetic of `hadal convert` written down a second time."""
from __future__ import annotations

import bisect
import json
import random
import struct
from fractions import Fraction
from pathlib import Path

BLOCK = 128
INDEX = "model.safetensors.index.json"

# A tensor: (dtype, shape, bytes).
Tensor = tuple[str, list[int], bytes]


def write_shard(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    header, position = {} if metadata is None else {"__metadata__": metadata}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def read_shard(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    blob = path.read_bytes()
    length = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], blob[8 + length + begin:8 + length + end])
    return tensors, metadata


def read_folder(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(read_shard(path)[0])
    return tensors


def write_folder(folder: Path, shards: list[dict[str, Tensor]], config: dict | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weight_map, total = {}, 0
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):06}.safetensors"
        write_shard(folder / name, tensors, {"format": "pt"})
        weight_map.update({tensor: name for tensor in tensors})
        total += sum(len(data) for _, _, data in tensors.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2))
    (folder / "config.json").write_text(json.dumps(config or CONFIG, indent=2) + "\n")


CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "num_hidden_layers": 4,
    "rms_norm_eps": 1e-06,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                            "weight_block_size": [BLOCK, BLOCK]},
}

WITHOUT_NAN = bytes.maketrans(b"\x7f\xff", b"\x7e\xfe")


def codes(source: random.Random, rows: int, cols: int, nan: bool = False) -> bytes:
    """Every code with the same probability: far more low ones than a trained weight has."""
    data = source.randbytes(rows * cols)
    return data if nan else data.translate(WITHOUT_NAN)


def scales(source: random.Random, rows: int, cols: int) -> bytes:
    count = -(-rows // BLOCK) * -(-cols // BLOCK)
    return struct.pack(f"<{count}f", *(source.uniform(1e-5, 3e-4) for _ in range(count)))


def weight(source: random.Random, rows: int, cols: int, nan: bool = False) -> tuple[Tensor, Tensor]:
    shape = [-(-rows // BLOCK), -(-cols // BLOCK)]
    return ("F8_E4M3", [rows, cols], codes(source, rows, cols, nan)), ("F32", shape, scales(source, rows, cols))


def bf16(source: random.Random, *shape: int) -> Tensor:
    count = 1
    for dim in shape:
        count *= dim
    values = struct.pack(f"<{count}f", *(source.gauss(0, 0.05) for _ in range(count)))
    return "BF16", list(shape), b"".join(values[at + 2:at + 4] for at in range(0, len(values), 4))


def sample_shards(num_shards: int = 3, rows: int = 200, cols: int = 384, seed: int = 1) -> list[dict[str, Tensor]]:
    """One layer a shard; ragged blocks, NaN codes in one weight, and a weight whose scale lies in the next shard."""
    source = random.Random(seed)
    shards: list[dict[str, Tensor]] = []
    for layer in range(num_shards):
        prefix, shard = f"model.layers.{layer}.", {}
        for name in ("self_attn.q_a_proj", "self_attn.o_proj", "mlp.up_proj"):
            codes_tensor, scale = weight(source, rows, cols, nan=layer == 1 and name == "mlp.up_proj")
            shard[f"{prefix}{name}.weight"] = codes_tensor
            shard[f"{prefix}{name}.weight_scale_inv"] = scale
        shard[f"{prefix}input_layernorm.weight"] = bf16(source, 64)
        shards.append(shard)
    split = "model.layers.0.mlp.up_proj.weight_scale_inv"
    if num_shards > 1:
        shards[1][split] = shards[0].pop(split)
    shards[0]["model.embed_tokens.weight"] = bf16(source, 40, 64)
    shards[-1][f"model.layers.{num_shards - 1}.eh_proj.weight"] = bf16(source, 48, 64)
    return shards


# --- E4M3 in exact arithmetic, from the table of the format ---

def magnitude_value(code: int) -> Fraction:
    exponent, mantissa = code >> 3, code & 7
    return Fraction(mantissa, 512) if exponent == 0 else Fraction(8 + mantissa) * Fraction(2) ** (exponent - 10)


MAGNITUDES = [magnitude_value(code) for code in range(0x7F)]


def nearest_code(value: Fraction, last: int = 0x7E) -> int:
    """Of a magnitude; ties to the even code. Above the largest code: that one."""
    above = min(bisect.bisect_left(MAGNITUDES, value), last)
    return min((max(above - 1, 0), above), key=lambda code: (abs(MAGNITUDES[code] - value), code & 1))


def code_table(factor: Fraction) -> bytes:
    """What each of the 256 codes becomes when its value is multiplied."""
    half = [nearest_code(MAGNITUDES[code] * factor) for code in range(0x7F)] + [0x7F]
    return bytes(half + [code | 0x80 for code in half])


SEED_TABLE = code_table(Fraction(240, 448))
EXACT_TABLE = code_table(Fraction(1, 2))


def f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def map_floats(data: bytes, change) -> bytes:
    count = len(data) // 4
    return struct.pack(f"<{count}f", *(change(value) for value in struct.unpack(f"<{count}f", data)))


def seed_scales(data: bytes) -> bytes:
    """Two FP32 operations: products and quotients of FP32 numbers round the same way through a double."""
    return map_floats(data, lambda scale: f32(f32(scale * 448.0) / 240.0))
