"""`hadal inspect` names every kind of damage to a folder; `hadal serve` refuses the same folders."""
import json
import os
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

from serving import REPOSITORY

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
NANO = REPOSITORY / "models/nano"
INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-000002.safetensors"
SECOND = "model-00002-of-000002.safetensors"


def edit_json(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, ensure_ascii=False))


def edit_header(path: Path, change) -> None:
    """Rewrites a shard's JSON header; the data stays as it is."""
    blob = path.read_bytes()
    length = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + length])
    text = change(header)
    text = (text if isinstance(text, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob[8 + length:])


def fp8_weight(header: dict) -> str:
    return next(name for name in header if name.endswith("q_a_proj.weight"))


def config(key, value):
    return lambda d: edit_json(d / "config.json", lambda c: c.__setitem__(key, value))


def nested_config(outer, key, value):
    return lambda d: edit_json(d / "config.json", lambda c: c[outer].__setitem__(key, value))


def header_of_first(change):
    return lambda d: edit_header(d / FIRST, change)


def in_header(change):
    """change(header, name of an FP8 weight)"""
    return header_of_first(lambda header: change(header, fp8_weight(header)))


def rename_tensor(header, name):
    header[name.replace("q_a_proj", "q_z_proj")] = header.pop(name)


def drop_scale(folder: Path) -> None:
    """Renames a scale to something that loaders skip, so that nothing else is wrong."""
    entries = json.loads((folder / INDEX).read_text())["weight_map"]
    scale = next(name for name in entries if name.endswith("q_a_proj.weight_scale_inv"))
    other = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_json(folder / INDEX, lambda index: index["weight_map"].__setitem__(other, index["weight_map"].pop(scale)))
    edit_header(folder / entries[scale], lambda header: header.__setitem__(other, header.pop(scale)))


def overlap(header, name):
    begin, end = header[name]["data_offsets"]
    other = next(key for key in header if key not in (name, "__metadata__")
                 and header[key]["data_offsets"][0] >= end)
    size = header[other]["data_offsets"][1] - header[other]["data_offsets"][0]
    header[other]["data_offsets"] = [begin, begin + size]


def append_duplicate_key(header):
    text = json.dumps(header)
    name = fp8_weight(header)
    return text[:-1] + ", " + json.dumps(name) + ": " + json.dumps(header[name]) + "}"


def symlink_loop(folder: Path) -> None:
    (folder / FIRST).unlink()
    (folder / FIRST).symlink_to(FIRST)


def directory_as_shard(folder: Path) -> None:
    (folder / FIRST).unlink()
    (folder / FIRST).mkdir()


def truncate(name: str, size: int):
    return lambda folder: os.truncate(folder / name, size)


def index_entry(change):
    return lambda folder: edit_json(folder / INDEX, lambda index: change(index["weight_map"]))


def set_first_entry(value: str):
    return index_entry(lambda entries: entries.__setitem__(next(iter(entries)), value))


def write(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def set_shape(shape):
    return in_header(lambda header, name: header[name].__setitem__("shape", shape))


def reverse_offsets(header, name):
    header[name]["data_offsets"].reverse()


def offsets_beyond_end(header, name):
    header[name]["data_offsets"][1] += 10**12


def huge_header_length(folder: Path) -> None:
    with open(folder / FIRST, "r+b") as shard:
        shard.write(struct.pack("<Q", 2**63 - 1))


# what it is -> (how it is made, what the report must say)
DAMAGE = {
    "no config": (remove("config.json"), ["config.json"]),
    "config is not JSON": (write("config.json", "{"), ["config.json", "JSON"]),
    "other architecture": (config("architectures", ["LlamaForCausalLM"]), ["LlamaForCausalLM", "DeepseekV3ForCausalLM"]),
    "unknown rope type": (nested_config("rope_scaling", "type", "longrope"), ["longrope", "yarn"]),
    "unknown rope key": (nested_config("rope_scaling", "beta_fsat", 32), ["beta_fsat"]),
    "unknown topk_method": (config("topk_method", "greedy"), ["topk_method", "greedy", "noaux_tc"]),
    "unknown scoring_func": (config("scoring_func", "softmax"), ["scoring_func", "softmax"]),
    "unknown quant_method": (nested_config("quantization_config", "quant_method", "awq"), ["quant_method", "awq"]),
    "wrong type": (config("hidden_size", "256"), ["hidden_size"]),
    "negative size": (config("kv_lora_rank", -64), ["kv_lora_rank", "-64"]),
    "absurd size": (config("vocab_size", 10**15), ["vocab_size"]),
    "groups do not divide experts": (config("n_group", 3), ["n_group", "3"]),
    "more experts than stored": (config("n_routed_experts", 16), ["experts.8"]),
    "attention bias": (config("attention_bias", True), ["attention_bias"]),
    "no index": (remove(INDEX), [INDEX]),
    "index is not JSON": (write(INDEX, "[1, 2"), [INDEX]),
    "index names a missing file": (set_first_entry("model-00009.safetensors"), ["model-00009.safetensors"]),
    "index leaves the folder": (set_first_entry("../../etc/passwd"), ["../../etc/passwd"]),
    "shard is missing": (remove(SECOND), [SECOND]),
    "shard is cut short": (truncate(FIRST, 4_000_000), [FIRST]),
    "shard is empty": (truncate(FIRST, 0), [FIRST]),
    "shard ends in its header": (truncate(FIRST, 100), [FIRST]),
    "shard is a link to itself": (symlink_loop, [FIRST]),
    "shard is a folder": (directory_as_shard, [FIRST]),
    "header of 2^63 bytes": (huge_header_length, [FIRST, "header"]),
    "header is not JSON": (header_of_first(lambda _: "not json at all"), [FIRST]),
    "header nested deeply": (header_of_first(lambda _: "[" * 100_000), [FIRST]),
    "repeated tensor": (header_of_first(append_duplicate_key), [FIRST, "twice"]),
    "unknown dtype": (in_header(lambda header, name: header[name].__setitem__("dtype", "F4_E9")), ["F4_E9"]),
    "offsets reversed": (in_header(reverse_offsets), [FIRST, "q_a_proj"]),
    "offsets beyond the end": (in_header(offsets_beyond_end), [FIRST, "q_a_proj"]),
    "offsets overlap": (in_header(overlap), [FIRST]),
    "shape does not fit the bytes": (set_shape([1, 1]), ["q_a_proj"]),
    "shape overflows": (set_shape([2**62, 2**62]), ["q_a_proj"]),
    "negative dimension": (set_shape([-128, -256]), ["q_a_proj"]),
    "renamed tensor": (in_header(rename_tensor), ["q_a_proj"]),
    "no scale": (drop_scale, ["q_a_proj.weight_scale_inv"]),
    "tokenizer is missing": (remove("tokenizer.json"), ["tokenizer.json"]),
    "tokenizer is not JSON": (write("tokenizer.json", '{"model": '), ["tokenizer.json"]),
    "tokenizer of another kind": (write("tokenizer.json", '{"model": {"type": "Unigram"}}'), ["tokenizer.json"]),
    "broken template": (lambda d: edit_json(d / "tokenizer_config.json",
                                            lambda c: c.__setitem__("chat_template", "{% if x %}")), ["template"]),
    "generation config of wrong type": (write("generation_config.json", '{"temperature": "hot"}'), ["temperature"]),
}


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(BINARY), *arguments], capture_output=True, text=True, timeout=60)


class Inspect(unittest.TestCase):
    def test_sound_folder(self):
        done = run("inspect", str(NANO), "--json")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertTrue(json.loads(done.stdout)["would_serve"])

    def test_every_damage_is_named(self):
        with tempfile.TemporaryDirectory() as scratch:
            for number, (what, (damage, fragments)) in enumerate(DAMAGE.items()):
                with self.subTest(what):
                    folder = Path(scratch) / str(number)
                    shutil.copytree(NANO, folder)
                    damage(folder)
                    done = run("inspect", str(folder), "--json")
                    self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                    messages = "\n".join(problem["message"] for problem in json.loads(done.stdout)["problems"])
                    for fragment in fragments:
                        self.assertIn(fragment, messages)
                    served = run("serve", "--model", str(folder), "--port", "0")
                    self.assertIn(served.returncode, (1, 2), served.stderr)
                    shutil.rmtree(folder)
        print(f"{len(DAMAGE)} kinds of damage named")

    def test_wrong_usage(self):
        self.assertEqual(run("inspect").returncode, 2)
        self.assertEqual(run("inspect", "/nonexistent/folder").returncode, 1)
        self.assertIn("inspect", run("inspct").stderr)


if __name__ == "__main__":
    unittest.main()
