"""Two network namespaces joined by a cable (veth): two machines as far as the network is concerned."""
from __future__ import annotations

import os
import subprocess
import sys

HEAD, WORKER = "10.213.7.1", "10.213.7.2"


class TwoNodes:
    """Names begin with hadal-ranks-PID; gone at the end. Raises PermissionError where this is not allowed."""

    def __init__(self) -> None:
        self.names = [f"hadal-ranks-{os.getpid()}-{node}" for node in range(2)]
        self.links = [f"hr{os.getpid() % 100000}n{node}" for node in range(2)]

    def __enter__(self) -> "TwoNodes":
        try:
            for name in self.names:
                ip("netns", "add", name)
            ip("link", "add", self.links[0], "type", "veth", "peer", "name", self.links[1])
            for node, address in enumerate((HEAD, WORKER)):
                ip("link", "set", self.links[node], "netns", self.names[node])
                self.ip(node, "addr", "add", f"{address}/24", "dev", self.links[node])
                self.ip(node, "link", "set", "lo", "up")
                self.ip(node, "link", "set", self.links[node], "up")
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            raise PermissionError(getattr(error, "stderr", "") or str(error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def command(self, node: int, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.names[node], *command]

    def ip(self, node: int, *arguments: str) -> None:
        ip("-n", self.names[node], *arguments)

    def set_link(self, node: int, up: bool) -> None:
        self.ip(node, "link", "set", self.links[node], "up" if up else "down")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def two_nodes_or_skip() -> TwoNodes:
    nodes = TwoNodes()
    try:
        nodes.__enter__()
    except PermissionError as error:
        print(f"skipped: network namespaces cannot be made here ({str(error).strip()}); needs root and CAP_NET_ADMIN")
        sys.exit(77)
    nodes.__exit__()
    return TwoNodes()
