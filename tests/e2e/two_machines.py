"""Two machines in one: network namespaces with a cable between them, and another one from the head to the test."""
from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from serving import REPOSITORY, Server
from virtual_environment import Unavailable

NAMES = ("head", "worker")
ADDRESS = {"head": "10.77.0.1", "worker": "10.77.0.2"}  # on eth0, the cable between them
BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"


class TwoMachines:
    """`env`: of all that runs on them. Raises Unavailable where namespaces cannot be made."""

    def __init__(self, env: dict[str, str] | None = None):
        self.env = {**os.environ, **(env or {})}
        mark = str(os.getpid())
        self.spaces = {name: f"hadal-{mark}-{name}" for name in NAMES}
        self._cable = f"had{mark}"[:15]
        # Of a range for tests between networks; two tests at once have different ones.
        number = os.getpid() % 250
        self.http_address, own = f"198.18.{number}.2", f"198.18.{number}.1"
        head, worker = self.spaces.values()
        commands = [f"ip netns add {head}", f"ip netns add {worker}",
                    f"ip link add eth0 netns {head} type veth peer name eth0 netns {worker}",
                    f"ip link add {self._cable} type veth peer name eth1 netns {head}",
                    f"ip addr add {own}/30 dev {self._cable}", f"ip link set {self._cable} up",
                    f"ip -n {head} addr add {self.http_address}/30 dev eth1", f"ip -n {head} link set eth1 up"]
        for name in NAMES:
            commands += [f"ip -n {self.spaces[name]} {what}"
                         for what in (f"addr add {ADDRESS[name]}/24 dev eth0", "link set eth0 up", "link set lo up")]
        try:
            for command in commands:
                subprocess.run(command.split(), check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise Unavailable(f"{command}: {getattr(error, 'stderr', error)}") from error

    def inside(self, name: str) -> list[str]:
        return ["ip", "netns", "exec", self.spaces[name]]

    def run(self, name: str, command: str) -> str:
        """A shell's output."""
        done = subprocess.run([*self.inside(name), "bash", "-c", command], env=self.env, cwd=REPOSITORY, text=True, timeout=300,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise AssertionError(f"{command}: {done.stdout}")
        return done.stdout

    def server(self, *args: str, env: dict[str, str] | None = None) -> Server:
        """`hadal serve` on the head, reached by the test's own cable."""
        server = Server(args=args, env={**self.env, **(env or {})})
        server.command = [*self.inside("head"), str(BINARY), "serve", "--model", "models/nano", "--host", self.http_address,
                          "--port", "0", *args]
        return server

    def hadal(self, name: str, *args: str, env: dict[str, str] | None = None) -> subprocess.Popen:
        """Another command of the program; its words on stderr."""
        return subprocess.Popen([*self.inside(name), str(BINARY), *args], env={**self.env, **(env or {})}, cwd=REPOSITORY,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def processes(self, name: str) -> list[int]:
        done = subprocess.run(["ip", "netns", "pids", self.spaces[name]], capture_output=True, text=True)
        return [int(pid) for pid in done.stdout.split()]

    def close(self) -> None:
        for name in NAMES:
            for pid in self.processes(name):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            subprocess.run(["ip", "netns", "del", self.spaces[name]], capture_output=True)
        subprocess.run(["ip", "link", "del", self._cable], capture_output=True)
