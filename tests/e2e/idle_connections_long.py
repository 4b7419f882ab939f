"""10,000 idle connections beside a streaming client: each stays small, and the stream comes through whole.

Usage: idle_connections_long.py [--connections 10000]
"""
from __future__ import annotations

import argparse
import re
import resource
import socket
import time
from pathlib import Path

from serving import Server

MAX_BYTES_EACH = 8192  # of the process; the kernel's socket buffers are not counted


def rss_bytes(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    wanted = parser.parse_args().connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    possible = min(wanted, hard - 500)
    if possible < wanted:
        print(f"this system allows {hard} open files: {possible} connections instead of {wanted}")
    with Server(args=("--max-connections", str(possible + 100), "--keep-alive-timeout", "600")) as server:
        body = {"prompt": "Count: 1, 2,", "max_tokens": 64, "ignore_eos": True, "temperature": 0}
        alone = server.stream("/v1/completions", body)
        before = rss_bytes(server.process.pid)
        clients = []
        for _ in range(possible):
            client = socket.create_connection((server.host, server.port), timeout=60)
            client.sendall(b"GET /version HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"200 OK" in client.recv(65536)
            clients.append(client)
        each = (rss_bytes(server.process.pid) - before) / possible
        started = time.monotonic()
        assert server.call("GET", "/health")[0] == 200
        health_s = time.monotonic() - started
        beside = server.stream("/v1/completions", body)
        texts = ["".join(event["choices"][0]["text"] for event in events if event["choices"]) for events in (alone, beside)]
        for client in clients:
            client.close()
        exit_code = server.stop()
    print(f"{possible} idle connections: {each:.0f} bytes each, /health in {1e3 * health_s:.1f} ms, exit code {exit_code}")
    if texts[0] != texts[1]:
        print(f"the stream differs: {texts}")
        return 1
    return 0 if each < MAX_BYTES_EACH and exit_code == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
