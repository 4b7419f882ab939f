"""Rounds of faults at random moments while requests come without a pause: a rank is killed or frozen, the cable pulled,
the ranks' port blocked. Every request ends with the right answer or a clear error, none hangs, and after each round the
server is ready again by itself.

Needs two network namespaces (root, CAP_NET_ADMIN); skips with exit code 77 where they cannot be made."""
from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import threading
import time

from ranks import PATIENCE_S, crowd, fixed_requests, health, wait_until
from network_namespaces import SKIPPED, Nodes, why_not
from serving import Server, children
from two_nodes import TwoNodeServer

RANK_TIMEOUT_S = 3
MASTER_PORT = 29501


def core_of(answer: dict) -> str:
    return json.dumps([answer["choices"], answer["usage"]["completion_tokens"]], sort_keys=True)


class Load:
    """Threads that ask one request after another until told to stop, and check every answer."""

    def __init__(self, server: TwoNodeServer, requests: list[tuple[str, dict]], expected: list[str], wanted: int):
        self.server, self.requests, self.expected, self.wanted = server, requests, expected, wanted
        self.lock = threading.Lock()
        self.next = self.answered = self.refused = 0
        self.problems: list[str] = []
        self.errors: dict[str, int] = {}
        self.threads = [threading.Thread(target=self._work) for _ in range(4)]
        for thread in self.threads:
            thread.start()

    def _work(self) -> None:
        while True:
            with self.lock:
                if self.next >= self.wanted:
                    return
                index = self.next % len(self.requests)
                self.next += 1
            self._ask(index)

    def _ask(self, index: int) -> None:
        path, body = self.requests[index]
        begin = time.monotonic()
        try:
            status, _, text = self.server.call("POST", path, body)
        except OSError as error:
            with self.lock:
                self.problems.append(f"request {index}: {error} after {time.monotonic() - begin:.1f} s")
            return
        with self.lock:
            if status == 200:
                self.answered += 1
                if core_of(json.loads(text)) != self.expected[index]:
                    self.problems.append(f"request {index}: another answer: {text}")
                return
            self.refused += 1
            message = json.loads(text)["error"]["message"]
            self.errors[message] = self.errors.get(message, 0) + 1
            if "rank" not in message and "group" not in message:
                self.problems.append(f"request {index}: HTTP {status}, no clear reason: {message}")


def break_something(kind: str, server: TwoNodeServer, chance: random.Random) -> None:
    local, remote = children(server.process.pid), children(server.worker.pid)
    if kind in ("kill", "freeze"):
        victim = chance.choice(local + remote)
        os.kill(victim, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        wait_until("the rank is replaced",
                   lambda: victim not in children(server.process.pid) + children(server.worker.pid))
        return
    seconds = chance.uniform(0.2, 2 * RANK_TIMEOUT_S)
    if kind == "link":
        server.nodes.set_link(1, up=False)
        time.sleep(seconds)
        server.nodes.set_link(1, up=True)
    else:
        ports = chance.choice([None, (MASTER_PORT, MASTER_PORT)])
        server.nodes.block_tcp(1, 0, ports=ports)
        time.sleep(seconds)
        server.nodes.block_tcp(1, 0, ports=ports, blocked=False)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if reason := why_not():
        print(f"skipped: {reason}")
        return SKIPPED
    chance = random.Random(options.seed)
    kinds = ["kill", "freeze", "link", "port"]
    requests = fixed_requests()[:2] + crowd()
    with Server() as server:
        expected = [core_of(server.post(path, body)) for path, body in requests]
    with Nodes(cable=True) as nodes, TwoNodeServer(nodes, options.ranks, "--rank-timeout", str(RANK_TIMEOUT_S),
                                                     "--restart-limit", "1000") as server:
        load = Load(server, requests, expected, options.requests)
        for number in range(options.rounds):
            kind = kinds[number % len(kinds)]
            time.sleep(chance.uniform(0, 2))
            begin = time.monotonic()
            break_something(kind, server, chance)
            time.sleep(0.5)
            wait_until(f"ready after round {number} ({kind})", lambda: health(server)[0] == 200)
            print(f"round {number}: {kind}, ready again after {time.monotonic() - begin:.1f} s; "
                  f"{load.answered} answered, {load.refused} errors", flush=True)
        for thread in load.threads:
            thread.join(PATIENCE_S + options.requests)
            if thread.is_alive():
                load.problems.append("a request hangs")
        wait_until("ready at the end", lambda: health(server)[0] == 200)
        print(f"{load.answered} answers, {load.refused} errors:")
        for message, count in sorted(load.errors.items(), key=lambda entry: -entry[1])[:10]:
            print(f"  {count} x {message}")
        for problem in load.problems[:20]:
            print("PROBLEM", problem)
        if load.problems and "-v" in sys.argv:
            print("\n".join(server.lines[-200:]))
    return 1 if load.problems else 0


if __name__ == "__main__":
    sys.exit(main())
