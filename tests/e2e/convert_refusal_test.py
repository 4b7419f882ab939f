"""`hadal convert` names every kind of damage and writes nothing; wrong options and folders of others."""
import fcntl
import json
import os
import shutil
import struct
import unittest
from pathlib import Path

import checkpoints as ck
from converting import Case, convert, run, tree


def change(folder: Path, shard: int, edit) -> None:
    """edit(tensors) of one shard; the index follows."""
    path = sorted(folder.glob("*.safetensors"))[shard]
    tensors, metadata = ck.read_shard(path)
    edit(tensors)
    ck.write_shard(path, tensors, metadata)
    index = json.loads((folder / ck.INDEX).read_text())
    weight_map = {name: file for name, file in index["weight_map"].items() if file != path.name}
    index["weight_map"] = {**weight_map, **{name: path.name for name in tensors}}
    (folder / ck.INDEX).write_text(json.dumps(index))


Q_A = "model.layers.0.self_attn.q_a_proj.weight"


def set_scale(value):
    def edit(tensors):
        dtype, shape, data = tensors[Q_A + "_scale_inv"]
        tensors[Q_A + "_scale_inv"] = (dtype, shape, data[:8] + struct.pack("<f", value) + data[12:])
    return edit


def rename(old, new):
    return lambda tensors: tensors.__setitem__(new, tensors.pop(old))


def retype(name, dtype, shape, width):
    def edit(tensors):
        count = 1
        for dim in shape:
            count *= dim
        tensors[name] = (dtype, shape, bytes(count * width))
    return edit


def set_config(edit):
    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        edit(config)
        (folder / "config.json").write_text(json.dumps(config))
    return damage


def in_shard(edit):
    return lambda folder: change(folder, 0, edit)


# what -> (damage, fragments of the message, exit code)
DAMAGE = {
    "scale is NaN": (in_shard(set_scale(float("nan"))), [Q_A + "_scale_inv", "value 2", "not a finite"], 1),
    "scale is infinite": (in_shard(set_scale(float("inf"))), [Q_A + "_scale_inv", "not a finite"], 1),
    "scale is negative": (in_shard(set_scale(-1e-4)), [Q_A + "_scale_inv", "negative"], 1),
    "scale would overflow": (in_shard(set_scale(3e38)), [Q_A + "_scale_inv", "too large"], 1),
    "weight without scale": (in_shard(lambda tensors: tensors.pop(Q_A + "_scale_inv")), [Q_A, "has no scale"], 1),
    "scale without weight": (in_shard(lambda tensors: tensors.pop(Q_A)), [Q_A + "_scale_inv", "no F8_E4M3 weight"], 1),
    "another scale name": (in_shard(rename(Q_A + "_scale_inv", Q_A + "_scale")),
                           ["has no scale", "there is", Q_A + '_scale"', "more problem"], 1),
    "input scales": (in_shard(retype("model.layers.0.mlp.up_proj.input_scale", "F32", [1], 4)), ["input_scale"], 1),
    "zero points": (in_shard(retype("model.layers.0.mlp.up_proj.qzeros", "I32", [4], 4)), ["qzeros"], 1),
    "scale is BF16": (in_shard(retype(Q_A + "_scale_inv", "BF16", [2, 3], 2)),
                      [Q_A + "_scale_inv", "BF16", "expected F32"], 1),
    "scale of another shape": (in_shard(retype(Q_A + "_scale_inv", "F32", [3, 2], 4)), ["[3, 2]", "[2, 3]"], 1),
    "one scale a row": (in_shard(retype(Q_A + "_scale_inv", "F32", [200], 4)), ["per-channel"], 1),
    "weight is a vector": (in_shard(retype(Q_A, "F8_E4M3", [384], 1)), [Q_A, "expected a matrix"], 1),
    "weight is E5M2": (in_shard(retype(Q_A, "F8_E5M2", [200, 384], 1)), [Q_A, "F8_E5M2"], 1),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["config.json"], 1),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"),
                         ["config.json", "expected an object"], 1),
    "config is cut": (lambda folder: (folder / "config.json").write_text('{"a": '), ["config.json"], 1),
    "other blocks": (set_config(lambda c: c["quantization_config"].update(weight_block_size=[1, 128])),
                     ["weight_block_size", "[128,128]"], 1),
    "other method": (set_config(lambda c: c["quantization_config"].update(quant_method="gptq")), ["gptq"], 1),
    "unknown marker": (set_config(lambda c: c.update(hadal_convert={"version": 99})), ["hadal_convert", "version"], 1),
    "no index": (lambda folder: (folder / ck.INDEX).unlink(), [ck.INDEX], 1),
    "shard is missing": (lambda folder: sorted(folder.glob("*.safetensors"))[1].unlink(), ["model-00002"], 1),
    "shard is cut": (lambda folder: os.truncate(sorted(folder.glob("*.safetensors"))[1], 90_000), ["truncated"], 1),
}


