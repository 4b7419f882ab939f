"""The Ray helper against a Ray that is only a folder of Python: which nodes it takes, what it refuses and with which words,
that agents run, are followed, killed, started again and end with it. What real Ray does: ray_test.py."""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from ray_helper import PATIENCE, Helper, ends

FAKE_RAY = Path(__file__).parent / "fake_ray"
PROGRAM = "/bin/true"  # has a version and stands for hadal


def node(name: str, number: int, cpus: int = 8, alive: bool = True) -> dict:
    return {"id": name, "ip": f"127.0.0.{number}", "cpus": cpus, "alive": alive}


class FakeCluster(Helper):
    def __init__(self, cluster: dict, env: dict[str, str] | None = None):
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "cluster.json"
        self.file.write_text(json.dumps(cluster))
        super().__init__(env={"PYTHONPATH": str(FAKE_RAY), "FAKE_RAY": str(self.file), **(env or {})})

    def end(self) -> str:
        words = super().end()
        self.folder.cleanup()
        return words

    def prepare(self, world_size: int, nnodes: int = 0) -> None:
        self.order("prepare", world_size=world_size, nnodes=nnodes, program=PROGRAM)


class Nodes(unittest.TestCase):
    def layout(self, nodes: list[dict], world_size: int, nnodes: int = 0, **more: object) -> dict:
        with FakeCluster({"own": "a", "nodes": nodes, **more}) as helper:
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
            with FakeCluster({"own": "a", "nodes": [node("a", 1)]}, {"RAY_AUTH_MODE": mode}) as helper:
                helper.prepare(1)
                kinds = [helper.events.get(timeout=PATIENCE)["event"]]
                if kinds[0] != "layout":
                    kinds.append(helper.events.get(timeout=PATIENCE)["event"])
                self.assertEqual(kinds, ["warning", "layout"] if warned else ["layout"])

    def test_without_ray_it_says_so(self):
        with tempfile.TemporaryDirectory() as empty, FakeCluster({}, {"PYTHONPATH": empty}) as helper:
            if subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode == 0:
                self.skipTest("this interpreter has Ray")
            self.assertIn("has no Ray", helper.event("error")["what"])


class Agents(unittest.TestCase):
    def setUp(self):
        self.helper = FakeCluster({"own": "a", "nodes": [node("a", 1), node("b", 2)]}, {"KEPT": "own", "OMP_NUM_THREADS": "1"})
        self.addCleanup(self.helper.end)
        self.helper.prepare(2)
        self.helper.event("layout")

    def logged(self) -> list[str]:
        """All lines until it ends."""
        lines = []
        while (event := self.helper.events.get(timeout=PATIENCE))["event"] != "exited":
            self.assertEqual(event["event"], "log")
            lines.append(event["what"])
        return lines + [event["what"]]

    def test_lines_environment_and_exit_code(self):
        self.helper.start(1, 'echo "$HADAL_RANK $KEPT $HADAL_IFACE ${OMP_NUM_THREADS-unset}"; echo two >&2; exit 3', HADAL_RANK="1",
                   KEPT="", HADAL_IFACE="")
        self.assertEqual(self.logged(), ["1 own  unset", "two", "exit code 3"])

    def test_it_is_started_again(self):
        for signal_number, name in ((9, "Killed"), (11, "Segmentation fault")):
            self.helper.start(1, f"kill -{signal_number} $$")
            self.assertEqual(self.logged(), [f"signal {signal_number} ({name})"])

    def test_a_program_that_cannot_be_started(self):
        self.helper.order("start", node=1, argv=["/nowhere/hadal"], env={})
        self.assertIn("/nowhere/hadal", self.helper.event("exited")["what"])

    def test_long_and_many_lines_are_bounded(self):
        self.helper.start(1, "head -c 100000 /dev/zero | tr '\\0' x; echo; yes line | head -n 200000; echo end")
        lines = self.logged()
        self.assertEqual(len(lines[0]), 4096)
        self.assertLess(len(lines), 200_000)
        self.assertTrue(any("lines came too fast" in line for line in lines), len(lines))
        self.assertEqual(lines[-1], "exit code 0")

    def test_killed_on_order_with_its_children(self):
        self.helper.start(1, "sleep 1000 & echo $!; wait")
        child = int(self.helper.event("log")["what"])
        self.helper.order("kill", node=1)
        self.assertIn("signal 9", self.helper.event("exited")["what"])
        self.assertTrue(ends(child))

    def test_a_lost_node_is_told_and_can_be_started_again(self):
        self.helper.start(1, "sleep 1000")
        Path(str(self.helper.file) + ".lose").write_text("127.0.0.2")
        lost = self.helper.event("lost")
        self.assertEqual(lost["node"], 1)
        self.assertIn("127.0.0.2: The actor died because its node has died.", lost["what"])
        self.helper.start(1, "echo again")
        self.assertEqual(self.logged(), ["again", "exit code 0"])

    def test_agents_end_with_it(self):
        pid = self.helper.start(1, "exec sleep 1000")
        self.assertIn("libraries print things\n", self.helper.end())
        self.assertTrue(ends(pid))

    def test_orders_for_nodes_that_are_not(self):
        for number in (0, 2, -1):
            with FakeCluster({"own": "a", "nodes": [node("a", 1), node("b", 2)]}) as helper:
                helper.prepare(2)
                helper.event("layout")
                helper.order("start", node=number, argv=["/bin/true"], env={})
                self.assertIn(f"no node {number}", helper.event("error")["what"])


if __name__ == "__main__":
    unittest.main()
