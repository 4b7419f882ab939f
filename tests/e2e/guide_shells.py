"""Shells for the guide's commands, on this machine or on a node of its own."""
from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

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


class Shell:
    """Runs blocks one after the other as one shell would: what a block exports, the next one sees."""

    def __init__(self, folder: Path, environment: dict[str, str], name: str = "", inside: Sequence[str] = (),
                 kill_all: Callable[[], None] = lambda: None):
        """`inside`: what a command begins with on the node; `kill_all` ends what has left its session there."""
        self.folder = folder
        self.environment = environment
        self.inside = list(inside)
        self.kill_all = kill_all
        self.exports = folder / f"exports_{name or 'machine'}.sh"
        self.exports.write_text("")
        self.server: Running | None = None
        self.background: list[Running] = []

    def argv(self, text: str, keep: bool) -> list[str]:
        keeping = f"\nexport -p > {self.exports}" if keep else ""
        script = f"set -euo pipefail\nsource {self.exports}\n{text}{keeping}"
        return [*self.inside, "bash", "-c", script]

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
        """Starts a server in place of the last one and waits until it is ready or has ended."""
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
        self.kill_all()
