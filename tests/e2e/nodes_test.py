"""Two machines, two network namespaces here, started by hand, as a LeaderWorkerSet starts pods and as srun starts tasks: the
answers of one process, and the server heals when the other machine's processes are killed. Needs the right to make network
namespaces (root)."""
from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from network_namespaces import Nodes, address, main, why_not
from ranks_answers import answers, answers_of_one_process
from serving import REPOSITORY, Server

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
HEAD = address(0)
NO_NAMESPACES = why_not()
TOKEN = {"HADAL_AUTH_TOKEN": "sesame"}
PATIENCE = 120


def lws(index: int) -> dict[str, str]:
    return {"LWS_WORKER_INDEX": str(index), "LWS_GROUP_SIZE": "2", "LWS_LEADER_ADDRESS": HEAD}


def slurm(node: int) -> dict[str, str]:
    return {"SLURM_STEP_ID": "0", "SLURM_PROCID": str(node), "SLURM_NTASKS": "2", "SLURM_NODEID": str(node), "SLURM_NNODES": "2",
            "SLURM_LOCALID": "0"}


@unittest.skipIf(NO_NAMESPACES, NO_NAMESPACES)
class TwoNodes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.nodes = Nodes(cable=True, environment=TOKEN).__enter__()
        cls.addClassCleanup(cls.nodes.close)
        cls.expected = answers_of_one_process()

    def serve(self, *args: str, env: dict[str, str] | None = None) -> Server:
        return Server(args=args, env={**self.nodes.environment, **(env or {})}, host=self.nodes.cable_address,
                      inside=self.nodes.command(0))

    def work(self, *args: str, env: dict[str, str] | None = None, inside: list[str] | None = None,
             binary: Path = BINARY) -> subprocess.Popen:
        process = subprocess.Popen([*(inside or self.nodes.command(1)), str(binary), *args],
                                   env={**self.nodes.environment, **(env or {})}, cwd=REPOSITORY, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)

        def end() -> None:
            process.kill()
            process.wait()
            process.stderr.close()

        self.addCleanup(end)
        return process

    def check(self, server: Server, worker: subprocess.Popen) -> None:
        """The answers, and that the worker ends with the server."""
        with server:
            self.assertEqual(answers(server), self.expected)
        words = worker.communicate(timeout=PATIENCE)[1]
        self.assertEqual(worker.returncode, 0, words)

    def test_by_hand(self):
        nodes = ("--nnodes", "2", "--master-addr", HEAD, "--tensor-parallel-size", "4")
        worker = self.work("worker", *nodes, "--node-rank", "1")
        self.check(self.serve(*nodes), worker)

    def test_the_heads_variables_are_everyones(self):
        """They decide about numbers; what the worker's own environment says, or does not say, is not read."""
        args = ("--nnodes", "2", "--master-addr", HEAD, "--tensor-parallel-size", "2")
        found = []
        for of_head, of_worker in (("1", "1"), ("1", "0"), ("0", "1"), ("0", "0")):
            worker = self.work("worker", *args, "--node-rank", "1", env={"VLLM_ENABLE_RUNTIME_DEQUANT": of_worker})
            with self.serve(*args, "--numerics", "gaudi2", env={"VLLM_ENABLE_RUNTIME_DEQUANT": of_head}) as server:
                found.append(answers(server))
            worker.communicate(timeout=PATIENCE)
        self.assertEqual(found[0], found[1])
        self.assertEqual(found[2], found[3])
        self.assertNotEqual(found[0], found[2])

    def test_another_build_is_refused(self):
        """Of the same version: it may compute other bits."""
        args = ("--nnodes", "2", "--master-addr", HEAD, "--tensor-parallel-size", "2")
        with tempfile.TemporaryDirectory() as folder:
            other = Path(folder, "hadal")
            other.write_bytes(BINARY.read_bytes() + b"\n")
            other.chmod(0o755)
            worker = self.work("worker", *args, "--node-rank", "1", binary=other)
            with self.assertRaisesRegex(RuntimeError, "was refused: version differs: .*build"), self.serve(*args, "--join-timeout", "5"):
                pass
            words = worker.communicate(timeout=PATIENCE)[1]
        self.assertNotEqual(worker.returncode, 0)
        self.assertRegex(words, "version differs: rank 0 has .*, build ")

    def test_measurements_that_differ_are_named(self):
        """Equal paths, other files: each rank would compute with its own scales."""
        measured = REPOSITORY / "models/nano/measurements/hadal_ranges.json"
        args = ("--nnodes", "2", "--master-addr", HEAD, "--tensor-parallel-size", "2")
        with tempfile.TemporaryDirectory() as folder:
            for name in ("own", "other"):
                Path(folder, name).mkdir()
            text = measured.read_text()
            Path(folder, "own/ranges.json").write_text(text)
            Path(folder, "other/ranges.json").write_text(re.sub(r'"attention_in":[\d.]+', '"attention_in":99.5', text, count=1))
            inside = self.nodes.command(1, "sh", "-c", 'mount --bind "$0/other" "$0/own" && exec "$@"', folder)
            worker = self.work("worker", *args, "--node-rank", "1", inside=inside)
            head = self.serve(*args, "--quantization", "inc", "--kv-cache-dtype", "fp8_inc", "--numerics", "gaudi3", "--quant-config",
                              "eval/quant_configs/per_channel_fp8kv.json", "--measurements", f"{folder}/own/ranges.json")
            with self.assertRaisesRegex(RuntimeError, "rank 1.*the numerics differ: .*copy the same INC"), head:
                pass
            worker.communicate(timeout=PATIENCE)

    def test_leader_worker_set(self):
        worker = self.work("worker", "--tensor-parallel-size", "4", env=lws(1))
        self.check(self.serve("--tensor-parallel-size", "4", env=lws(0)), worker)

    def test_srun_with_one_task_per_node(self):
        args = ("--tensor-parallel-size", "4", "--master-addr", HEAD)
        worker = self.work("serve", "--model", "models/nano", *args, env=slurm(1))
        self.check(self.serve(*args, env=slurm(0)), worker)

    def test_srun_with_one_task_per_rank(self):
        args = ("--tensor-parallel-size", "2", "--master-addr", HEAD)
        worker = self.work("serve", "--model", "models/nano", *args, env=slurm(1))
        self.check(self.serve(*args, env=slurm(0)), worker)

    def test_a_pod_that_is_killed_comes_back(self):
        def start() -> subprocess.Popen:
            return self.work("worker", "--tensor-parallel-size", "2", env=lws(1))

        worker = start()
        with self.serve("--tensor-parallel-size", "2", env=lws(0)) as server:
            self.assertEqual(answers(server), self.expected)
            for pid in self.nodes.processes(1):
                os.kill(pid, signal.SIGKILL)
            worker.communicate()
            self.wait_for_health(server, 503)
            start()
            self.wait_for_health(server, 200)
            self.assertEqual(answers(server), self.expected)

    def test_a_group_that_is_asked_to_end_answers_first(self):
        text = self.end_while_answering(300, shutdown_timeout=110)
        self.assertIn(b'"finish_reason":"length"', text)
        self.assertTrue(text.endswith(b"data: [DONE]\n\n"), text[-300:])

    def test_a_group_that_cuts_its_answers_ends_in_order(self):
        self.assertIn(b"The server is shutting down", self.end_while_answering(30000, shutdown_timeout=0.2))

    def end_while_answering(self, max_tokens: int, shutdown_timeout: float) -> bytes:
        """Both nodes are asked to end; the answer, after both have ended with 0."""
        worker = self.work("worker", "--tensor-parallel-size", "2", env=lws(1))
        with self.serve("--tensor-parallel-size", "2", "--shutdown-timeout", str(shutdown_timeout), env=lws(0)) as server:
            connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)
            body = {"prompt": "Once", "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read(20)  # it has begun
            worker.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGTERM)
            text += answer.read()
            connection.close()
            self.assertEqual(server.process.wait(timeout=PATIENCE), 0)
        words = worker.communicate(timeout=PATIENCE)[1]
        self.assertEqual(worker.returncode, 0, words)
        return text

    def wait_for_health(self, server: Server, status: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while (found := server.call("GET", "/health")[0]) != status:
            self.assertLess(time.monotonic(), deadline, f"/health says {found}\n" + "\n".join(server.lines))
            time.sleep(0.05)


if __name__ == "__main__":
    main()
