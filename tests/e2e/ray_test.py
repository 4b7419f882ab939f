"""Real Ray, from PyPI: two nodes in two network namespaces, joined as the Gaudi guide joins them. The helper alone first, with
shells for agents: agents run on their node, are followed, and end with whatever dies above them. Then hadal on both nodes.
The tests build on each other: the cluster grows.
Needs the right to make network namespaces (root), and PyPI or a build folder that has Ray already."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from network_namespaces import Nodes, address, main, why_not
from ranks_answers import answers, answers_of_one_process
from ray_helper import PATIENCE, Helper, ends
from serving import REPOSITORY, Server
from virtual_environment import Unavailable, make_environment

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
HEAD, WORKER = address(0), address(1)
NO_NAMESPACES = why_not()
RAY = "ray==2.60.0"
PORT = 8850


class RayNodes(Nodes):
    """With Ray of this folder, and one folder for its files."""

    def __init__(self, bin_folder: Path):
        self.folder = Path(tempfile.mkdtemp(prefix="hray"))  # short: sockets lie below it
        self.python = str(bin_folder / "python3")
        super().__init__(cable=True, environment={
            "PATH": f"{bin_folder}:{os.environ['PATH']}", "RAY_TMPDIR": str(self.folder), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"})

    def start_head(self) -> None:
        """As the guide does."""
        self.shell(0, f"source scripts/quickstart/set_head_node.sh {HEAD} eth0 && "
                      f"ray start --head --node-ip-address=$VLLM_HOST_IP --port={PORT}")

    def start_worker(self) -> None:
        self.shell(1, f"source scripts/quickstart/set_worker_node.sh {HEAD} {WORKER} eth0 && "
                      f"ray start --address='{HEAD}:{PORT}'")

    def shell(self, node: int, command: str) -> None:
        done = subprocess.run(self.command(node, "bash", "-c", command), env=self.environment, cwd=REPOSITORY, text=True,
                              timeout=300, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise AssertionError(f"{command}: {done.stdout}")

    def agents(self) -> list[int]:
        """Processes of hadal on the worker."""
        return [pid for pid in self.processes(1) if Path(f"/proc/{pid}/exe").resolve() == BINARY.resolve()]

    def close(self) -> None:
        super().close()
        shutil.rmtree(self.folder, ignore_errors=True)


@unittest.skipIf(NO_NAMESPACES, NO_NAMESPACES)
class RealRay(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            packages = make_environment("ray", RAY)
        except Unavailable as why:
            raise unittest.SkipTest(str(why)) from why
        cls.nodes = RayNodes(packages).__enter__()
        cls.addClassCleanup(cls.nodes.close)

    def helper(self, world_size: int = 2, nnodes: int = 0, program: str = "/bin/true") -> Helper:
        helper = Helper(self.nodes.command(0, self.nodes.python), env=self.nodes.environment)
        self.addCleanup(helper.end)
        helper.order("prepare", world_size=world_size, nnodes=nnodes, program=program)
        return helper

    def test_1_without_a_cluster(self):
        error = self.helper().event("error")
        self.assertEqual(error["code"], "unavailable")
        self.assertIn("no Ray cluster runs on this machine: ray start --head", error["what"])

    def test_2_one_node_of_two(self):
        self.nodes.start_head()
        error = self.helper(nnodes=2).event("error")
        self.assertEqual(error["code"], "resource_exhausted")
        self.assertIn("2 ranks need 2 nodes", error["what"])
        self.assertIn(f"ray start --address='{HEAD}:{PORT}'", error["what"])
        self.assertEqual(self.helper(nnodes=1).event("layout")["ranks_per_node"], [2])

    def test_3_agents_live_and_die(self):
        self.nodes.start_worker()
        helper = self.helper()
        layout = helper.event("layout")
        self.assertEqual((layout["ranks_per_node"], layout["nodes"]), ([1, 1], [HEAD, WORKER]))
        helper.start(1, 'ip -4 -o addr show eth0; echo "$HADAL_RANK"; exit 3', HADAL_RANK="1")
        lines = [helper.events.get(timeout=PATIENCE)["what"] for _ in range(3)]
        self.assertIn(WORKER, lines[0])
        self.assertEqual(lines[1:], ["1", "exit code 3"])

        killed = helper.start(1, "exec sleep 1000")
        helper.order("kill", node=1)
        self.assertIn("signal 9", helper.event("exited")["what"])
        self.assertTrue(ends(killed))

        # The actor dies, and the agent with it; a new one is made for the next start.
        orphan = helper.start(1, "echo $PPID; exec sleep 1000")
        actor = int(helper.event("log")["what"])
        os.kill(actor, signal.SIGKILL)
        self.assertEqual(helper.event("lost")["node"], 1)
        self.assertTrue(ends(orphan))
        last = helper.start(1, "exec sleep 1000")

        # The helper dies, and all that it started with it.
        helper.process.kill()
        self.assertTrue(ends(last))

    def test_4_another_program_there(self):
        # The same path on both "machines" is the same file here, unless the mounts differ.
        helper = self.helper(program="/proc/self/environ")
        error = helper.event("error")
        self.assertEqual(error["code"], "invalid_argument")
        self.assertIn("/proc/self/environ is not the same program on all nodes", error["what"])


    def serve(self, *args: str) -> Server:
        return Server(args=("--distributed-executor-backend", "ray", *args), host=self.nodes.cable_address,
                      inside=self.nodes.command(0),
                      env={**self.nodes.environment, "VLLM_HOST_IP": HEAD, "GLOO_SOCKET_IFNAME": "eth0"})

    def wait_for_health(self, server: Server, status: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while (found := server.call("GET", "/health")[0]) != status:
            self.assertLess(time.monotonic(), deadline, f"/health says {found}\n" + "\n".join(server.lines))
            time.sleep(0.05)

    def test_5_serves_with_the_tokens_of_one_process_and_heals(self):
        expected = answers_of_one_process()
        with self.serve("--tensor-parallel-size", "2") as server:
            self.assertEqual(answers(server), expected)
            self.assertGreaterEqual(len(self.nodes.agents()), 2)  # the agent and its rank
            for what in ("processes", "their parent"):
                killed = self.nodes.agents()
                if what == "their parent":  # Ray's actor; the others end with it
                    killed = [pid for pid in map(parent, killed) if pid not in killed]
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
                self.wait_for_health(server, 503)
                self.wait_for_health(server, 200)
                self.assertEqual(answers(server), expected, what)
        deadline = time.monotonic() + PATIENCE
        while self.nodes.agents() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(self.nodes.agents(), [])

    def test_6_four_ranks_on_two_nodes(self):
        with self.serve("--tensor-parallel-size", "4") as server:
            self.assertEqual(answers(server), answers_of_one_process())

    def test_7_what_does_not_fit_is_said_before_anything_is_loaded(self):
        server = self.serve("--tensor-parallel-size", "64", "--nnodes", "4")
        done = subprocess.run(server.command, env=server.env, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 1, done.stderr)
        for text in ("64 ranks need 4 nodes with 16 CPUs each, and Ray has 2", "(missing)", f"ray start --address='{HEAD}:{PORT}'"):
            self.assertIn(text, done.stderr)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


if __name__ == "__main__":
    main()
