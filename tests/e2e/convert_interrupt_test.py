"""`hadal convert` killed, out of disk, without permission: what is left is whole, and the same command goes on."""
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

import checkpoints as ck
from converting import BINARY, JOURNAL, Case, tree

NUM_KILLS = 50


class Interruptions(Case):
    def test_killed_at_random_and_resumed(self):
        ck.write_folder(self.source, ck.sample_shards(num_shards=6, rows=1000, cols=1024))
        (self.source / "inference").mkdir()
        for name in ("tokenizer.json", "inference/run.py"):
            (self.source / name).write_bytes(random.randbytes(3_000_000))
        reference = self.root / "reference"
        started = time.monotonic()
        self.succeed(self.source, reference)
        duration = time.monotonic() - started
        whole = tree(reference)
        seed = random.randrange(1 << 30)
        source = random.Random(seed)
        made, num_kills, num_folders = self.root / "made", 0, 0
        while num_kills < NUM_KILLS:
            if self.kill_one(made, source.uniform(0, duration)):
                num_kills += 1
                self.check_part(made, whole, seed)
                if num_kills < NUM_KILLS:
                    continue
                self.succeed(self.source, made)
            num_folders += 1
            self.assertTrue(tree(made) == whole, f"folder {num_folders}, seed {seed}")
            shutil.rmtree(made)
        print(f"{NUM_KILLS} kills (seed {seed}, {duration:.2f} s a run) of {num_folders} folders: bytes equal")

    def kill_one(self, made: Path, after_s: float) -> bool:
        process = subprocess.Popen([BINARY, "convert", "-i", self.source, "-o", made, "--threads", "2"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=after_s)
            return False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True

    def check_part(self, made: Path, whole: dict[str, bytes], seed: int) -> None:
        """What has its final name is whole, and the folder opens only when it is complete."""
        part = tree(made) if made.exists() else {}
        for name, content in part.items():
            if ".tmp." not in name and name != JOURNAL:
                self.assertTrue(content == whole[name], f"{name}, seed {seed}")
        if ck.INDEX in part:
            self.assertTrue(set(whole) <= set(part), f"seed {seed}")

    def resume_after(self, fragments, made: Path, **limits) -> None:
        self.refuse(1, fragments, self.source, made, **limits)
        self.assertFalse((made / ck.INDEX).exists())
        self.assertFalse([name for name in tree(made) if ".tmp." in name])

    def test_file_size_limit_in_the_middle(self):
        self.write_sample(rows=1000, cols=1024)
        made = self.root / "made"
        smallest = min(path.stat().st_size for path in self.source.glob("*.safetensors"))

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (smallest // 2, smallest // 2))
        self.resume_after(["File too large", "run the same command again"], made, preexec_fn=limit)
        self.succeed(self.source, made, "--verify")

    def mount(self, options: str) -> Path | None:
        place = self.root / "mount"
        place.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True,
                              text=True)
        if done.returncode != 0:
            print(f"SKIP the part with a small disk: mount: {done.stderr.strip()}")
            return None
        self.addCleanup(subprocess.run, ["umount", str(place)], capture_output=True)
        return place

    def test_disk_full(self):
        # Codes that all lose a bit: the sidecars become as large as the shards, far beyond what the check expects.
        source = random.Random(3)
        shards = []
        for layer in range(3):
            name = f"model.layers.{layer}.mlp.up_proj.weight"
            (dtype, shape, data), scale = ck.weight(source, 4096, 2048)
            shards.append({name: (dtype, shape, bytes([0x7E]) + b"\x05" * (len(data) - 1)), name + "_scale_inv": scale})
        ck.write_folder(self.source, shards)
        place = self.mount("size=45m")
        if place is None:
            self.skipTest("no permission to mount; test_file_size_limit_in_the_middle shows the same path")
        made = place / "made"
        self.resume_after(["No space left", "run the same command again"], made)
        subprocess.run(["mount", "-o", "remount,size=200m", str(place)], check=True)
        done = self.succeed(self.source, made, "--verify", "--json")
        self.assertGreater(json.loads(done.stdout)["resumed_shards"], 0)
        shutil.rmtree(made)
        subprocess.run(["mount", "-o", "remount,size=30m", str(place)], check=True)
        self.refuse(1, ["GB needed", "GB free", "make room"], self.source, made)
        self.assertEqual([path.name for path in made.glob("*.safetensors")], [])
        print("disk full: with a tmpfs of 45 MB")

    def test_read_only_output(self):
        self.write_sample()
        place = self.mount("ro,size=1m")
        if place is None:
            if os.geteuid() == 0:
                self.skipTest("no permission to mount, and root may write everywhere")
            place = self.root / "read_only"
            place.mkdir(mode=0o555)
        self.refuse(1, ["cannot create the output folder"], self.source, place / "made")
        self.refuse(1, [str(place)], self.source, place)
        print(f"read-only output: {'tmpfs' if place.name == 'mount' else 'mode 0555'}")


if __name__ == "__main__":
    unittest.main()
