"""hadal comm bench: hccl_demo's command lines on one machine and between two nodes; every result is checked, every line
has the peer's form."""
from __future__ import annotations

import os
import re
import signal
import socket
import struct
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

HEADLINE = re.compile(r"(#+)\n\[BENCHMARK\] (hccl\w+\(dataSize=\d+, count=\d+, dtype=\w+, iterations=\d+\))\n"
                      r"\[BENCHMARK\]     NW Bandwidth   : \d+\.\d{6} GB/s\n"
                      r"\[BENCHMARK\]     Algo Bandwidth : \d+\.\d{6} GB/s\n(#+)\n")


def bench(*args: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(BINARY), "comm", "bench", *args], env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=300)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class OneMachine(unittest.TestCase):
    def check_lines(self, output: str, ranks: set[int]) -> None:
        fine = re.findall(r"^rank=(\d+) size=\d+ <\w+> Input Buffer \[[^]]*\.\.\.\] Output Buffer \[[^]]*\.\.\.\] which "
                          r"is fine\.$", output, re.MULTILINE)
        self.assertEqual({int(rank) for rank in fine}, ranks, output)

    def test_all_reduce_as_the_guide_types_it(self):
        for ranks in (2, 4):
            done = bench("--test", "all_reduce", "--nranks", str(ranks), "--loop", "10", "--size", "1m",
                         "--ranks_per_node", str(ranks), "--node_id", "0", HCCL_COMM_ID=f"127.0.0.1:{free_port()}")
            self.assertEqual(done.returncode, 0, done.stderr)
            found = HEADLINE.search(done.stdout)
            self.assertTrue(found, done.stdout)
            self.assertEqual(found[2], "hcclAllReduce(dataSize=1048576, count=262144, dtype=float, iterations=10)")
            self.assertEqual(len(found[1]), len(found[2]) + 12)
            self.check_lines(done.stdout, set(range(ranks)))

    def test_every_test(self):
        done = bench("--test", "all", "--nranks", "3", "--loop", "5", "--size", "24k", "--data_type", "bfloat16")
        self.assertEqual(done.returncode, 0, done.stderr)
        names = re.findall(r"\[BENCHMARK\] (hccl\w+)\(", done.stdout)
        self.assertEqual(set(names), {"hcclBroadcast", "hcclAllReduce", "hcclReduceScatter", "hcclAllGather",
                                      "hcclSendRecv", "hcclReduce", "hcclAlltoAll"})
        self.assertEqual(names.count("hcclSendRecv"), 3, "every rank prints")

    def test_size_range_and_files(self):
        with tempfile.TemporaryDirectory() as folder:
            csv = Path(folder) / "results.csv"
            done = bench("--nranks", "2", "--test", "all_gather", "--loop", "3", "--size_range", "32", "128",
                         "--result_csv", str(csv), "--data_csv", folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("Processing data_size 32\n", done.stdout)
            table = done.stdout[done.stdout.index("[BANDWIDTH SUMMARY REPORT]"):].splitlines()
            self.assertEqual(table[1], "(src!=dst, collective=all_gather, iterations=3)")
            self.assertEqual([row.split()[0] for row in table[5:8]], ["32", "64", "128"])
            lines = csv.read_text().splitlines()
            self.assertEqual([line.split(",")[:5] for line in lines],
                             [["all_gather", "0", "float", size, "3"] for size in ("32", "64", "128")])
            dumps = sorted(path.name.rsplit("_", 2)[0] for path in Path(folder).glob("HCCL_demo_*"))
            self.assertEqual(dumps, [f"HCCL_demo_all_gather_{which}_{rank}" for which in ("input", "output")
                                     for rank in (0, 1)])
            for path in Path(folder).glob("HCCL_demo_*_input_*"):
                self.assertEqual(len(path.read_text().splitlines()), 8 + 16 + 32, "of all sizes")

    def test_latency_subset_and_pairs(self):
        done = bench("--nranks", "4", "--test", "broadcast", "--measure", "latency", "--size", "64", "--loop", "4",
                     "--custom_comm", "1,3", "--test_root", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"Host Latency   : \d+\.\d{6} ms\n")
        self.check_lines(done.stdout, {3})
        done = bench("--nranks", "4", "--test", "all_reduce", "--size", "64", "--loop", "4", "--custom_comm", "2,3")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("the root is rank 2", done.stderr)
        self.check_lines(done.stdout, {2, 3})
        self.assertEqual(done.stdout.count("[BENCHMARK] hcclAllReduce("), 1)
        done = bench("--nranks", "3", "--test", "send_recv", "--size", "1k", "--loop", "4", "--ranks_list", "0,2,1,2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(re.findall(r"hcclSendRecv\w*", done.stdout), ["hcclSendRecv_rank_2"])

    def test_other_reductions(self):
        for op, outputs in (("min", "0 3 6 9"), ("max", "2 5 8 11")):
            done = bench("--nranks", "3", "--test", "all_reduce", "--loop", "2", "--size_range", "64", "64",
                         "--reduction_op", op)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.count(f"Output Buffer [{outputs} ...] which is fine."), 3, done.stdout)
            self.assertRegex(done.stdout, rf"\n64 +16 +float +{op} +")

    def test_lists_and_documents(self):
        for flag in ("--list_tests", "--list-tests", "-list"):
            done = bench(flag)
            self.assertEqual((done.returncode, done.stdout.split()),
                             (0, ["broadcast", "all_reduce", "reduce_scatter", "all_gather", "send_recv", "reduce",
                                  "all2all"]), done.stderr)
        done = bench("--doc")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("HCCL_COMM_ID", done.stdout)
        done = bench("-clean", "-no_color", "--nranks", "1", "--loop", "1", "--size", "4")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_port_of_one_machine_needs_a_token_too(self):
        running = subprocess.Popen([str(BINARY), "comm", "bench", "--nranks", "2", "--size", "1k", "--loop", "100000000"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            running.stdout.readline()  # the ranks have met
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
            own = {os.readlink(path) for path in Path(f"/proc/{children[0]}/fd").iterdir() if path.is_symlink()}
            rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]
            self.assertEqual([where.split(":")[0] for where in listening], ["0100007F"], "127.0.0.1 alone")
            with socket.create_connection(("127.0.0.1", int(listening[0].split(":")[1], 16))) as stranger:
                greeting = b"\x01" + struct.pack("<I", 0) + struct.pack("<I", 6) + b"rank=1"
                stranger.sendall(struct.pack("<I", len(greeting)) + greeting)
                stranger.settimeout(60)
                self.assertIn(b"wrong token", stranger.recv(4096))
        finally:
            running.kill()
            running.communicate()

    def test_a_letter_that_is_no_unit_means_bytes(self):
        done = bench("--nranks", "2", "--size", "64x", "--loop", "2", HCCL_GAUDI_DIRECT="1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("x is no unit", done.stderr)
        self.assertIn("hcclBroadcast(dataSize=64, count=16,", done.stdout)

    def test_refusals_say_what_to_do(self):
        for args, words in ((["--nranks", "16", "--ranks_per_node", "8"], "HCCL_COMM_ID=<address of node 0>"),
                            ([], "--nranks N is required"),
                            (["--nranks", "2", "--test", "allreduce"], "did you mean all_reduce?"),
                            (["--nranks", "2", "--size", "32mx"], "32M"),
                            (["--nranks", "2", "--reduction_op", "prod"], "sum, min or max"),
                            (["--nranks", "100000"], "at most 1024"),
                            (["--nranks", "3", "--loop", "0"], "--loop 0: 1 .. "),
                            (["--nranks", "3", "--loop", "99999999999999999999"], "1 .. 1000000000000 iterations"),
                            (["--nranks", "3", "--test_root", "3"], "--test_root 3: 3 ranks"),
                            (["--nranks", "3", "--test", "all2all", "--size", "8"], "needs at least 12 bytes"),
                            (["--nranks", "3", "--test", "send_recv", "--ranks_list", "0,3"], "0,3 of 3 ranks"),
                            (["--nranks", "2", "--ranks_lst", "0,1"], "did you mean --ranks-list")):
            done = bench(*args)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(words, done.stderr)
            self.assertEqual(done.stderr.count(words), 1, "told once")

    def test_too_large_for_the_machine(self):
        done = bench("--nranks", "2", "--size", "900G", "--loop", "1")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stderr, r"--size 966367641600: .* need 9000\.0 GiB of memory at least, [0-9.]+ are free")

    def test_a_killed_rank_ends_all(self):
        running = subprocess.Popen([str(BINARY), "comm", "bench", "--nranks", "3", "--size", "1k", "--loop", "100000000"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.stdout.readline()  # the ranks have met
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        os.kill(int(children[2]), signal.SIGKILL)
        began = time.monotonic()
        _, errors = running.communicate(timeout=60)
        self.assertLess(time.monotonic() - began, 30)
        self.assertEqual(running.returncode, 1, errors)
        self.assertIn("rank 2 was ended by signal 9", errors)
        # In the broadcast, or still in the barrier before it.
        self.assertRegex(errors, r"rank 0 in \w+ of \d+ bytes .*rank 2 \(process \d+\) has died|rank \d gave up")


@unittest.skipIf(NO_NAMESPACES, NO_NAMESPACES)
class TwoNodes(unittest.TestCase):
    def run_on_both(self, nodes: Nodes, *args: str, **environment: str) -> list[tuple[int, str, str]]:
        running = [nodes.start(node, [str(BINARY), "comm", "bench", *args, "--node_id", str(node)],
                               HCCL_COMM_ID=f"{nodes.address(0)}:5555", **environment) for node in (0, 1)]
        done = [process.communicate(timeout=300) for process in running]
        return [(process.returncode, *texts) for process, texts in zip(running, done)]

    def test_the_same_command_on_both(self):
        with Nodes(2) as nodes:
            for ranks, per_node in ((2, 1), (4, 2), (6, 3)):
                results = self.run_on_both(nodes, "--test", "all", "--nranks", str(ranks), "--ranks_per_node",
                                           str(per_node), "--size", "192k", "--loop", "3", HCCL_SOCKET_IFNAME="eth0")
                for code, output, errors in results:
                    self.assertEqual(code, 0, errors + output)
                    self.assertNotIn("which is bad", output)
                self.assertIn(f"{ranks} rank(s) on 2 node(s)", results[0][1])
                self.assertIn("eth0 10.77.0.1", results[0][1])
                self.assertIn("hcclAllReduce(dataSize=196608, count=49152", results[0][1])

    def test_different_commands_are_told_apart(self):
        with Nodes(2) as nodes:
            running = [nodes.start(node, [str(BINARY), "comm", "bench", "--nranks", "2", "--ranks_per_node", "1",
                                          "--loop", loop, "--node_id", str(node)],
                                   HCCL_COMM_ID=f"{nodes.address(0)}:5555") for node, loop in ((0, "10"), (1, "20"))]
            _, errors = running[1].communicate(timeout=120)
            running[0].kill()
            running[0].communicate()
            self.assertEqual(running[1].returncode, 2)
            self.assertIn("command differs: rank 0 has", errors)


if __name__ == "__main__":
    network_namespaces.main()
