"""Runs `hadal convert` on made-up folders."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import checkpoints as ck
from serving import REPOSITORY

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
NANO = REPOSITORY / "models/nano"
JOURNAL = "hadal_convert.journal"
SIDECARS = "hadal_sidecar"


def run(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)


def convert(source: Path, target: Path, *arguments, **options) -> subprocess.CompletedProcess:
    return run("convert", "-i", source, "-o", target, "--threads", 2, *arguments, **options)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def flip(path: Path, offset: int) -> None:
    blob = bytearray(path.read_bytes())
    blob[offset] ^= 1
    path.write_bytes(blob)


class Case(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.root = Path(self.scratch.name)
        self.source = self.root / "source"

    def write_sample(self, **arguments) -> None:
        ck.write_folder(self.source, ck.sample_shards(**arguments))

    def succeed(self, *arguments, **options) -> subprocess.CompletedProcess:
        done = convert(*arguments, **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done

    def refuse(self, code: int, fragments, *arguments, **options) -> None:
        done = convert(*arguments, **options)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for fragment in fragments:
            self.assertIn(fragment, done.stderr)
