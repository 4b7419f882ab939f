"""A server in one namespace and the ranks of another node in a second one."""
from __future__ import annotations

import os
import signal
import subprocess
import threading

import ranks  # noqa: F401: it finds the folder of the next two
from network_namespaces import Nodes
from serving import REPOSITORY, Server


class TwoNodeServer(Server):
    """`hadal serve --nnodes 2` on node 0, `--node-rank 1 --headless` on node 1. Asked over the cable of `nodes`."""

    def __init__(self, nodes: Nodes, num_ranks: int, *args: str, token: str = "secret"):
        shared = ("--tensor-parallel-size", str(num_ranks), "--nnodes", "2", "--master-addr", nodes.address(0), *args)
        super().__init__(args=(*shared, "--node-rank", "0"), host=nodes.cable_address, inside=nodes.command(0),
                         env={**nodes.environment, "HADAL_AUTH_TOKEN": token})
        other = Server(args=(*shared, "--node-rank", "1", "--headless"), inside=nodes.command(1))
        self.nodes, self.worker_command = nodes, other.command
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
