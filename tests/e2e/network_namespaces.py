"""Two or more nodes on this machine: network namespaces that share a bridge. Needs root with CAP_NET_ADMIN and `ip`."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unittest


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)


def why_not() -> str:
    """"" where namespaces can be made, else what is missing."""
    if shutil.which("ip") is None:
        return "no `ip` command (package iproute2)"
    name = f"hadal-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    veth = subprocess.run(["ip", "link", "add", "hadaltry0", "type", "veth", "peer", "name", "hadaltry1"],
                          capture_output=True, text=True)
    if veth.returncode == 0:
        subprocess.run(["ip", "link", "del", "hadaltry0"], capture_output=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return "" if veth.returncode == 0 else f"veth pairs cannot be made here: {veth.stderr.strip()}"


class Nodes:
    """with Nodes(2) as nodes: nodes.start(0, [...]). Node i has the address 10.77.<n>.<i + 1> on its interface eth0."""

    def __init__(self, count: int, number: int = 0, mtu: int = 1500):
        self.count, self.number, self.mtu = count, number, mtu
        self.tag = f"hc{os.getpid() % 100000}{number}"

    def name(self, node: int) -> str:
        return f"{self.tag}n{node}"

    def address(self, node: int) -> str:
        return f"10.77.{self.number}.{node + 1}"

    def __enter__(self) -> Nodes:
        run("ip", "netns", "add", self.name(99))  # the switch
        run("ip", "-n", self.name(99), "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.name(99), "link", "set", "br0", "mtu", str(self.mtu), "up")
        for node in range(self.count):
            name, port = self.name(node), f"p{node}"
            run("ip", "netns", "add", name)
            run("ip", "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", self.name(99))
            run("ip", "-n", name, "address", "add", f"{self.address(node)}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "mtu", str(self.mtu), "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", self.name(99), "link", "set", port, "mtu", str(self.mtu), "master", "br0", "up")
        return self

    def __exit__(self, *_) -> None:
        for node in [*range(self.count), 99]:
            subprocess.run(["ip", "netns", "del", self.name(node)], capture_output=True)

    def command(self, node: int, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name(node), *command]

    def start(self, node: int, command: list[str], **environment: str) -> subprocess.Popen:
        return subprocess.Popen(self.command(node, *command), env={**os.environ, **environment}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def ip(self, node: int, *arguments: str) -> None:
        run("ip", "-n", self.name(node), *arguments)


def main() -> None:
    """unittest.main, except that skipped tests are told by exit code 77."""
    result = unittest.main(exit=False).result
    for test, reason in result.skipped:
        print(f"SKIPPED {test}: {reason}", file=sys.stderr)
    sys.exit(1 if not result.wasSuccessful() else 77 if result.skipped else 0)
