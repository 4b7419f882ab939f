"""The Ray helper against a Ray that is only a folder of Python: which nodes it takes, what it refuses and with which words,
that agents run, are followed, killed, started again and end with it. What real Ray does: ray_test.py."""
from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from serving import REPOSITORY

HELPER = REPOSITORY / "src/cli/ray/hadal_ray.py"
FAKE_RAY = Path(__file__).parent / "fake_ray"
PROGRAM = "/bin/true"  # has a version and stands for hadal
PATIENCE = 60


def node(name: str, number: int, cpus: int = 8, alive: bool = True) -> dict:
    return {"id": name, "ip": f"127.0.0.{number}", "cpus": cpus, "alive": alive}


class Helper:
    """The helper as a child, spoken to as the server does."""

    def __init__(self, cluster: dict, env: dict[str, str] | None = None):
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "cluster.json"
        self.file.write_text(json.dumps(cluster))
        self.process = subprocess.Popen(
            [sys.executable, "-c", HELPER.read_text()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(FAKE_RAY), "FAKE_RAY": str(self.file), **(env or {})})
        self.events: queue.Queue[dict] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.folder.cleanup()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def order(self, op: str, **fields: object) -> None:
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()

    def prepare(self, world_size: int, nnodes: int = 0, program: str = PROGRAM) -> None:
        self.order("prepare", world_size=world_size, nnodes=nnodes, program=program)

    def event(self, *kinds: str) -> dict:
        """The next one of these kinds."""
        while True:
            event = self.events.get(timeout=PATIENCE)
            if event["event"] in kinds:
                return event
            assert event["event"] in ("warning", "log"), event

    def end(self) -> str:
        """-> what it wrote to stderr"""
        if self.process.returncode is not None:
            return ""
        self.process.stdin.close()
        text = self.process.stderr.read()
        self.process.wait(timeout=PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()
        return text


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


class Nodes(unittest.TestCase):
    def layout(self, nodes: list[dict], world_size: int, nnodes: int = 0, **more: object) -> dict:
        with Helper({"own": "a", "nodes": nodes, **more}) as helper:
            helper.prepare(world_size, nnodes)
            return helper.event("layout", "error")

    def test_own_node_first_then_by_address(self):
        nodes = [node("c", 10), node("a", 7), node("b", 9), node("gone", 8, alive=False)]
        layout = self.layout(nodes, 6)
        self.assertEqual(layout["nodes"], ["127.0.0.7", "127.0.0.9", "127.0.0.10"])
        self.assertEqual((layout["ranks_per_node"], layout["address"]), ([2, 2, 2], "127.0.0.7"))

    def test_as_many_nodes_as_share_the_ranks_evenly(self):
        nodes = [node("a", 1), node("b", 2), node("c", 3)]
        self.assertEqual(self.layout(nodes, 16)["ranks_per_node"], [8, 8])
        self.assertEqual(self.layout(nodes, 1)["ranks_per_node"], [1])
        self.assertEqual(self.layout(nodes, 4, nnodes=1)["ranks_per_node"], [4])

    def test_too_few_nodes_are_a_table_with_the_next_command(self):
        error = self.layout([node("a", 1)], 16, nnodes=2)
        self.assertEqual(error["code"], "resource_exhausted")
        for text in ("16 ranks need 2 nodes with 8 CPUs each, and Ray has 1", "127.0.0.1", "(missing)",
                     "ray start --address='127.0.0.1:8850'", "--num-cpus"):
            self.assertIn(text, error["what"])
        error = self.layout([node("a", 1), node("b", 2, cpus=4)], 16)
        self.assertRegex(error["what"], r"127\.0\.0\.2 +4 +8 ")

    def test_what_else_is_refused(self):
        two = [node("a", 1), node("b", 2)]
        cases = [
            (self.layout([node("a", 1), node("b", 1)], 2), "2 Ray nodes have the address 127.0.0.1"),
            (self.layout([node("b", 2)], 2), "no living node"),
            (self.layout(two, 3, nnodes=2), "--nnodes 2 cannot share 3 ranks evenly"),
            (self.layout(two, 2, places=False), "other jobs hold them"),
            (self.layout(two, 2, init_error=["ConnectionError", "no session"]), "no Ray cluster runs on this machine: ray start --head"),
            (self.layout(two, 2, init_error=["RuntimeError", "Version mismatch: 2.59 and 2.60"]), "install the same Ray"),
            (self.layout(two, 2, init_error=["RuntimeError", "token"]), "cannot be joined: token"),
            (self.layout(two, 2, programs={"127.0.0.2": {"problem": "no such file"}}), "scp 127.0.0.1:/bin/true 127.0.0.2:/bin/true"),
            (self.layout(two, 2, programs={"127.0.0.2": {"version": "hadal 9", "sha256": "00"}}), "hadal 9, sha256 00"),
        ]
        for error, text in cases:
            self.assertEqual(error["event"], "error", text)
            self.assertIn(text, error["what"])

    def test_a_cluster_without_authentication_is_warned_of(self):
        for mode, warned in (("", True), ("token", False)):
            with Helper({"own": "a", "nodes": [node("a", 1)]}, {"RAY_AUTH_MODE": mode}) as helper:
                helper.prepare(1)
                kinds = [helper.events.get(timeout=PATIENCE)["event"]]
                if kinds[0] != "layout":
                    kinds.append(helper.events.get(timeout=PATIENCE)["event"])
                self.assertEqual(kinds, ["warning", "layout"] if warned else ["layout"])

    def test_without_ray_it_says_so(self):
        with tempfile.TemporaryDirectory() as empty, Helper({}, {"PYTHONPATH": empty}) as helper:
            if subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode == 0:
                self.skipTest("this interpreter has Ray")
            self.assertIn("has no Ray", helper.event("error")["what"])


class Agents(unittest.TestCase):
    def setUp(self):
        self.helper = Helper({"own": "a", "nodes": [node("a", 1), node("b", 2)]}, {"KEPT": "own", "OMP_NUM_THREADS": "1"})
        self.addCleanup(self.helper.__exit__)
        self.helper.prepare(2)
        self.helper.event("layout")

    def start(self, script: str, **env: str) -> int:
        """-> its process id"""
        self.helper.order("start", node=1, argv=["/bin/sh", "-c", script], env=env)
        started = self.helper.event("started")
        self.assertEqual(started["node"], 1)
        self.assertRegex(started["what"], r"^pid \d+ on 127\.0\.0\.2$")
        return int(started["what"].split()[1])

    def logged(self) -> list[str]:
        """All lines until it ends."""
        lines = []
        while (event := self.helper.events.get(timeout=PATIENCE))["event"] != "exited":
            self.assertEqual(event["event"], "log")
            lines.append(event["what"])
        return lines + [event["what"]]

    def test_lines_environment_and_exit_code(self):
        self.start('echo "$HADAL_RANK $KEPT $HADAL_IFACE ${OMP_NUM_THREADS-unset}"; echo two >&2; exit 3', HADAL_RANK="1",
                   KEPT="", HADAL_IFACE="")
        self.assertEqual(self.logged(), ["1 own  unset", "two", "exit code 3"])

    def test_it_is_started_again(self):
        for signal_number, name in ((9, "Killed"), (11, "Segmentation fault")):
            self.start(f"kill -{signal_number} $$")
            self.assertEqual(self.logged(), [f"signal {signal_number} ({name})"])

    def test_a_program_that_cannot_be_started(self):
        self.helper.order("start", node=1, argv=["/nowhere/hadal"], env={})
        self.assertIn("/nowhere/hadal", self.helper.event("exited")["what"])

    def test_long_and_many_lines_are_bounded(self):
        self.start("head -c 100000 /dev/zero | tr '\\0' x; echo; yes line | head -n 200000; echo end")
        lines = self.logged()
        self.assertEqual(len(lines[0]), 4096)
        self.assertLess(len(lines), 200_000)
        self.assertTrue(any("lines came too fast" in line for line in lines), len(lines))
        self.assertEqual(lines[-1], "exit code 0")

    def test_killed_on_order_with_its_children(self):
        self.start("sleep 1000 & echo $!; wait")
        child = int(self.helper.event("log")["what"])
        self.helper.order("kill", node=1)
        self.assertIn("signal 9", self.helper.event("exited")["what"])
        deadline = time.monotonic() + PATIENCE
        while lives(child) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(lives(child))

    def test_a_lost_node_is_told_and_can_be_started_again(self):
        self.start("sleep 1000")
        Path(str(self.helper.file) + ".lose").write_text("127.0.0.2")
        lost = self.helper.event("lost")
        self.assertEqual(lost["node"], 1)
        self.assertIn("127.0.0.2: The actor died because its node has died.", lost["what"])
        self.start("echo again")
        self.assertEqual(self.logged(), ["again", "exit code 0"])

    def test_agents_end_with_it(self):
        pid = self.start("exec sleep 1000")
        self.assertIn("libraries print things\n", self.helper.end())
        deadline = time.monotonic() + PATIENCE
        while lives(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(lives(pid))

    def test_orders_for_nodes_that_are_not(self):
        for number in (0, 2, -1):
            with Helper({"own": "a", "nodes": [node("a", 1), node("b", 2)]}) as helper:
                helper.prepare(2)
                helper.event("layout")
                helper.order("start", node=number, argv=["/bin/true"], env={})
                self.assertIn(f"no node {number}", helper.event("error")["what"])


if __name__ == "__main__":
    unittest.main()
