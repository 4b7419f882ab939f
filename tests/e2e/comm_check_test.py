"""hadal comm check between network namespaces: passes where all is well, and names every injected fault, with what to do,
within a minute."""
from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import network_namespaces
from network_namespaces import Nodes
from serving import REPOSITORY

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
NO_NAMESPACES = network_namespaces.why_not()
NO_TC = NO_NAMESPACES or ("" if shutil.which("tc") else "no `tc` command (package iproute2)")
MOST_SECONDS = 60


class Check:
    """One run of the command on one node."""

    def __init__(self, nodes: Nodes, node: int, *args: str, count: int = 2, binary: Path = BINARY, wait: float = 5,
                 master: str = "", rank: int | None = None, **environment: str):
        self.began = time.monotonic()
        self.process = nodes.start(node, [str(binary), "comm", "check", "--json", "--nnodes", str(count), "--node-rank",
                                          str(node if rank is None else rank), "--master-addr", master or nodes.address(0), "--timeout",
                                          str(wait), *args], **environment)

    def report(self) -> dict:
        output, errors = self.process.communicate(timeout=MOST_SECONDS + 60)
        took = time.monotonic() - self.began
        assert took < MOST_SECONDS, f"{took:.0f} s"
        assert output, errors
        report = json.loads(output)
        assert self.process.returncode == (0 if report["pass"] else 1), errors
        assert report["pass"] == (not report["faults"])
        assert all(fault["found"] and fault["fix"] for fault in report["faults"])
        return report

    def faults(self) -> dict[str, dict]:
        return {fault["name"]: fault for fault in self.report()["faults"]}


