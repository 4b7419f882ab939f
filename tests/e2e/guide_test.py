"""docs/from-the-guide.md as a reader types it: every command of ours, in order, with nano as the model and two network
namespaces as the two nodes. Parts that need what is not here are printed as skipped."""
from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import unittest
from functools import partial
from pathlib import Path

from guide_blocks import Block, parse_blocks
from guide_shells import Shell
from network_namespaces import Nodes, main, why_not
from serving import REPOSITORY

DOCS = REPOSITORY / "docs"
BINARIES = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")).resolve() / "bin"
NANO = REPOSITORY / "models/nano"
RAY = BINARIES.parent / "e2e/venv-ray/bin"  # where e2e.ray has put it; else what is on the PATH
SEARCHED = f"{BINARIES}:{RAY}:{os.environ['PATH']}"
# A clone in a folder of its own, so that nothing is written into this one.
CLONED = ("docs", "eval", "models", "scripts")
GUIDE_ADDRESSES = ("192.168.1.101", "192.168.1.106")


def help_of(*words: str) -> str:
    return subprocess.run([str(BINARIES / "hadal"), *words, "--help"], capture_output=True, text=True).stdout


def has_command(name: str, *within: str) -> bool:
    return re.search(rf"^  {name} ", help_of(*within), re.M) is not None


NEEDS = {
    "comm": lambda: has_command("comm") and has_command("bench", "comm"),
    "check": lambda: has_command("comm") and has_command("check", "comm"),
    "nnodes": lambda: has_command("worker") and "--nnodes" in help_of("serve"),
    "ray": lambda: has_command("worker") and shutil.which("ray", path=SEARCHED) is not None,
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def reader_environment() -> dict[str, str]:
    """What the reader has set, and limits that make small cases of large ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HADAL_", "VLLM_", "INC_"))}
    return {**kept, "PATH": SEARCHED, "MODEL": str(NANO), "TEXT": str(NANO / "calibration.jsonl"),
            "PROBLEMS": str(NANO / "heldout.jsonl"), "HADAL_NUM_BLOCKS": "700", "INPUT_LEN": "32", "OUTPUT_LEN": "8",
            "CASES": "1,2 4,8", "RESULT_DIR": "."}


class Guide(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name in CLONED:
            (self.folder / name).symlink_to(REPOSITORY / name)
        self.blocks = [block for block in parse_blocks(DOCS / "from-the-guide.md") if block.runs]

    def missing(self, block: Block) -> str | None:
        needed = block.value("needs")
        return needed if needed and not NEEDS[needed]() else None

    def run_block(self, shell: Shell, text: str, block: Block) -> None:
        where = f"docs/from-the-guide.md:{block.line}"
        print(f"{where}: {text.splitlines()[0][:100]}", flush=True)
        if "background" in block.words:
            shell.start(text)
            return
        if "server" in block.words:
            server = shell.serve(text)
            self.assertTrue(server.is_ready, f"{where}: not ready\n{text}" + "\n".join(server.lines))
            return
        status, output = shell.run(text)
        self.assertEqual(status, 0, f"{where}\n{text}{output}")
        for expected in block.expected:
            self.assertRegex(output, re.compile(expected), f"{where}\n{text}")

    def run_blocks(self, shells: dict[str | None, Shell], blocks: list[Block], replace: dict[str, str]) -> None:
        section = ""
        try:
            for block in blocks:
                if block.section != section:
                    section = block.section
                    for shell in shells.values():
                        shell.stop_all()
                if what := self.missing(block):
                    print(f"skipped: docs/from-the-guide.md:{block.line} needs {what}", flush=True)
                    continue
                text = block.text
                for old, new in replace.items():
                    text = re.sub(rf"\b{old}\b", new, text)
                self.run_block(shells[block.value("node")], text, block)
        finally:
            for shell in shells.values():
                shell.stop_all()

    def test_both_languages_hold_the_same_commands(self):
        chinese = [block for block in parse_blocks(DOCS / "from-the-guide.zh.md") if block.runs]
        self.assertEqual([(b.words, b.text) for b in chinese], [(b.words, b.text) for b in self.blocks])
        self.assertGreater(len(self.blocks), 20)

    def test_one_node(self):
        shell = Shell(self.folder, reader_environment())
        # Two servers never run at once; ports are free ones, as other programs may run on this machine.
        replace = {"8688": str(free_port()), "5555": str(free_port())}
        self.run_blocks({None: shell}, [block for block in self.blocks if block.value("node") is None], replace)

    def test_two_nodes(self):
        if reason := why_not():
            self.skipTest(f"the commands of two nodes were not tried: {reason}")
        with Nodes(addresses=GUIDE_ADDRESSES) as nodes:
            shells: dict[str | None, Shell] = {
                name: Shell(self.folder, reader_environment(), name, nodes.command(node), partial(nodes.kill_all, node))
                for node, name in enumerate(("head", "worker"))}
            self.run_blocks(shells, [block for block in self.blocks if block.value("node") is not None], {})


if __name__ == "__main__":
    main()
