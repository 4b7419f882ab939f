"""Machines for the guide's commands: this one, or two network namespaces joined by a cable, with the guide's addresses."""
from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

ADDRESSES = {"head": "192.168.1.101", "worker": "192.168.1.106"}
COMMAND_LIMIT_S = 300


class Running:
    """A command in the background; `lines` collects what it prints."""

    def __init__(self, argv: list[str], folder: Path, environment: dict[str, str]):
        self.lines: list[str] = []
        self.settled = threading.Event()  # ready, or ended
        self.is_ready = False
        self.process = subprocess.Popen(argv, cwd=folder, env=environment, text=True, start_new_session=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("curl "):  # the last start-up line of hadal serve
                self.is_ready = True
                self.settled.set()
        self.settled.set()

    def stop(self) -> int:
        """Asks it to end and waits. -> exit status"""
        for how, limit_s in ((signal.SIGTERM, 60), (signal.SIGKILL, 60)):
            if self.process.poll() is None:
                os.killpg(self.process.pid, how)
                try:
                    self.process.wait(limit_s)
                except subprocess.TimeoutExpired:
                    continue
        self._reader.join(30)
        self.process.stdout.close()
        return self.process.returncode


class Node:
    """Runs blocks one after the other as one shell would: what a block exports, the next one sees."""

    def __init__(self, folder: Path, environment: dict[str, str], name: str = "", namespace: str = ""):
        self.folder = folder
        self.environment = environment
        self.namespace = namespace
        self.exports = folder / f"exports_{name or 'machine'}.sh"
        self.exports.write_text("")
        self.server: Running | None = None
        self.background: list[Running] = []

    def argv(self, text: str, keep: bool) -> list[str]:
        keeping = f"\nexport -p > {self.exports}" if keep else ""
        script = f"set -euo pipefail\nsource {self.exports}\n{text}{keeping}"
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return [*inside, "bash", "-c", script]

    def run(self, text: str) -> tuple[int, str]:
        """-> exit status, output"""
        done = subprocess.run(self.argv(text, keep=True), cwd=self.folder, env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=COMMAND_LIMIT_S)
        return done.returncode, done.stdout

    def start(self, text: str) -> Running:
        running = Running(self.argv(text, keep=False), self.folder, self.environment)
        self.background.append(running)
        return running

    def serve(self, text: str) -> Running:
        """Starts a server in place of the node's last one and waits until it is ready or has ended."""
        self.stop_server()
        self.server = Running(self.argv(text, keep=False), self.folder, self.environment)
        self.server.settled.wait(COMMAND_LIMIT_S)
        return self.server

    def stop_server(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def stop_all(self) -> None:
        self.stop_server()
        for running in self.background:
            running.stop()
        self.background = []
        if self.namespace:  # what has left its session, as Ray does
            pids = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True).stdout
            for pid in map(int, pids.split()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


class Cable:
    """Two namespaces with the guide's addresses. `refusal` says why there are none."""

    def __init__(self) -> None:
        number = os.getpid() % 100_000
        self.namespaces = {name: f"guide{number}{name[0]}" for name in ADDRESSES}
        head, worker = self.namespaces["head"], self.namespaces["worker"]
        steps = [["netns", "add", head], ["netns", "add", worker],
                 ["link", "add", f"gd{number}h", "netns", head, "type", "veth", "peer", "name", f"gd{number}w", "netns", worker]]
        for name, namespace in self.namespaces.items():
            inside, interface = ["-n", namespace], f"gd{number}{name[0]}"
            steps += [[*inside, "addr", "add", f"{ADDRESSES[name]}/24", "dev", interface],
                      [*inside, "link", "set", interface, "up"], [*inside, "link", "set", "lo", "up"]]
        self.refusal = ""
        for step in steps:
            try:
                done = subprocess.run(["ip", *step], capture_output=True, text=True)
            except FileNotFoundError:
                self.refusal = "no `ip` command"
                return
            if done.returncode != 0:
                self.refusal = f"ip {' '.join(step)}: {done.stderr.strip()}"
                return
        inside = subprocess.run(["ip", "netns", "exec", head, "true"], capture_output=True, text=True)
        if inside.returncode != 0:
            self.refusal = f"ip netns exec: {inside.stderr.strip()}"

    def remove(self) -> None:
        for namespace in self.namespaces.values():
            try:
                subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
            except FileNotFoundError:
                return
