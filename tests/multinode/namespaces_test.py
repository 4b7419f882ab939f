"""Two nodes: the same tokens and ranges as one process, and lost ranks of the other node come back."""
import os
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from ranks import all_answers, answer_of, fixed_requests, health, num_restarts, wait_until
from network_namespaces import Nodes, main, why_not
from serving import Server, children
from two_nodes import TwoNodeServer

MASTER_PORT = 29501  # the default
NO_NAMESPACES = why_not()


def rank_pids(server: TwoNodeServer) -> list[int]:
    """Of node 1. `ip netns exec` becomes the agent, whose children the ranks are."""
    return children(server.worker.pid)


@unittest.skipIf(NO_NAMESPACES, NO_NAMESPACES)
class Namespaces(unittest.TestCase):
    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        cls.nodes = Nodes(cable=True).__enter__()
        cls.addClassCleanup(cls.nodes.close)
        with Server() as server:
            cls.expected = all_answers(server)
        with Server(args=("--enable-expert-parallel",)) as server:
            cls.expected_ep = all_answers(server)

    def test_equality(self):
        for num_ranks, flags, expected in ((2, (), self.expected), (4, (), self.expected),
                                           (2, ("--enable-expert-parallel",), self.expected_ep),
                                           (4, ("--enable-expert-parallel",), self.expected_ep)):
            with self.subTest(num_ranks=num_ranks, flags=flags), TwoNodeServer(self.nodes, num_ranks, *flags) as server:
                self.assertEqual(all_answers(server), expected)
                self.assertEqual(server.stop(signal.SIGTERM), 0)
                self.assertEqual(server.stop_worker(), 0, server.worker_lines)

    def test_calibration(self):
        with tempfile.TemporaryDirectory() as folder:
            server = TwoNodeServer(self.nodes, 2)
            binary = server.command[server.command.index("serve") - 1]
            flags = [binary, "calibrate", "--model", "models/nano", "--data", "models/nano/calibration.jsonl",
                     "--threads", "1", "--nprompts", "4", "--prompt-len", "128", "--osl", "4", "--wd", "2"]
            subprocess.run([*flags, "-o", f"{folder}/one"], check=True, cwd="../..", capture_output=True, timeout=300)
            flags += ["--tensor-parallel-size", "2", "--nnodes", "2", "--master-addr", self.nodes.address(0)]
            with subprocess.Popen(self.nodes.command(1, *flags, "--node-rank", "1", "--headless"), env=server.env,
                                  cwd="../..", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as other:
                done = subprocess.run(self.nodes.command(0, *flags, "-o", f"{folder}/two"), env=server.env, cwd="../..",
                                      capture_output=True, text=True, timeout=300)
                if done.returncode != 0:
                    other.kill()
                lines = other.communicate(timeout=60)[0]
            self.assertEqual(done.returncode, 0, done.stderr + lines)
            self.assertEqual(other.returncode, 0, lines)
            self.assertIn("node 1", done.stdout)
            one, two = (sorted(Path(folder, name).iterdir()) for name in ("one", "two"))
            self.assertEqual([path.name for path in one], [path.name for path in two])
            for a, b in zip(one, two):
                self.assertEqual(a.read_bytes(), b.read_bytes(), a.name)

    def test_a_rank_of_the_other_node_is_killed(self):
        with TwoNodeServer(self.nodes, 2) as server:
            os.kill(rank_pids(server)[0], signal.SIGKILL)
            wait_until("a restart", lambda: num_restarts(server) == 1)
            self.assertTrue(any("rank 1 (node 1): ended: signal 9 (Killed)" in line for line in server.lines),
                            server.lines[-20:])
            wait_until("ready again", lambda: health(server)[0] == 200)
            self.assertEqual(answer_of(server, fixed_requests()[0]), self.expected[0])

    def test_a_rank_of_the_other_node_freezes(self):
        with TwoNodeServer(self.nodes, 2, "--rank-timeout", "2") as server:
            os.kill(rank_pids(server)[0], signal.SIGSTOP)
            wait_until("a restart", lambda: num_restarts(server) >= 1)
            wait_until("ready again", lambda: health(server)[0] == 200)
            self.assertEqual(answer_of(server, fixed_requests()[0]), self.expected[0])

    def test_the_cable_is_pulled(self):
        with TwoNodeServer(self.nodes, 2, "--rank-timeout", "2") as server:
            self.nodes.set_link(1, up=False)
            wait_until("noticed", lambda: health(server)[0] == 503)
            self.nodes.set_link(1, up=True)
            wait_until("ready again", lambda: health(server)[0] == 200)
            self.assertEqual(answer_of(server, fixed_requests()[0]), self.expected[0])

    def test_through_a_firewall(self):
        """docs/multi-node.md: rank 0's port and the system's range are all that must be open, both ways."""
        low, high = 40000, 40499
        for addresses in (("10.77.0.1", "10.77.0.2"), ("10.77.0.2", "10.77.0.1")):  # the lower one listens
            with self.subTest(addresses=addresses), Nodes(addresses=addresses, cable=True) as nodes:
                for node in (0, 1):
                    setting = nodes.command(node, "sysctl", "-qw", f"net.ipv4.ip_local_port_range={low} {high}")
                    if subprocess.run(setting, capture_output=True).returncode != 0:
                        self.skipTest("/proc/sys cannot be written here")
                    nodes.block_tcp(node, 1 - node, ports=(1, MASTER_PORT - 1))
                    nodes.block_tcp(node, 1 - node, ports=(MASTER_PORT + 1, low - 1))
                    nodes.block_tcp(node, 1 - node, ports=(high + 1, 65534))
                with TwoNodeServer(nodes, 4) as server:
                    self.assertEqual(answer_of(server, fixed_requests()[0]), self.expected[0])

    def test_without_a_token(self):
        server = TwoNodeServer(self.nodes, 2)
        env = {name: value for name, value in server.env.items() if name != "HADAL_AUTH_TOKEN"}
        for command in (server.command, server.worker_command):
            ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, cwd="../..")
            self.assertEqual(ended.returncode, 2, ended.stderr)
            self.assertIn("HADAL_AUTH_TOKEN", ended.stderr)

    def test_a_wrong_token(self):
        server = TwoNodeServer(self.nodes, 2, "--join-timeout", "30")
        head = subprocess.Popen(server.command, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, cwd="../..", start_new_session=True)
        ended = subprocess.run(server.worker_command, env={**server.env, "HADAL_AUTH_TOKEN": "other"},
                               capture_output=True, text=True, timeout=120, cwd="../..")
        os.killpg(head.pid, signal.SIGKILL)
        head.communicate()
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertIn("wrong token", ended.stderr)


if __name__ == "__main__":
    main()
