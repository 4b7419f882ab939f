"""A server in one namespace and the ranks of another node in a second one."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import threading

from namespaces import HEAD, TwoNodes
from ranks import PATIENCE_S
from serving import REPOSITORY, Server


class TwoNodeServer(Server):
    """`hadal serve --nnodes 2` on node 0, `--node-rank 1 --headless` on node 1. Asked from inside node 0."""

    def __init__(self, nodes: TwoNodes, num_ranks: int, *args: str, token: str = "secret"):
        super().__init__(model="models/nano")
        self.nodes = nodes
        binary = self.command[0]
        shared = ["serve", "--model", "models/nano", "--tensor-parallel-size", str(num_ranks), "--nnodes", "2",
                  "--master-addr", HEAD, *args]
        self.command = nodes.command(0, binary, *shared, "--node-rank", "0", "--host", "0.0.0.0", "--port", "8000")
        self.worker_command = nodes.command(1, binary, *shared, "--node-rank", "1", "--headless")
        self.env["HADAL_AUTH_TOKEN"] = token
        self.worker_lines: list[str] = []
        self.worker: subprocess.Popen | None = None

    def start_worker(self) -> None:
        self.worker = subprocess.Popen(self.worker_command, cwd=REPOSITORY, env=self.env, text=True,
                                       start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.worker_reader = threading.Thread(target=self._read_worker, args=(self.worker,), daemon=True)
        self.worker_reader.start()

    def _read_worker(self, worker: subprocess.Popen) -> None:
        for line in worker.stdout:
            self.worker_lines.append(line.rstrip("\n"))

    def __enter__(self) -> "TwoNodeServer":
        self.start_worker()
        try:
            super().__enter__()
        except RuntimeError as error:
            self.stop_worker()
            raise RuntimeError(f"{error}\nnode 1:\n" + "\n".join(self.worker_lines)) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.stop_worker()

    def stop_worker(self) -> int:
        """Node 1 ends by itself when rank 0 says stop; else it is ended."""
        try:
            self.worker.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.worker.pid, signal.SIGKILL)
        code = self.worker.wait()
        self.worker_reader.join(5)
        self.worker.stdout.close()
        return code

    def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None):
        """Through curl inside node 0: no thread of this process enters a namespace."""
        command = ["curl", "-sS", "-m", str(PATIENCE_S), "-X", method, "-D", "/dev/stderr", "-w", "\n%{http_code}",
                   f"http://127.0.0.1:8000{path}", "-H", "Content-Type: application/json"]
        if body is not None:
            command += ["-d", "@-"]
        done = subprocess.run(self.nodes.command(0, *command), input=None if body is None else json.dumps(body),
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"curl: exit code {done.returncode}: {done.stderr}")
        text, _, status = done.stdout.rpartition("\n")
        return int(status), {}, text
