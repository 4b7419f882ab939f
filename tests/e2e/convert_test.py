"""`hadal convert`: results against the formulas, and what --verify and --reverse prove."""
import json
import random
import shutil
import struct
import unittest
import zlib
from fractions import Fraction
from pathlib import Path

import checkpoints as ck
from converting import JOURNAL, NANO, SIDECARS, Case, flip, run, tree


class Results(Case):
    def check_tensors(self, made: Path, expected: dict[str, ck.Tensor]) -> None:
        found = ck.read_folder(made)
        self.assertEqual(sorted(found), sorted(expected))
        for name, tensor in expected.items():
            self.assertEqual(found[name][:2], tensor[:2], name)
            self.assertTrue(found[name][2] == tensor[2], name)

    def expected(self, table: bytes, scale) -> dict[str, ck.Tensor]:
        tensors = ck.read_folder(self.source)
        for name, (dtype, shape, data) in tensors.items():
            if dtype == "F8_E4M3":
                tensors[name] = (dtype, shape, data.translate(table))
            elif name.endswith("_scale_inv"):
                tensors[name] = (dtype, shape, scale(data))
        return tensors

    def test_seed_is_the_peers_formula(self):
        self.assertEqual(zlib.crc32(ck.SEED_TABLE), 0x38800FBF)
        self.write_sample()
        made = self.root / "made"
        self.succeed(self.source, made, "--method", "seed", "--verify")
        self.check_tensors(made, self.expected(ck.SEED_TABLE, ck.seed_scales))
        self.assertEqual((made / ck.INDEX).read_bytes(), (self.source / ck.INDEX).read_bytes())

    def test_exact_and_back(self):
        self.write_sample()
        made, back = self.root / "made", self.root / "back"
        done = self.succeed(self.source, made, "--verify", "--json")
        self.check_tensors(made, self.expected(ck.EXACT_TABLE, lambda data: ck.map_floats(data, lambda s: 2 * s)))
        summary = json.loads(done.stdout)
        codes = b"".join(data for dtype, _, data in ck.read_folder(self.source).values() if dtype == "F8_E4M3")
        self.assertEqual(summary["codes"]["codes"], len(codes))
        self.assertEqual(summary["codes"]["inexact"], sum(code & 0x7F < 16 and code & 1 for code in codes))
        self.assertEqual(summary["codes"]["nan"], codes.count(0x7F) + codes.count(0xFF))
        self.assertEqual(summary["codes"]["max_relative_error"], 1)  # 0x01 becomes 0
        self.succeed(made, back, "--reverse", "--verify")
        restored = tree(back)
        self.assertIsNotNone(restored.pop(JOURNAL, None))
        self.assertTrue(restored == tree(self.source))

    def test_channel_is_the_peers_formula(self):
        source, rows, cols = random.Random(5), 140, 256
        weight, scale = ck.weight(source, rows, cols)
        weight = (weight[0], weight[1], bytes(cols) + weight[2][cols:])  # a row of zeros
        shards = [{"model.layers.0.mlp.up_proj.weight": weight, "model.norm.weight": ck.bf16(source, 8)},
                  {"model.layers.0.mlp.up_proj.weight_scale_inv": scale,
                   "model.layers.4.mlp.up_proj.weight": weight, "model.layers.4.mlp.up_proj.weight_scale_inv": scale}]
        ck.write_folder(self.source, shards)
        inputs = self.root / "inputs.json"
        inputs.write_text(json.dumps({"model.layers.0.mlp.up_proj.input_scale_inv": 0.37, "model.layers.9.x": 1}))
        for target, full, last in (("gaudi2", 240.0, 0x77), ("gaudi3", 448.0, 0x7E)):
            made = self.root / target
            self.succeed(self.source, made, "--method", "channel", "--target", target, "--input-scales", inputs,
                         "--verify")
            found = ck.read_folder(made)
            self.assertEqual(sorted(found), ["model.layers.0.mlp.up_proj." + last_part for last_part in
                                             ("input_scale", "weight", "weight_scale_inv")] + ["model.norm.weight"])
            codes, row_scales = self.by_rows(weight[2], scale[2], rows, cols, full, last)
            self.assertTrue(found["model.layers.0.mlp.up_proj.weight"][2] == codes)
            self.assertEqual(found["model.layers.0.mlp.up_proj.weight_scale_inv"], ("F32", [rows], row_scales))
            factor = ck.f32(448 / full)
            self.assertEqual(found["model.layers.0.mlp.up_proj.input_scale"],
                             ("F32", [1], struct.pack("<f", ck.f32(ck.f32(0.37) * factor))))
            config = json.loads((made / "config.json").read_text())
            self.assertEqual(config["quantization_config"],
                             {"activation_scheme": "static", "fmt": "e4m3", "quant_method": "fp8"})
            index = json.loads((made / ck.INDEX).read_text())
            self.assertEqual(sorted(index["weight_map"]), sorted(found))

    @staticmethod
    def by_rows(codes: bytes, scales: bytes, rows: int, cols: int, full: float, last: int) -> tuple[bytes, bytes]:
        block_scales, per_row = struct.unpack(f"<{len(scales) // 4}f", scales), -(-cols // ck.BLOCK)
        out, row_scales = bytearray(), []
        for row in range(rows):
            values = []
            for col in range(cols):
                code = codes[row * cols + col]
                value = float(ck.MAGNITUDES[code & 0x7F]) * block_scales[row // ck.BLOCK * per_row + col // ck.BLOCK]
                values.append(ck.f32(-value if code & 0x80 else value))
            scale = ck.f32(max(map(abs, values)) / full) or 1.0
            row_scales.append(scale)
            for value, code in zip(values, codes[row * cols:(row + 1) * cols]):
                out.append(ck.nearest_code(Fraction(ck.f32(abs(value) / scale)), last) | code & 0x80)
        return bytes(out), struct.pack(f"<{rows}f", *row_scales)

    def test_bug_compatible_damages_what_the_peer_damages(self):
        self.write_sample()
        plain, bug = self.root / "plain", self.root / "bug"
        self.succeed(self.source, plain, "--method", "seed")
        self.succeed(self.source, bug, "--method", "seed", "--bug-compatible", "--verify")
        name = "model.layers.2.eh_proj.weight"
        original, kept, damaged = (ck.read_folder(folder)[name] for folder in (self.source, plain, bug))
        self.assertEqual(kept, original)
        self.assertEqual(damaged[:2], ("F8_E4M3", original[1]))
        for at, code in enumerate(damaged[2]):
            value = struct.unpack("<f", b"\0\0" + original[2][2 * at:2 * at + 2])[0]
            scaled = ck.f32(ck.f32(value * 240.0) / 448.0)
            self.assertEqual(code, ck.nearest_code(abs(Fraction(scaled))) | (0x80 if value < 0 else 0), value)
        index = json.loads((bug / ck.INDEX).read_text())
        self.assertEqual(index["metadata"]["total_size"], sum(len(data) for _, _, data in ck.read_folder(bug).values()))

    def test_what_a_folder_keeps(self):
        """The layout of the Hugging Face cache: links into ../../blobs; code that must stay inert; a clone's .git."""
        ck.write_folder(self.root / "blobs", ck.sample_shards())
        snapshot = self.root / "snapshots" / "main"
        snapshot.mkdir(parents=True)
        for path in (self.root / "blobs").iterdir():
            (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
        (snapshot / "modeling.py").write_text("raise SystemExit")
        (snapshot / "modeling.py").chmod(0o755)
        for name in ("tokenizer.json", "chat_template.jinja", "LICENSE", ".git/config", ".cache/x", "inference/run.py",
                     "pytorch_model.bin", "extra.safetensors"):
            (snapshot / name).parent.mkdir(exist_ok=True)
            (snapshot / name).write_text(name)
        made = self.root / "made"
        done = self.succeed(f"{snapshot}/", f"{made}/")
        self.assertIn("extra.safetensors", done.stderr)
        names = set(tree(made))
        for name in ("tokenizer.json", "chat_template.jinja", "LICENSE", "modeling.py", "inference/run.py",
                     "config.json"):
            self.assertIn(name, names)
        for name in (".git/config", ".cache/x", "pytorch_model.bin", "extra.safetensors"):
            self.assertNotIn(name, names)
        self.assertEqual((made / "modeling.py").stat().st_mode & 0o777, 0o644)
        self.assertFalse(any(path.is_symlink() for path in made.rglob("*")))
        config = (made / "config.json").read_text()
        self.assertEqual(json.loads(config)["hadal_convert"]["method"], "exact")
        self.assertIn('"rms_norm_eps": 1e-06,', config)
        tensors, metadata = ck.read_shard(made / "model-00001-of-000003.safetensors")
        self.assertEqual(metadata["format"], "pt")
        self.assertEqual(json.loads(metadata["hadal_convert"])["method"], "exact")
        self.assertEqual(list(tensors), list(ck.read_shard(self.root / "blobs/model-00001-of-000003.safetensors")[0]))

    def test_nothing_to_convert_is_a_copy(self):
        source = random.Random(2)
        ck.write_folder(self.source, [{"model.layers.0.mlp.up_proj.weight": ck.bf16(source, 16, 32)}], {"a": 1})
        made = self.root / "made"
        done = self.succeed(self.source, made, "--verify")
        self.assertIn("nothing to convert", done.stderr)
        self.check_tensors(made, ck.read_folder(self.source))
        self.assertEqual((made / "config.json").read_bytes(), (self.source / "config.json").read_bytes())

    def test_dry_run_writes_nothing(self):
        self.write_sample()
        self.succeed(self.source, self.root / "made", "--dry-run")
        self.assertFalse((self.root / "made").exists())

    def test_nano_would_still_be_served(self):
        for method in ("exact", "seed"):
            made = self.root / method
            self.succeed(NANO, made, "--method", method, "--verify")
            done = run("inspect", made, "--json")
            self.assertEqual(done.returncode, 0, done.stdout)
        self.refuse(2, ["already converted", '"method":"seed"'], self.root / "seed", self.root / "again")
        # Without the marker the codes tell.
        for method in ("exact", "seed"):
            shutil.copy(NANO / "config.json", self.root / method / "config.json")
            self.refuse(2, ["already in the range of Gaudi 2", f"--method {method}"], self.root / method,
                        self.root / "again")
        self.assertFalse((self.root / "again").exists())

    def test_verify_finds_one_changed_bit(self):
        self.write_sample()
        made = self.root / "made"
        self.succeed(self.source, made, "--verify")
        shard = made / "model-00002-of-000003.safetensors"
        sound = tree(made)
        header = struct.unpack("<Q", sound[shard.name][:8])[0] + 8
        for path, offset, fragments in ((shard, header + 12345,
                                         ["model.layers.1.self_attn.q_a_proj.weight", "byte 12345"]),
                                        (shard, len(sound[shard.name]) - 100, ["byte"]),
                                        (made / SIDECARS / f"{shard.name}.lost", 5000, ["checksum"])):
            flip(path, offset)
            self.refuse(1, fragments, self.source, made, "--verify")
            for name, content in sound.items():
                (made / name).write_bytes(content)
        flip(shard, 30)  # in the header: not the file that was finished, so it is made again
        done = self.succeed(self.source, made, "--verify", "--json")
        self.assertEqual(json.loads(done.stdout)["resumed_shards"], 2)
        del sound[JOURNAL]  # has the shard twice now
        self.assertTrue(tree(made).items() >= sound.items())

    def test_reverse_refuses_what_it_cannot_prove(self):
        self.write_sample()
        made, back = self.root / "made", self.root / "back"
        self.refuse(2, ["hadal_convert", "--reverse"], self.source, back, "--reverse")
        self.succeed(self.source, made)
        sidecar = made / SIDECARS / "model-00002-of-000003.safetensors.lost"
        content = sidecar.read_bytes()
        sidecar.unlink()
        self.refuse(1, [sidecar.name, "missing"], made, back, "--reverse")
        for damage, fragment in ((content[:-1], "footer"), (content[:20], "too short"), (b"x" * 100, "not a sidecar"),
                                 (b"HADALSC9" + content[8:], "version")):
            sidecar.write_bytes(damage)
            self.refuse(1, [sidecar.name, fragment], made, back, "--reverse")
        self.assertFalse(back.exists())
        sidecar.write_bytes(content)
        flip(made / "model-00002-of-000003.safetensors", 5000)
        self.refuse(1, ["the folder was changed"], made, back, "--reverse")
        self.assertFalse((back / ck.INDEX).exists())


if __name__ == "__main__":
    unittest.main()
