"""`hadal calibrate` on models/nano: INC's file set for several world sizes from one run, equal to the merged ranges;
killed at any moment and resumed, the same bytes, as on any number of ranks; nothing older is ever lost."""
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from serving import REPOSITORY, children

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
NANO = REPOSITORY / "models/nano"
BASE = "inc_measure_output_hooks_maxabs"
PROMPTS, PROMPT_LEN, OSL, WORLD_SIZES = 6, 192, 6, (1, 2, 4)
ATTENTION = "model.layers.{}.self_attn."
IMPL = ATTENTION + "mla_attn.impl."

try:
    import numpy
except ImportError:
    numpy = None


def documents() -> list:
    """Of several problems each; every fourth is too short to be a prompt."""
    problems = [json.loads(line) for line in (NANO / "heldout.jsonl").read_text().splitlines()]
    texts = [f"Question: {p['question']}\nAnswer: {p['answer']}\n" for p in problems]
    return ["".join(texts[20 * i:20 * i + (1 if i % 4 == 3 else 20)]) for i in range(20)]


def command(folder: Path, *flags: str, **changed) -> list:
    """changed: values of flags, '_' for '-'."""
    values = {"model": NANO, "data": folder.parent.parent / "documents.jsonl", "output": folder, "threads": 2,
              "nprompts": PROMPTS, "prompt_len": PROMPT_LEN, "osl": OSL, "wd": ",".join(map(str, WORLD_SIZES)),
              **changed}
    named = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return [str(BINARY), "calibrate", *named, *flags]


def calibrate(folder: Path, *flags: str, **changed) -> subprocess.CompletedProcess:
    return subprocess.run(command(folder, *flags, **changed), capture_output=True, text=True, timeout=300)