class Refusals(Case):
    def test_every_damage_is_named_and_nothing_is_written(self):
        self.write_sample()
        for number, (what, (damage, fragments, code)) in enumerate(DAMAGE.items()):
            with self.subTest(what):
                folder, made = self.root / str(number), self.root / f"{number}-made"
                shutil.copytree(self.source, folder)
                damage(folder)
                self.refuse(code, fragments, folder, made)
                self.assertFalse(made.exists())
                shutil.rmtree(folder)
        print(f"{len(DAMAGE)} kinds of damage named")

    def test_zero_scales_are_harmless(self):
        self.write_sample()
        change(self.source, 0, set_scale(0.0))
        done = self.succeed(self.source, self.root / "made", "--verify", "--json")
        self.assertEqual(json.loads(done.stdout)["zero_scales"], 1)

    def test_wrong_usage(self):
        self.write_sample()
        made = self.root / "made"
        for arguments, fragment in ((["--target", "gaudi3"], "nothing to convert"),
                                    (["--method", "sed"], "did you mean seed"),
                                    (["--target", "gaudi4"], "gaudi"), (["--bug-compatible"], "--method seed"),
                                    (["--input-scales", "x"], "--method channel"),
                                    (["--method", "seed", "--reverse"], "exact")):
            self.refuse(2, [fragment], self.source, made, *arguments)
        self.refuse(2, ["lies inside"], self.source, self.source)
        self.refuse(2, ["lies inside"], f"{self.source}/", self.source / "made")
        self.refuse(2, ["lies inside"], self.source, self.root)
        self.assertEqual(run("convert", "-i", self.source).returncode, 2)
        self.refuse(1, ["does not exist"], self.root / "absent", made)
        self.assertFalse(made.exists())

    def test_input_scales_files(self):
        self.write_sample()
        path = self.root / "scales.json"
        for content, fragment in ((b"\x1f\x8b\x08", "gzip"), (b"\x80\x04\x95", "pickle.load"),
                                  (b"[1]", "expected an object"),
                                  (b'{"a": 0}', "above 0"), (b'{"a": "1"}', "above 0"), (b'{"a": 1e999}', ""),
                                  (b'{"a": 1, "a.input_scale": 2}', "twice"), (b'{"a": 1}', "has no scale")):
            path.write_bytes(content)
            done = convert(self.source, self.root / "made", "--method", "channel", "--input-scales", path)
            self.assertIn(done.returncode, (1, 2))
            self.assertIn(fragment, done.stderr)

    def test_folders_of_others_are_left_alone(self):
        self.write_sample()
        made = self.root / "made"
        made.mkdir()
        (made / "thesis.txt").write_text("mine")
        self.refuse(2, ["not empty"], self.source, made)
        self.assertEqual(tree(made), {"thesis.txt": b"mine"})

    def test_another_conversion_in_the_folder(self):
        self.write_sample()
        made = self.root / "made"
        self.succeed(self.source, made)
        self.refuse(2, ["was begun as", "another output folder"], self.source, made, "--method", "seed")
        os.utime(self.source / "model-00001-of-000003.safetensors", (1, 1))
        self.refuse(2, ["changed since"], self.source, made)

    def test_two_at_once(self):
        self.write_sample()
        made = self.root / "made"
        made.mkdir()
        holder = os.open(made, os.O_RDONLY)
        fcntl.flock(holder, fcntl.LOCK_EX)
        self.refuse(1, ["another hadal convert"], self.source, made)
        os.close(holder)
        self.succeed(self.source, made)


if __name__ == "__main__":
    unittest.main()
