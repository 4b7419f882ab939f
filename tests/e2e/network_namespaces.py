"""Machines in one: network namespaces, each with a cable to a switch (a bridge in a namespace of its own). Needs root with
CAP_NET_ADMIN and `ip`; why_not() says what is missing, and main() tells of skipped tests by exit code 77."""
from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import unittest
from collections.abc import Sequence

SKIPPED = 77  # ctest's skip code here
_numbers = itertools.count()


def address(node: int) -> str:
    """Of a node on its interface eth0, unless Nodes() is given others."""
    return f"10.77.0.{node + 1}"


class Nodes:
    """with Nodes(2) as nodes: nodes.start(0, [...]). Node i has addresses[i] on its interface eth0. With `cable`, node 0 also
    has `cable_address` on eth1, which this process reaches. `environment`: of all that is started on them. What still runs
    on them at the end is killed."""

    def __init__(self, count: int = 2, *, addresses: Sequence[str] = (), mtu: int = 1500, cable: bool = False,
                 environment: dict[str, str] | None = None):
        self.addresses = list(addresses) or [address(node) for node in range(count)]
        self.mtu = mtu
        self.environment = {**os.environ, **(environment or {})}
        number, pid = next(_numbers), os.getpid()
        self.switch = f"hadal-{pid}-{number}-switch"
        self.names = [f"hadal-{pid}-{number}-{node}" for node in range(count)]
        # Of a range for tests between networks; two tests at once have different ones.
        subnet = f"198.18.{(pid + number) % 250}"
        self.cable_address = f"{subnet}.2" if cable else ""
        self._own_address = f"{subnet}.1"
        self._cable = f"hd{pid}-{number}"

    def __enter__(self) -> Nodes:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def _build(self) -> None:
        run("ip", "netns", "add", self.switch)
        self.switch_ip("link", "add", "br0", "type", "bridge")
        self.switch_ip("link", "set", "br0", "mtu", str(self.mtu), "up")
        for node, name in enumerate(self.names):
            port = self.port(node)
            run("ip", "netns", "add", name)
            run("ip", "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", self.switch)
            self.ip(node, "address", "add", f"{self.address(node)}/24", "dev", "eth0")
            self.ip(node, "link", "set", "eth0", "mtu", str(self.mtu), "up")
            self.ip(node, "link", "set", "lo", "up")
            self.switch_ip("link", "set", port, "mtu", str(self.mtu), "master", "br0", "up")
        if self.cable_address:
            run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth1", "netns", self.names[0])
            run("ip", "address", "add", f"{self._own_address}/30", "dev", self._cable)
            run("ip", "link", "set", self._cable, "up")
            self.ip(0, "address", "add", f"{self.cable_address}/30", "dev", "eth1")
            self.ip(0, "link", "set", "eth1", "up")

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if shutil.which("ip") is None:
            return
        for node, name in enumerate(self.names):
            self.kill_all(node)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.switch], capture_output=True)
        subprocess.run(["ip", "link", "del", self._cable], capture_output=True)

    def address(self, node: int) -> str:
        return self.addresses[node]

    def port(self, node: int) -> str:
        """The switch's interface for the node's cable."""
        return f"p{node}"

    def command(self, node: int, *command: str) -> list[str]:
        """`command` on the node; without any, what to put before one."""
        return ["ip", "netns", "exec", self.names[node], *command]

    def start(self, node: int, command: Sequence[str], **environment: str) -> subprocess.Popen:
        return subprocess.Popen(self.command(node, *command), env={**self.environment, **environment}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def ip(self, node: int, *arguments: str) -> None:
        run("ip", "-n", self.names[node], *arguments)

    def switch_ip(self, *arguments: str) -> None:
        run("ip", "-n", self.switch, *arguments)

    def set_link(self, node: int, *, up: bool) -> None:
        self.ip(node, "link", "set", "eth0", "up" if up else "down")

    def block_tcp(self, node: int, to: int, *, ports: tuple[int, int] | None = None, blocked: bool = True) -> None:
        """What a node sends to another one over TCP, all of it or to some ports (first and last), is lost. `blocked` false
        ends that again."""
        where = [] if ports is None else ["dport", f"{ports[0]}-{ports[1]}"]
        self.ip(node, "rule", "add" if blocked else "del", "to", self.address(to), "ipproto", "tcp", *where, "blackhole")

    def processes(self, node: int) -> list[int]:
        done = subprocess.run(["ip", "netns", "pids", self.names[node]], capture_output=True, text=True)
        return [int(pid) for pid in done.stdout.split()]

    def kill_all(self, node: int) -> None:
        for pid in self.processes(node):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def why_not() -> str:
    """"" where Nodes can be made, else what is missing."""
    if shutil.which("ip") is None:
        return "no `ip` command (package iproute2)"
    try:
        with Nodes(1, cable=True) as nodes:
            run(*nodes.command(0, "true"))
    except (OSError, RuntimeError) as error:
        return f"network namespaces cannot be made here (needs root and CAP_NET_ADMIN): {error}"
    return ""


def main() -> None:
    """unittest.main, except that skipped tests are told by exit code 77."""
    result = unittest.main(exit=False).result
    for test, reason in result.skipped:
        print(f"SKIPPED {test}: {reason}", file=sys.stderr)
    sys.exit(1 if not result.wasSuccessful() else SKIPPED if result.skipped else 0)
