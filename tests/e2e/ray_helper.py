"""The Ray helper as a child, spoken to as the server does, and what tests need around it."""
from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

from serving import REPOSITORY

SOURCE = REPOSITORY / "src/cli/ray/hadal_ray.py"
PATIENCE = 120


class Helper:
    """`python`: a command. Events wait in a queue."""

    def __init__(self, python: list[str] | None = None, env: dict[str, str] | None = None):
        self.process = subprocess.Popen(
            [*(python or [sys.executable]), "-u", "-c", SOURCE.read_text()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        self.events: queue.Queue[dict] = queue.Queue()
        self._words: list[str] = []
        self._readers = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._hear, daemon=True)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def _hear(self) -> None:
        self._words.extend(self.process.stderr)

    def order(self, op: str, **fields: object) -> None:
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()

    def start(self, node: int, script: str, **env: str) -> int:
        """Runs a shell there. -> its process id"""
        self.order("start", node=node, argv=["/bin/sh", "-c", script], env=env)
        started = self.event("started")
        assert started["node"] == node, started
        return int(started["what"].split()[1])

    def event(self, *kinds: str) -> dict:
        """The next one of these kinds."""
        while True:
            event = self.events.get(timeout=PATIENCE)
            if event["event"] in kinds:
                return event
            assert event["event"] in ("warning", "log"), event

    def end(self) -> str:
        """-> what it wrote to stderr"""
        if self.process.returncode is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
            for reader in self._readers:
                reader.join(timeout=PATIENCE)
            self.process.stdout.close()
            self.process.stderr.close()
        return "".join(self._words)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Waits for it."""
    deadline = time.monotonic() + PATIENCE
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not lives(pid)
