"""Real Ray, from PyPI: two nodes in two network namespaces, joined as the Gaudi guide joins them. The helper alone first, with
shells for agents: agents run on their node, are followed, and end with whatever dies above them.
Needs the right to make network namespaces (root), and PyPI or a build folder that has Ray already."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from ray_helper import PATIENCE, Helper, ends, lives
from serving import REPOSITORY
from virtual_environment import SKIPPED, Unavailable, make_environment

RAY = "ray==2.60.0"
PORT = 8850
BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"


class TwoMachines:
    """Network namespaces `head` and `worker`, a cable between them, and one folder for Ray's files."""

    def __init__(self, bin_folder: Path):
        mark = f"hray{os.getpid()}"
        self.spaces = {"head": f"{mark}h", "worker": f"{mark}w"}
        self.addresses = {"head": "10.77.0.1", "worker": "10.77.0.2"}
        self.folder = Path(tempfile.mkdtemp(prefix="hray"))  # short: sockets lie below it
        self.env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "RAY_TMPDIR": str(self.folder),
                    "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token",
                    "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}
        self.python = str(bin_folder / "python3")

    def join(self) -> None:
        """Raises Unavailable without the right to."""
        head, worker = self.spaces.values()
        for command in (f"ip netns add {head}", f"ip netns add {worker}",
                        f"ip link add eth0 netns {head} type veth peer name eth0 netns {worker}",
                        *(f"ip -n {self.spaces[name]} {what}" for name, address in self.addresses.items()
                          for what in (f"addr add {address}/24 dev eth0", "link set lo up", "link set eth0 up"))):
            try:
                subprocess.run(command.split(), check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise Unavailable(f"{command}: {getattr(error, 'stderr', error)}") from error

    def inside(self, name: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.spaces[name], *command]

    def run(self, name: str, command: str) -> str:
        done = subprocess.run(self.inside(name, "bash", "-c", command), env=self.env, cwd=REPOSITORY, text=True, timeout=300,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise AssertionError(f"{command}: {done.stdout}")
        return done.stdout

    def start_head(self) -> str:
        return self.run("head", f"ray start --head --node-ip-address={self.addresses['head']} --port={PORT}")

    def start_worker(self) -> str:
        return self.run("worker", f"ray start --address='{self.addresses['head']}:{PORT}'")

    def processes(self, name: str) -> list[int]:
        done = subprocess.run(["ip", "netns", "pids", self.spaces[name]], capture_output=True, text=True)
        return [int(pid) for pid in done.stdout.split()]

    def close(self) -> None:
        for name in self.spaces:
            for pid in self.processes(name):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            subprocess.run(["ip", "netns", "del", self.spaces[name]], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class RealRay(unittest.TestCase):
    machines: TwoMachines

    def helper(self, world_size: int = 2, nnodes: int = 0, program: str = "/bin/true") -> Helper:
        helper = Helper(self.machines.inside("head", self.machines.python), env=self.machines.env)
        self.addCleanup(helper.end)
        helper.order("prepare", world_size=world_size, nnodes=nnodes, program=program)
        return helper

    def test_1_without_a_cluster(self):
        error = self.helper().event("error")
        self.assertEqual(error["code"], "unavailable")
        self.assertIn("no Ray cluster runs on this machine: ray start --head", error["what"])

    def test_2_one_node_of_two(self):
        self.machines.start_head()
        error = self.helper(nnodes=2).event("error")
        self.assertEqual(error["code"], "resource_exhausted")
        self.assertIn("2 ranks need 2 nodes", error["what"])
        self.assertIn(f"ray start --address='{self.machines.addresses['head']}:{PORT}'", error["what"])
        self.assertEqual(self.helper(nnodes=1).event("layout")["ranks_per_node"], [2])

    def test_3_agents_live_and_die(self):
        self.machines.start_worker()
        helper = self.helper()
        layout = helper.event("layout")
        self.assertEqual((layout["ranks_per_node"], layout["nodes"]), ([1, 1], list(self.machines.addresses.values())))
        helper.start(1, 'ip -4 -o addr show eth0; echo "$HADAL_RANK"; exit 3', HADAL_RANK="1")
        lines = [helper.events.get(timeout=PATIENCE)["what"] for _ in range(3)]
        self.assertIn(self.machines.addresses["worker"], lines[0])
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


def main() -> None:
    if shutil.which("ip") is None:
        print("skipped: there is no ip (iproute2)")
        sys.exit(SKIPPED)
    try:
        RealRay.machines = TwoMachines(make_environment("ray", RAY))
    except Unavailable as why:
        print(f"skipped: no Ray: {why}")
        sys.exit(SKIPPED)
    try:
        try:
            RealRay.machines.join()
        except Unavailable as why:
            print(f"skipped: no network namespaces: {why}")
            sys.exit(SKIPPED)
        unittest.main(exit=True)
    finally:
        RealRay.machines.close()


if __name__ == "__main__":
    main()
