"""Launchers that start every rank: mpirun, and srun as far as its variables go. Two processes answer with the tokens of one,
and what cannot be is refused with the variable's name."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

from ranks_answers import answers, answers_of_one_process
from serving import REPOSITORY, Server, children, is_running

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
# Containers run as root on few cores, and two ranks must not be bound to one of them.
OPEN_MPI = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
MPICH = ["mpiexec.hydra"]


def slurm(rank: int, size: int, node: int = 0, nnodes: int = 1) -> dict[str, str]:
    """What srun tells a task; all on node 0 unless there are as many nodes."""
    return {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": str(rank), "SLURM_NTASKS": str(size),
            "SLURM_NODEID": str(node), "SLURM_NNODES": str(nnodes), "SLURM_LOCALID": str(rank if nnodes == 1 else 0)}


def serve(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """`hadal serve` that ends by itself."""
    return subprocess.run([str(BINARY), "serve", "--model", "models/nano", *args], cwd=REPOSITORY, env={**os.environ, **(env or {})},
                          capture_output=True, text=True, timeout=120)


class Launchers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.expected = answers_of_one_process()

    def ranks_answer(self, launcher: list[str], *args: str, env: dict[str, str] | None = None) -> None:
        server = Server(args=args, env=env)
        server.command = [*launcher, *server.command]
        with server:
            self.assertTrue(any("rank 0 " in line or "ranks " in line for line in server.lines), server.lines)
            self.assertEqual(answers(server), self.expected)

    def test_open_mpi(self):
        if shutil.which("mpirun") is None or "Open MPI" not in subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout:
            self.skipTest("there is no mpirun of Open MPI")
        self.ranks_answer([*OPEN_MPI, "-n", "2"], "--tensor-parallel-size", "2")

    def test_open_mpi_says_how_many_ranks_and_one_process_may_start_its_own(self):
        if shutil.which("mpirun") is None:
            self.skipTest("there is no mpirun")
        self.ranks_answer([*OPEN_MPI, "-n", "2"])
        self.ranks_answer([*OPEN_MPI, "-n", "1"], "--tensor-parallel-size", "2")

    def jobs_ranks(self, server: Server) -> list[int]:
        ranks = children(server.process.pid)
        self.assertEqual(len(ranks), 2)
        return ranks

    def wait_until_gone(self, ranks: list[int]) -> None:
        deadline = time.monotonic() + 120
        while left := [pid for pid in ranks if is_running(pid)]:
            self.assertLess(time.monotonic(), deadline, f"processes {left} still run")
            time.sleep(0.05)

    @unittest.skipIf(shutil.which("mpirun") is None, "there is no mpirun")
    def test_ranks_end_with_an_mpirun_that_is_killed(self):
        server = Server()
        server.command = [*OPEN_MPI, "-n", "2", *server.command]
        with server:
            ranks = self.jobs_ranks(server)
            server.process.kill()
            self.wait_until_gone(ranks)

    @unittest.skipIf(shutil.which("mpirun") is None, "there is no mpirun")
    def test_a_frozen_rank_ends_the_job_because_nobody_can_start_it_alone(self):
        server = Server(args=("--rank-timeout", "4"))
        server.command = [*OPEN_MPI, "-n", "2", *server.command]
        with server:
            ranks = self.jobs_ranks(server)
            frozen, = (int(line.split("pid ")[1].split(",")[0]) for line in server.lines if line.startswith("rank 1 "))
            os.kill(frozen, signal.SIGSTOP)
            self.assertEqual(server.process.wait(timeout=120), 1, server.lines)
            self.wait_until_gone(ranks)
        self.assertIn("rank 1 (node 0): does not answer; whoever started each rank alone", "\n".join(server.lines))

    def test_mpich(self):
        if shutil.which(MPICH[0]) is None:
            self.skipTest("there is no mpiexec.hydra")
        self.ranks_answer([*MPICH, "-n", "2"], "--tensor-parallel-size", "2", env={"HADAL_AUTH_TOKEN": "sesame"})

    def test_srun(self):
        token = {"HADAL_AUTH_TOKEN": "sesame"}
        other = subprocess.Popen([str(BINARY), "serve", "--model", "models/nano", "--tensor-parallel-size", "2"], cwd=REPOSITORY,
                                 env={**os.environ, **token, **slurm(1, 2)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            self.ranks_answer([], "--tensor-parallel-size", "2", env={**token, **slurm(0, 2)})
            words = other.communicate(timeout=60)[1]  # it ends with rank 0
        finally:
            other.kill()
            other.wait()
        self.assertEqual(other.returncode, 0, words)
        self.assertIn("started by Slurm: rank 1 of 2, node 0 of 1", words)

    def test_refusals_name_variable_and_way_out(self):
        two_nodes = slurm(0, 2, 0, 2)
        cases = [
            (serve("--tensor-parallel-size", "4", env=slurm(0, 3)), ("SLURM_NTASKS=3", "srun --ntasks 4")),
            (serve("--tensor-parallel-size", "2", env=slurm(2, 2)), ("SLURM_PROCID=2 must be below SLURM_NTASKS=2",)),
            (serve("--tensor-parallel-size", "2", env={**slurm(0, 2), "SLURM_LOCALID": "-1"}), ("SLURM_LOCALID=-1",)),
            (serve("--tensor-parallel-size", "2", env=two_nodes), ("2 nodes", "scontrol show hostnames")),
            (serve("--tensor-parallel-size", "2", "--nnodes", "3", "--node-rank", "0", "--master-addr", "h", env=two_nodes),
             ("--nnodes 3 contradicts SLURM_NNODES",)),
            (serve("--tensor-parallel-size", "2", env=slurm(0, 2)), ("HADAL_AUTH_TOKEN", "openssl rand -hex 16")),
            (serve("--tensor-parallel-size", "2", env={"LWS_WORKER_INDEX": "1"}), ("LWS_GROUP_SIZE is missing",)),
        ]
        for done, texts in cases:
            self.assertEqual(done.returncode, 2, (texts, done.stderr))
            for text in texts:
                self.assertIn(text, done.stderr)


if __name__ == "__main__":
    unittest.main()