@unittest.skipIf(NO_NAMESPACES, NO_NAMESPACES)
class CommCheck(unittest.TestCase):
    def names(self, *checks: Check) -> list[list[str]]:
        return [sorted(check.faults()) for check in checks]

    def test_passes_and_measures_every_pair(self):
        with Nodes(3) as nodes:
            checks = [Check(nodes, node, count=3, wait=30) for node in range(3)]
            for check in checks:
                report = check.report()
                self.assertTrue(report["pass"], report["faults"])
                self.assertEqual({(pair["from"], pair["to"]) for pair in report["pairs"]}, {(1, 0), (2, 0), (2, 1)})
                for pair in report["pairs"]:
                    self.assertGreater(pair["bandwidth_bytes_per_second"], 0)
                    self.assertGreater(pair["latency_us"], 0)
                self.assertEqual([node["interface"] for node in report["nodes"]], ["eth0"] * 3)
                self.assertEqual([node["mtu"] for node in report["nodes"]], [1500] * 3)

    def test_text_for_people(self):
        with Nodes(2) as nodes:
            other = Check(nodes, 1, wait=30)
            done = subprocess.run(nodes.command(0, str(BINARY), "comm", "check", "--nnodes", "2", "--node-rank", "0",
                                                "--master-addr", nodes.address(0), "--min-bandwidth", "1000000"),
                                  capture_output=True, text=True, timeout=120)
            other.report()
            self.assertEqual(done.returncode, 1)
            self.assertIn("bandwidth, GB/s", done.stdout)
            self.assertIn("FAULT low-bandwidth: ", done.stdout)
            self.assertIn("to do: ", done.stdout)

    def test_a_node_alone(self):
        with Nodes(2) as nodes:
            self.assertEqual(self.names(Check(nodes, 0, wait=2)), [["node-missing"]])
            self.assertEqual(self.names(Check(nodes, 1, wait=2)), [["port-refused"]])

    def test_wrong_interface_and_names(self):
        with Nodes(2) as nodes:
            fault = Check(nodes, 1, "--interface", "eno1").faults()["interface-unknown"]
            self.assertIn("eth0 10.77.0.2", fault["found"])
            self.assertEqual(self.names(Check(nodes, 1, GLOO_SOCKET_IFNAME="ib0")), [["interface-unknown"]])
            self.assertEqual(self.names(Check(nodes, 1, HCCL_SOCKET_IFNAME="ib0")), [["interface-unknown"]])
            self.assertEqual(self.names(Check(nodes, 1, master="192.0.2.7", wait=2)), [["no-route"]])
            self.assertEqual(self.names(Check(nodes, 1, master="no-such-head.invalid")), [["name-unknown"]])

    def test_the_loopback_interface_between_nodes(self):
        with Nodes(2) as nodes:
            self.assertEqual(self.names(Check(nodes, 0, wait=2), Check(nodes, 1, "--interface", "lo")),
                             [["node-missing"], ["loopback"]])
            self.assertEqual(self.names(Check(nodes, 0, "--interface", "lo")), [["loopback"]])

    def test_loopback_in_etc_hosts(self):
        with Nodes(2) as nodes:
            folder = Path("/etc/netns") / nodes.names[0]  # ip netns exec puts it in the place of /etc/hosts
            folder.mkdir(parents=True)
            try:
                (folder / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 head\n")
                fault = Check(nodes, 0, master="head").faults()["loopback"]
                self.assertIn("/etc/hosts", fault["fix"])
            finally:
                shutil.rmtree(folder)

    def test_dropped_packets_are_not_a_refusal(self):
        with Nodes(2) as nodes:
            nodes.ip(1, "neighbour", "add", nodes.address(0), "lladdr", "02:00:00:00:00:01", "dev", "eth0")
            self.assertEqual(self.names(Check(nodes, 1, wait=3)), [["port-blocked"]])

    def test_ports_that_this_node_itself_blocks(self):
        for ports in ((29500, 29500), (20000, 20000)):
            with Nodes(2) as nodes:
                nodes.block_tcp(1, 0, ports=ports)
                checks = Check(nodes, 0, "--probe-port", "20000", wait=3), Check(nodes, 1, wait=3)
                told = [check.faults() for check in checks]
                self.assertIn("own firewall or routes", told[1]["port-blocked"]["fix"])

    def test_a_taken_port_and_a_stranger_on_it(self):
        with Nodes(2) as nodes:
            silent = subprocess.Popen(nodes.command(0, "python3", "-c", "import socket, time\n"
                                                    "s = socket.socket(); s.bind(('10.77.0.1', 29500)); s.listen(9)\n"
                                                    "print('ready', flush=True); time.sleep(100)"),
                                      stdout=subprocess.PIPE, text=True)
            try:
                silent.stdout.readline()
                self.assertEqual(self.names(Check(nodes, 0), Check(nodes, 1, wait=3)), [["port-taken"], ["not-hadal"]])
            finally:
                silent.kill()
                silent.communicate()

    def test_wrong_token(self):
        with Nodes(2) as nodes:
            checks = Check(nodes, 0, "--token", "a"), Check(nodes, 1, "--token", "b")
            self.assertEqual(self.names(*checks), [["node-missing"], ["wrong-token"]])

    def test_another_binary_model_and_environment(self):
        with Nodes(2) as nodes, tempfile.TemporaryDirectory() as folder:
            binary = Path(folder) / "hadal"
            shutil.copy(BINARY, binary)
            with binary.open("ab") as file:
                file.write(b"\n")
            model = Path(folder) / "model"
            shutil.copytree(REPOSITORY / "models/nano", model, symlinks=False)
            config = json.loads((model / "config.json").read_text())
            (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
            checks = (Check(nodes, 0, "--model", str(REPOSITORY / "models/nano"), wait=30, VLLM_MOE_N_SLICE="1"),
                      Check(nodes, 1, "--model", str(model), wait=30, binary=binary, VLLM_MOE_N_SLICE="8"))
            expected = ["binary-differs", "config-differs", "model-differs"]
            self.assertEqual(self.names(*checks), [expected, expected])

    def test_a_model_that_is_not_there(self):
        with Nodes(2) as nodes:
            checks = (Check(nodes, 0, "--model", str(REPOSITORY / "models/nano"), wait=30),
                      Check(nodes, 1, "--model", "/no/such/model", wait=30))
            self.assertEqual(self.names(*checks), [["model-differs"], ["model-differs", "model-unreadable"]])

    def test_another_world_size(self):
        with Nodes(2) as nodes:
            checks = Check(nodes, 0), Check(nodes, 1, count=3)
            for names in self.names(*checks):
                self.assertIn("world-size-differs", names)

    def test_two_nodes_with_one_rank(self):
        with Nodes(3) as nodes:
            checks = [Check(nodes, 0, count=3, wait=20),
                      Check(nodes, 1, count=3, wait=20),
                      Check(nodes, 2, count=3, wait=20, rank=1)]
            for check in checks:
                self.assertIn("duplicate-node", check.faults())

    def test_mtu_differs(self):
        with Nodes(2) as nodes:
            nodes.ip(1, "link", "set", "eth0", "mtu", "1400")
            for names in self.names(Check(nodes, 0, wait=30), Check(nodes, 1, wait=30)):
                self.assertIn("mtu-differs", names)

    def test_large_packets_vanish(self):
        with Nodes(2, mtu=9000) as nodes:
            for node in (0, 1):  # every packet on its own, as on a wire
                nodes.ip(node, "link", "set", "eth0", "gso_max_segs", "1")
                nodes.switch_ip("link", "set", nodes.port(node), "mtu", "1500")
            for names in self.names(Check(nodes, 0, wait=30), Check(nodes, 1, wait=30)):
                self.assertEqual(names, ["mtu-black-hole"])


@unittest.skipIf(NO_TC, NO_TC)
class WhileMeasuring(unittest.TestCase):
    """The link is slow, so that there is time to do harm in."""

    def harm(self, action) -> list[dict[str, dict]]:
        with Nodes(2) as nodes:
            network_namespaces.run(*nodes.command(1, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "50mbit",
                                                  "burst", "64k", "limit", "256k"))
            checks = [Check(nodes, node, wait=30) for node in (0, 1)]
            interface = nodes.command(1, "cat", "/sys/class/net/eth0/statistics/tx_bytes")
            while int(subprocess.check_output(interface)) < 1_000_000:  # the measurement of bandwidth has begun
                time.sleep(0.05)
            victim = action(nodes, checks)
            told = [check.faults() for check in checks if check is not victim]
            if victim is not None:
                victim.process.kill()
                victim.process.communicate()
            return told

    def test_a_dead_peer(self):
        def kill(_, checks):
            checks[1].process.send_signal(signal.SIGKILL)
            return checks[1]
        self.assertIn("peer-dead", self.harm(kill)[0])

    def test_a_frozen_peer(self):
        def freeze(_, checks):
            checks[1].process.send_signal(signal.SIGSTOP)
            return checks[1]
        self.assertIn("peer-frozen", self.harm(freeze)[0])

    def test_a_link_that_goes_down(self):
        def cut(nodes, _):
            nodes.set_link(1, up=False)
        for faults in self.harm(cut):
            self.assertTrue({"link-stalls", "peer-frozen", "peer-dead"} & set(faults), faults)

    def test_a_slow_link(self):
        for faults in self.harm(lambda *_: None):
            self.assertEqual(faults, {})


if __name__ == "__main__":
    network_namespaces.main()
