"""64 concurrent streaming clients for a minute, some of which hang up: no error, no leak, every answer as given alone.

Usage: soak_long.py [--clients 64] [--seconds 60] [--disconnect-share 0.2]
"""
from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import threading
import time
from pathlib import Path

from serving import Server

HELDOUT = Path(__file__).resolve().parents[2] / "models/nano/heldout.jsonl"
NUM_PROMPTS = 48
# The allocator keeps some slack per thread; more growth than this over the second half of the run is a leak.
MAX_RSS_GROWTH = 0.03


def request_bodies() -> list[dict]:
    questions = [json.loads(line)["question"] for line in HELDOUT.read_text().splitlines()[:NUM_PROMPTS]]
    bodies = []
    for i, question in enumerate(questions):
        sampling = {"temperature": 0} if i % 2 == 0 else {"temperature": 0.8, "seed": i}
        text = question if i % 3 else question * 12  # every third prompt is long enough for full tiles
        bodies.append({"messages": [{"role": "user", "content": text}], "max_tokens": 32 + 8 * (i % 9), **sampling})
    return bodies


def streamed_answer(server: Server, body: dict, hang_up_after: int | None = None) -> str | None:
    """The whole text of a streamed chat answer, or None after hanging up in the middle."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=120)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps({**body, "stream": True}),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {response.read().decode()}")
        text, num_events = "", 0
        for line in response:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                return text
            event = json.loads(line[len(b"data: "):])
            if "error" in event:
                raise RuntimeError(f"error event: {event}")
            for choice in event["choices"]:
                delta = choice["delta"]
                text += (delta.get("reasoning_content") or "") + (delta.get("content") or "")
            num_events += 1
            if hang_up_after is not None and num_events >= hang_up_after:
                return None
        raise RuntimeError("stream ended without [DONE]")
    finally:
        connection.close()


def gauge(server: Server, name: str) -> float:
    text = server.call("GET", "/metrics")[2]
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M))


def server_pid(server: Server) -> int:
    """The hadal process itself, not a shell or make above it."""
    return server.process.pid


def rss_bytes(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


class Soak:
    def __init__(self, server: Server, bodies: list[dict], expected: list[str], disconnect_share: float):
        self.server, self.bodies, self.expected = server, bodies, expected
        self.disconnect_share = disconnect_share
        self.failures: list[str] = []
        self.num_answers = self.num_hang_ups = 0
        self.lock = threading.Lock()

    def client(self, seed: int, until: float) -> None:
        chooser = random.Random(seed)
        while time.monotonic() < until:
            i = chooser.randrange(len(self.bodies))
            hang_up = chooser.randrange(1, 20) if chooser.random() < self.disconnect_share else None
            try:
                text = streamed_answer(self.server, self.bodies[i], hang_up)
            except Exception as error:  # a client thread must report, not die
                with self.lock:
                    self.failures.append(f"request {i}: {error!r}")
                return
            with self.lock:
                if text is None:
                    self.num_hang_ups += 1
                else:
                    self.num_answers += 1
                    if text != self.expected[i]:
                        self.failures.append(f"request {i} differs from alone:\n  {text!r}\n  {self.expected[i]!r}")

    def run(self, num_clients: int, seconds: float) -> list[int]:
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self.client, args=(seed, until)) for seed in range(num_clients)]
        for thread in threads:
            thread.start()
        pid, samples = server_pid(self.server), []
        while time.monotonic() < until:
            time.sleep(1)
            samples.append(rss_bytes(pid))
        for thread in threads:
            thread.join()
        return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--disconnect-share", type=float, default=0.2)
    options = parser.parse_args()

    # A cache too small for all clients at once: it is full in the first seconds, so that a growing RSS means a leak.
    with Server(args=("--max-num-seqs", "64", "--max-model-len", "4096", "--block-size", "16",
                      "--num-gpu-blocks-override", "256")) as server:
        bodies = request_bodies()
        expected = [streamed_answer(server, body) for body in bodies]
        soak = Soak(server, bodies, expected, options.disconnect_share)
        samples = soak.run(options.clients, options.seconds)
        deadline = time.monotonic() + 5
        while gauge(server, "vllm:num_requests_running") + gauge(server, "vllm:num_requests_waiting") > 0:
            if time.monotonic() > deadline:
                soak.failures.append("requests still run 5 s after the last client left")
                break
            time.sleep(0.05)
        if gauge(server, "vllm:kv_cache_usage_perc") > 0:
            soak.failures.append("blocks are still in use after the last client left")
        half = samples[len(samples) // 2]
        growth = max(samples[len(samples) // 2:]) / half - 1
        if growth > MAX_RSS_GROWTH:
            soak.failures.append(f"resident memory grew by {growth:.1%} in the second half: {samples}")
        num_preemptions = gauge(server, "vllm:num_preemptions_total")
        exit_code = server.stop()
        if exit_code != 0:
            soak.failures.append(f"exit code {exit_code} after SIGTERM")
    print(f"{soak.num_answers} answers, {soak.num_hang_ups} hang-ups, RSS {samples[0] / 1e6:.0f} -> {samples[-1] / 1e6:.0f} MB"
          f" (second half {growth:+.1%}), {num_preemptions:.0f} preemptions, {len(soak.failures)} failures")
    for failure in soak.failures[:10]:
        print(failure)
    return 1 if soak.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
