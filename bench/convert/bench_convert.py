#!/usr/bin/env python3
"""`hadal convert` beside the ceilings of the machine and beside Python, all in one run.

    bench/convert/bench_convert.py --hadal build/release/bin/hadal [--dir /dev/shm] [--gb 4] [--json OUT]

Rates are bytes of weights a second, each the best of --repeats. Ceilings: `memcpy` (all threads, from `hadal bench
ceilings`) and `copy`, which reads and writes the same shards with the same number of threads in pieces of 1 MiB and
fsyncs them, without looking at them. Python: the peer's rule as float arithmetic (NumPy; PyTorch where it is installed),
one thread as the peer's script, and as the fastest NumPy form, a table look-up.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PIECE = 1 << 20
ROWS, COLS = 2048, 7168  # an expert's gate_proj of DeepSeek-R1


def normal_codes(count: int, seed: int) -> bytes:
    """Codes of normal weights whose largest in a block of 128x128 is 448: four deviations."""
    source = random.Random(seed)
    codes = bytearray()
    for _ in range(count):
        value = min(abs(source.gauss(0, 112)), 448)
        exponent = max(math.frexp(value)[1] - 1 if value else -6, -6)
        units = round(value / 2 ** (exponent - 3))
        code = units if exponent == -6 else ((exponent + 7) << 3) + units - 8
        codes.append(min(code, 0x7E) | (0x80 if source.random() < 0.5 else 0))
    return bytes(codes)


def write_checkpoint(folder: Path, num_bytes: int, shard_bytes: int) -> int:
    """Shards of expert-sized weights and their scales. Returns the bytes of the weights."""
    folder.mkdir()
    block = normal_codes(PIECE, 1)
    block = b"\x7e" + block[1:]
    codes = (block * (ROWS * COLS // PIECE + 1))[:ROWS * COLS]
    scales = struct.pack("<f", 2e-4) * (ROWS // 128 * COLS // 128)
    per_shard = max(1, shard_bytes // len(codes))
    count = max(1, num_bytes // len(codes))
    names = [f"model.layers.0.mlp.experts.{number}.up_proj.weight" for number in range(count)]
    weight_map, shards = {}, [names[at:at + per_shard] for at in range(0, count, per_shard)]
    for number, members in enumerate(shards, 1):
        header, position = {}, 0
        for name in members:
            for suffix, dtype, shape, size in (("", "F8_E4M3", [ROWS, COLS], len(codes)),
                                               ("_scale_inv", "F32", [ROWS // 128, COLS // 128], len(scales))):
                header[name + suffix] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
                position += size
        text = json.dumps(header).encode()
        file_name = f"model-{number:05}-of-{len(shards):06}.safetensors"
        with open(folder / file_name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _ in members:
                file.write(codes)
                file.write(scales)
        weight_map.update({name + suffix: file_name for name in members for suffix in ("", "_scale_inv")})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text("{}")
    return count * len(codes)


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def copy_folder(source: Path, target: Path, threads: int) -> None:
    target.mkdir()
    for path in shards_of(source):
        size = path.stat().st_size
        reader, writer = os.open(path, os.O_RDONLY), os.open(target / path.name, os.O_WRONLY | os.O_CREAT, 0o644)
        offsets, lock = iter(range(0, size, PIECE)), threading.Lock()

        def work() -> None:
            buffer = bytearray(PIECE)
            while True:
                with lock:
                    offset = next(offsets, None)
                if offset is None:
                    return
                got = os.preadv(reader, [buffer], offset)
                os.pwrite(writer, memoryview(buffer)[:got], offset)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        os.fsync(writer)
        os.close(reader)
        os.close(writer)


class NumpyRule:
    """The peer's arithmetic: FP32 value * 240 / 448, rounded to E4M3 the way PyTorch's CPU cast does it."""

    def __init__(self, np):
        self.np = np
        codes = np.arange(256, dtype=np.uint8)
        exponent, mantissa = (codes >> 3) & 15, (codes & 7).astype(np.float32)
        value = np.where(exponent == 0, mantissa * 2.0 ** -9, (8 + mantissa) * 2.0 ** (exponent.astype(np.float32) - 10))
        self.values = np.where(codes & 0x80, -value, value).astype(np.float32)
        self.table = self.cast(self.values * np.float32(240) / np.float32(448))
        self.table[[0x7F, 0xFF]] = 0x7F, 0xFF

    def cast(self, values):
        np = self.np
        bits = values.view(np.uint32)
        sign, magnitude = (bits >> 24) & 0x80, bits & 0x7FFFFFFF
        low = (magnitude.view(np.float32) + np.float32(16384)).view(np.uint32) - np.float32(16384).view(np.uint32)
        high = ((magnitude + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20) - (120 << 3)
        return (np.where(magnitude < np.float32(2 ** -6).view(np.uint32), low, high) | sign).astype(np.uint8)

    def by_arithmetic(self, codes):
        np = self.np
        return self.cast(self.values[codes] * np.float32(240) / np.float32(448))

    def by_table(self, codes):
        return self.table[codes]


def torch_rule(torch):
    def convert(codes):
        values = torch.from_numpy(codes).view(torch.float8_e4m3fn).float()
        return (values * 240.0 / 448.0).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    return convert


def python_convert(source: Path, target: Path, np, convert) -> None:
    """As the peer's script: a tensor at a time, whole files read and written."""
    target.mkdir()
    for path in shards_of(source):
        blob = np.fromfile(path, dtype=np.uint8)
        length = struct.unpack("<Q", blob[:8].tobytes())[0]
        header = json.loads(blob[8:8 + length].tobytes())
        with open(target / path.name, "wb") as file:
            file.write(blob[:8 + length].tobytes())
            for name, entry in header.items():
                begin, end = (8 + length + offset for offset in entry["data_offsets"])
                data = blob[begin:end]
                if entry["dtype"] == "F8_E4M3":
                    data = convert(data)
                else:
                    data = data.copy().view(np.float32) * np.float32(448) / np.float32(240)
                file.write(memoryview(data))