def results(folder: Path) -> dict:
    """Name -> bytes of every file that a run leaves, whatever was there before."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def node_values(node: dict) -> dict:
    values = {f"inputs[{i}]": v[0][0] for i, v in enumerate(node["inputs"])}
    values.update({f"outputs[{i}]": v[0][0] for i, v in enumerate(node.get("outputs", []))})
    if "params" in node:
        values["weight"] = node["params"]["weight"][0][0]
    return values


class CalibrateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = tempfile.TemporaryDirectory()
        root = Path(cls.root.name)
        (root / "documents.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in documents()))
        (root / "documents.txt").write_text("".join(t.replace("\n", " ") + "\n" for t in documents()))
        cls.whole = root / "run" / "whole"
        cls.whole.parent.mkdir()
        cls.run_of_whole = calibrate(cls.whole)
        assert cls.run_of_whole.returncode == 0, cls.run_of_whole.stderr

    @classmethod
    def tearDownClass(cls):
        cls.root.cleanup()

    def folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.root.name)) / "out"

    def nodes(self, world_size: int) -> list:
        files = [self.whole / f"{BASE}_{rank}_{world_size}.json" for rank in range(world_size)]
        return [json.loads(f.read_text())["Nodes"] for f in files]

    def ranges(self) -> dict:
        return json.loads((self.whole / "hadal_ranges.json").read_text())

    def test_says_what_it_does(self):
        self.assertIn(f"Got {PROMPTS} prompts, length of first prompt: {PROMPT_LEN}.", self.run_of_whole.stdout)
        self.assertIn("coverage: 3 MoE layers of 8 experts", self.run_of_whole.stdout)
        provenance = self.ranges()["provenance"]
        self.assertEqual(provenance["num_prompts"], PROMPTS)
        self.assertEqual(provenance["num_tokens"], PROMPTS * (PROMPT_LEN + OSL))

    def test_every_file_is_there_and_nothing_else(self):
        wanted = {"hadal_calibration.json", "hadal_ranges.json"}
        for world_size in WORLD_SIZES:
            for rank in range(world_size):
                wanted |= {f"{BASE}_{rank}_{world_size}{end}" for end in (".json", ".npz", "_mod_list.json")}
        self.assertEqual(set(results(self.whole)), wanted)

    def test_nodes_of_every_rank(self):
        for world_size in WORLD_SIZES:
            for rank, nodes in enumerate(self.nodes(world_size)):
                experts = 8 // world_size
                self.assertEqual(len(nodes), 4 * 11 + 2 + 3 * (1 + 2 * experts + 2), (rank, world_size))
                listed = json.loads((self.whole / f"{BASE}_{rank}_{world_size}_mod_list.json").read_text())
                self.assertLess(set(nodes), set(listed))
                for name, node in nodes.items():
                    for field, value in node_values(node).items():
                        is_dummy = ("w13_list" in name or "w2_list" in name) and field == "inputs[0]"
                        self.assertEqual(value == 0, is_dummy or (value == 0 and "moe_op" in name), (name, field))

    def test_invariants_between_nodes(self):
        for world_size in WORLD_SIZES:
            for nodes in self.nodes(world_size):
                for layer in range(4):
                    at = {name: node_values(nodes[IMPL.format(layer) + name]) for name in
                          ("matmul_qk", "matmul_av", "latent_cache_k", "o_proj", "kv_b_proj", "batch2block_matmul",
                           "block2batch_matmul", "fused_scaled_dot_product_attention")}
                    sdpa = at["fused_scaled_dot_product_attention"]
                    self.assertEqual(at["matmul_qk"]["inputs[1]"], at["latent_cache_k"]["inputs[0]"])
                    self.assertGreaterEqual(at["o_proj"]["inputs[0]"], sdpa["outputs[0]"])
                    self.assertGreaterEqual(at["matmul_av"]["inputs[1]"], at["kv_b_proj"]["inputs[0]"])
                    self.assertEqual([at["matmul_av"]["inputs[0]"], sdpa["outputs[1]"]], [1, 1])
                    self.assertEqual([at[m]["inputs[0]"] for m in ("batch2block_matmul", "block2batch_matmul")], [1, 1])
                    self.assertGreaterEqual(at["batch2block_matmul"]["inputs[1]"], at["matmul_qk"]["inputs[0]"])

    def test_ranks_are_shares_of_the_merged_ranges(self):
        layers = self.ranges()["layers"]
        for world_size in WORLD_SIZES:
            heads, experts = 16 // world_size, 8 // world_size
            for rank, nodes in enumerate(self.nodes(world_size)):
                for index, layer in enumerate(layers):
                    of_rank = lambda field: max(layer[field][rank * heads:(rank + 1) * heads])
                    sdpa = node_values(nodes[IMPL.format(index) + "fused_scaled_dot_product_attention"])
                    self.assertEqual([sdpa[f"inputs[{i}]"] for i in range(3)],
                                     [of_rank("sdpa_q"), of_rank("sdpa_k"), of_rank("sdpa_v")])
                    self.assertEqual(node_values(nodes[IMPL.format(index) + "o_proj"])["inputs[0]"], of_rank("o_in"))
                    self.assertEqual(node_values(nodes[IMPL.format(index) + "matmul_qk"])["inputs[0]"],
                                     of_rank("absorbed_q"))
                    self.assertEqual(node_values(nodes[ATTENTION.format(index) + "q_a_proj"])["inputs[0]"],
                                     layer["attention_in"])
                    if index == 0:
                        continue
                    moe = node_values(nodes[f"model.layers.{index}.mlp.experts.moe_op"])
                    self.assertEqual([moe[f"outputs[{i + 1}]"] for i in range(experts)],
                                     layer["expert_down_in"][rank * experts:(rank + 1) * experts])
                    self.assertEqual(moe["outputs[0]"], layer["moe_out"][str(world_size)][rank])

    def test_npz_equals_json(self):
        if numpy is None:
            self.skipTest("numpy is not installed: the .npz files were not opened")
        for world_size in WORLD_SIZES:
            for rank in range(world_size):
                path = self.whole / f"{BASE}_{rank}_{world_size}"
                packed = numpy.load(f"{path}.npz", allow_pickle=True)["arr_0"].item()
                as_lists = json.loads(json.dumps(packed, default=lambda a: a.tolist()))
                self.assertEqual(as_lists, json.loads(Path(f"{path}.json").read_text()))

    def test_batches_threads_and_the_kind_of_file_do_not_matter(self):
        folder = self.folder()
        done = calibrate(folder, batch=4, threads=1)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(results(folder), results(self.whole))
        texts = self.folder()
        done = calibrate(texts, data=Path(self.root.name) / "documents.txt")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"Got {PROMPTS} prompts", done.stdout)

    def test_several_ranks_measure_the_same(self):
        for num_ranks in (2, 4):
            folder = self.folder()
            done = calibrate(folder, "--tensor-parallel-size", str(num_ranks), threads=1)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"rank {num_ranks - 1}", done.stdout)
            self.assertEqual(results(folder), results(self.whole), num_ranks)

    def test_several_ranks_with_experts_whole(self):
        one, two = self.folder(), self.folder()
        for folder, flags in ((one, ()), (two, ("--tensor-parallel-size", "2"))):
            done = calibrate(folder, "--enable-expert-parallel", *flags, threads=1)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(results(two), results(one))
        # Their sums are others in the last bit, so a run cannot change over.
        self.expect_error(calibrate(one, "--resume"), "--resume of another run", "expert_parallel is true there")

    def lose_a_rank(self, signal_number: int, *flags: str) -> tuple:
        """Starts a run on two ranks and ends rank 1 after the first checkpoint. Returns the folder, what the run says
        and how many prompts were finished. A run that was over by then is no test: another one is started."""
        for _ in range(10):
            folder = self.folder()
            partial = folder / "hadal_ranges_partial.json"
            with subprocess.Popen(command(folder, "--tensor-parallel-size", "2", *flags, batch=1, threads=1,
                                          checkpoint_interval=0), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                  text=True) as run:
                while run.poll() is None and not partial.exists():
                    time.sleep(0.005)
                for pid in children(run.pid) if run.poll() is None else ():
                    os.kill(pid, signal_number)
                errors = run.communicate(timeout=120)[1]
            if run.returncode == 0:
                continue
            self.assertEqual(run.returncode, 1, errors)
            num_prompts = json.loads(partial.read_text())["provenance"]["num_prompts"]
            if num_prompts < PROMPTS:
                return folder, errors, num_prompts
        self.fail("no run was caught half way")

    def test_a_lost_rank_is_named_and_the_run_goes_on(self):
        for signal_number, flags in ((signal.SIGKILL, ()), (signal.SIGSTOP, ("--rank-timeout", "2"))):
            folder, errors, num_prompts = self.lose_a_rank(signal_number, *flags)
            self.assertRegex(errors, r"hadal: .*rank 1.*--resume goes on after the last checkpoint")
            # On as many ranks as before, or on one.
            again = ("--tensor-parallel-size", "2") if signal_number == signal.SIGKILL else ()
            done = calibrate(folder, "--resume", *again, batch=1, threads=1)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"Going on after {num_prompts} of {PROMPTS} prompts", done.stdout)
            self.assertEqual(results(folder), results(self.whole))

    def test_ranks_that_cannot_be_are_refused(self):
        folder = self.folder()
        self.expect_error(calibrate(folder, "--tensor-parallel-size", "3"), "--tensor-parallel-size 3",
                          "1, 2, 4, 8 or 16 parts")
        self.expect_error(calibrate(folder, "--tensor-parallel-size", "2", "--nnodes", "2"), "--master-addr")
        self.expect_error(calibrate(folder, "--restart-limit", "2"), "--restart-limit")
        self.assertFalse(folder.exists(), "a refused run leaves nothing behind")

    def test_killed_and_resumed_gives_the_same_bytes(self):
        folder = self.folder()
        partial = folder / "hadal_ranges_partial.json"
        seen = []
        for _ in range(3):
            process = subprocess.Popen(command(folder, "--resume", batch=1, checkpoint_interval=0),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            before = partial.read_bytes() if partial.exists() else b""
            while process.poll() is None and (not partial.exists() or partial.read_bytes() == before):
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if partial.exists():
                seen.append(json.loads(partial.read_text())["provenance"]["num_prompts"])
        self.assertTrue(seen and seen[0] < PROMPTS, f"no run was killed half way: {seen}")
        self.assertEqual(seen, sorted(seen))
        done = calibrate(folder, "--resume", batch=1)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(results(folder), results(self.whole))
        # A finished run may be resumed too: nothing is left to do.
        self.assertEqual(calibrate(folder, "--resume").returncode, 0)
        self.assertEqual(results(folder), results(self.whole))

    def test_killed_at_random_points(self):
        folder, draw = self.folder(), random.Random(11)
        flags = command(folder, "--resume", batch=1, checkpoint_interval=0)
        started = time.monotonic()
        subprocess.run(flags, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        longest = time.monotonic() - started
        self.assertEqual(results(folder), results(self.whole))
        num_finished = 0
        for number in range(50):
            if (folder / "hadal_ranges.json").exists():  # a whole run: begin another
                whole = {name: content for name, content in results(folder).items() if ".tmp." not in name}
                self.assertEqual(whole, results(self.whole), f"kill {number}")
                shutil.rmtree(folder)
                num_finished += 1
            process = subprocess.Popen(flags, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            time.sleep(draw.uniform(0, 0.6 * longest))
            process.kill()
            errors = process.communicate()[1].decode()
            self.assertIn(process.returncode, (0, -signal.SIGKILL), errors)
        subprocess.run(flags, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        self.assertEqual(results(folder), results(self.whole))
        self.assertGreater(num_finished, 2)

    def test_a_full_disk_is_named_and_costs_nothing(self):
        folder = self.folder()
        folder.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
        if mounted.returncode != 0:
            self.skipTest("no tmpfs could be mounted: the full disk was not tried")
        try:
            self.expect_error(calibrate(folder), str(folder), "No space left")
            for path in folder.glob("*.tmp*"):
                self.fail(f"left behind: {path}")
            subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True, capture_output=True)
            done = calibrate(folder, "--resume")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"Going on after {PROMPTS} of {PROMPTS} prompts", done.stdout)
            self.assertEqual(results(folder), results(self.whole))
        finally:
            subprocess.run(["umount", folder], check=True)

    def test_older_results_are_moved_aside(self):
        folder = self.folder()
        folder.mkdir()
        (folder / f"{BASE}_0_8.npz").write_bytes(b"somebody's hour")
        (folder / "notes.txt").write_text("not ours")
        self.assertEqual(calibrate(folder).returncode, 0)
        first = results(folder)
        again = calibrate(folder, seed=3)
        self.assertEqual(again.returncode, 0, again.stderr)
        backups = sorted(p for p in folder.iterdir() if p.is_dir())
        self.assertEqual(len(backups), 2)
        for backup in backups:
            self.assertRegex(backup.name, r"^backup_inc_measure_output_\d\d-\d\d_\d\d:\d\d:\d\d(_2)?$")
        kept = [results(backup) for backup in backups]
        self.assertIn({f"{BASE}_0_8.npz": b"somebody's hour"}, kept)
        del first["notes.txt"]
        self.assertIn(first, kept)
        self.assertEqual((folder / "notes.txt").read_text(), "not ours")
        self.assertNotEqual(results(folder)["hadal_ranges.json"], first["hadal_ranges.json"])  # other prompts

    def test_a_configuration_names_the_files_and_leaves_out_modules(self):
        folder = self.folder()
        config = {"mode": "MEASURE", "observer": "maxabs", "dump_stats_path": str(folder / "other_name"),
                  "whitelist": {"names": [], "types": []},
                  "blocklist": {"names": ["lm_head", "mlp\\.gate\\b", "kv_b_proj"], "types": []}}
        path = folder.parent / "config.json"
        path.write_text(json.dumps(config))
        flags = command(folder, config=path)
        at = flags.index("--output")
        done = subprocess.run(flags[:at] + flags[at + 2:], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        nodes = json.loads((folder / "other_name_hooks_maxabs_0_1.json").read_text())["Nodes"]
        whole = self.nodes(1)[0]
        self.assertEqual(nodes, {name: node for name, node in whole.items() if "kv_b_proj" not in name})
        self.assertEqual(len(nodes), len(whole) - 4)
        path.write_text(json.dumps({**config, "mode": "QUANTIZE"}))
        self.expect_error(calibrate(folder, config=path), "mode is QUANTIZE, a calibration needs MEASURE")

    def test_inspect_reads_one_rank_alone(self):
        done = subprocess.run([BINARY, "calibrate", "--inspect", self.whole / f"{BASE}_1_4.npz"], capture_output=True,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("moe", done.stdout)

    def expect_error(self, done: subprocess.CompletedProcess, *parts: str) -> None:
        self.assertNotEqual(done.returncode, 0, done.stdout)
        for part in parts:
            self.assertIn(part, done.stderr)

    def test_says_what_is_wrong(self):
        folder = self.folder()
        self.expect_error(calibrate(folder, prompt_len=30000), "none of 20 documents has 30000 tokens",
                          "--prompt-len")
        self.expect_error(calibrate(folder, wd=3), "world size 3", "16 attention heads")
        self.expect_error(calibrate(folder, wd=16), "world size 16", "8 experts")
        self.expect_error(calibrate(folder, osl=1), "--osl")
        self.expect_error(calibrate(folder, data=NANO / "config.json"), "--data takes a .jsonl")
        self.expect_error(calibrate(folder, data=folder.parent / "absent.jsonl"), "absent.jsonl")
        self.expect_error(calibrate(folder, numerics="fp8-dynamic"), "--numerics fp8-dynamic")
        broken = Path(self.root.name) / "broken.jsonl"
        broken.write_text('{"text": "short"}\n{"title": "no text"}\n')
        self.expect_error(calibrate(folder, data=broken), "broken.jsonl:2", '"text" is missing')
        self.assertFalse(folder.exists(), "a refused run leaves nothing behind")

    def test_too_few_documents_are_counted(self):
        folder = self.folder()
        done = calibrate(folder, nprompts=18)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"15 of 20 documents have {PROMPT_LEN} tokens or more; --nprompts asked for 18", done.stderr)
        self.assertIn("Got 15 prompts", done.stdout)

    def test_another_run_is_not_resumed(self):
        folder = self.folder()
        self.assertEqual(calibrate(folder).returncode, 0)
        before = results(folder)
        self.expect_error(calibrate(folder, "--resume", osl=7), "--resume of another run", "osl is 6 there, 7")
        self.assertEqual(results(folder), before)
        (folder / "hadal_ranges.json").write_text('{"format": "hadal ranges"')
        self.expect_error(calibrate(folder, "--resume"), "hadal_ranges.json")

    def test_a_folder_that_cannot_be_written_is_named(self):
        if os.geteuid() == 0:
            self.skipTest("root writes everywhere: the read-only folder was not tried")
        folder = self.folder()
        folder.mkdir(mode=0o500)
        self.expect_error(calibrate(folder), str(folder))


if __name__ == "__main__":
    unittest.main()
