"""Starts hadal the way a user does and talks to it."""
from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
READY = re.compile(r"https?://([\d.]+):(\d+)")


def is_running(pid: int) -> bool:
    """A process that nobody has waited for yet has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    """Process ids: of a server or a calibration, those of its other ranks on this machine."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            found += [int(word) for word in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


class Server:
    """`make serve` on a free port, as a context manager. `lines` collects what it prints."""

    def __init__(self, *, through_make: bool = False, args: tuple[str, ...] = (), model: str = "models/nano",
                 env: dict[str, str] | None = None, host: str = "127.0.0.1", inside: Sequence[str] = ()):
        """`inside`: what the command begins with, to run on another node (network_namespaces.py); `host`: its address."""
        binary = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
        if through_make:
            self.command = ["make", "--no-print-directory", "serve", "PORT=0", f"MODEL={model}", f"ARGS={' '.join(args)}"]
        else:
            self.command = [*inside, str(binary), "serve", "--model", model, "--host", host, "--port", "0", *args]
        self.env = {**os.environ, **(env or {})}
        self.lines: list[str] = []
        self._is_ready = False
        self._started_or_ended = threading.Event()

    def __enter__(self) -> "Server":
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.command, cwd=REPOSITORY, env=self.env, text=True, start_new_session=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._started_or_ended.wait(timeout=300)
        if not self._is_ready:
            self.stop(signal.SIGKILL)
            raise RuntimeError("no ready line:\n" + "\n".join(self.lines))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            match = READY.search(line)
            if match and line.startswith("ready"):
                self.host, self.port = match.group(1), int(match.group(2))
            elif line.startswith("curl "):  # the last start-up line
                self._is_ready = True
                self._started_or_ended.set()
        self._started_or_ended.set()

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Signals the whole group (make passes nothing on by itself) and waits."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self._reader.join(timeout=5)
        self.process.stdout.close()
        return self.process.returncode

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None):
        """-> (status, headers, body as text)"""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        payload = None if body is None else json.dumps(body).encode()
        connection.request(method, path, payload, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, dict(response.getheaders()), text

    def post(self, path: str, body: object) -> dict:
        status, _, text = self.call("POST", path, body)
        if status != 200:
            raise AssertionError(f"POST {path}: {status} {text}")
        return json.loads(text)

    def stream(self, path: str, body: dict) -> list[dict]:
        """Events of a streamed answer; checks the frame of each."""
        status, headers, text = self.call("POST", path, {**body, "stream": True})
        assert status == 200, text
        assert headers["Content-Type"].startswith("text/event-stream"), headers
        frames = text.split("\n\n")
        assert frames[-1] == "" and frames[-2] == "data: [DONE]", frames[-2:]
        assert all(frame.startswith("data: ") for frame in frames[:-1]), text
        return [json.loads(frame[len("data: "):]) for frame in frames[:-2]]