def best_rate(repeats: int, num_bytes: int, target: Path, run) -> float:
    best = 0.0
    for _ in range(repeats):
        shutil.rmtree(target, ignore_errors=True)
        started = time.monotonic()
        run()
        best = max(best, num_bytes / (time.monotonic() - started))
    shutil.rmtree(target, ignore_errors=True)
    return best


def memcpy_ceiling(hadal: Path, threads: int) -> float:
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run([hadal, "bench", "ceilings", "--threads", str(threads), "--json", out.name], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.load(open(out.name))["memcpy_bytes_per_s"]


def measure(options: argparse.Namespace, root: Path) -> list[dict]:
    source, target = root / "source", root / "target"
    num_bytes = write_checkpoint(source, int(options.gb * 1e9), options.shard_bytes)
    rows = [{"what": "ceiling: memcpy", "rate": memcpy_ceiling(options.hadal, options.threads)},
            {"what": "ceiling: copy", "rate": best_rate(options.repeats, num_bytes, target,
                                                        lambda: copy_folder(source, target, options.threads))}]
    for method in ("exact", "seed", "channel"):
        command = [options.hadal, "convert", "-i", source, "-o", target, "--method", method, "--threads",
                   str(options.threads)]
        rows.append({"what": f"hadal convert --method {method}", "rate": best_rate(
            options.repeats, num_bytes, target,
            lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))})
    rows += measure_python(options, source, target, num_bytes)
    return rows


def measure_python(options: argparse.Namespace, source: Path, target: Path, num_bytes: int) -> list[dict]:
    try:
        import numpy as np
    except ImportError:
        print("SKIP the comparison with Python: NumPy is not installed", file=sys.stderr)
        return []
    rule = NumpyRule(np)
    forms = {"NumPy: the rule": rule.by_arithmetic, "NumPy: table look-up": rule.by_table}
    try:
        import torch
        torch.set_num_threads(1)
        forms["PyTorch: the rule"] = torch_rule(torch)
    except ImportError:
        print("SKIP the comparison with PyTorch: not installed", file=sys.stderr)
    codes = np.arange(256, dtype=np.uint8)
    for name, form in forms.items():
        if bytes(form(codes)[:0x7F]) != bytes(rule.table[:0x7F]):
            raise SystemExit(f"{name} does not give the peer's byte map")
    return [{"what": name, "rate": best_rate(1, num_bytes, target, lambda: python_convert(source, target, np, form))}
            for name, form in forms.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hadal", type=Path, required=True)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where both folders lie; default: tmpfs")
    parser.add_argument("--gb", type=float, default=4.0)
    parser.add_argument("--shard-bytes", type=int, default=1 << 30)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        rows = measure(options, Path(scratch))
    rate = {row["what"]: row["rate"] for row in rows}
    ceiling = min(rate["ceiling: memcpy"], rate["ceiling: copy"])
    rule = rate.get("NumPy: the rule")
    print(f"{options.gb} GB of weights in {options.dir}, {options.threads} threads\n")
    print(f"{'':<32} {'GB/s':>8} {'of the lower ceiling':>22} {'to the NumPy rule':>18}")
    for row in rows:
        times = f"{row['rate'] / rule:.1f}x" if rule else ""
        print(f"{row['what']:<32} {row['rate'] / 1e9:>8.2f} {row['rate'] / ceiling:>21.0%}  {times:>18}")
    if options.json:
        options.json.write_text(json.dumps({"gb": options.gb, "dir": str(options.dir), "threads": options.threads,
                                            "load_average": os.getloadavg()[0], "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
