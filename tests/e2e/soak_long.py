"""200 clients for ten minutes, a quarter of which behave badly in the second half: no crash, no hang, no leak, every
answer as given alone, the others keep their pace, and SIGTERM drains what runs.

Phase A: the well-behaved clients alone. Phase B: the same ones, and others that hang up, send broken or oversized
requests, or stop in the middle of one. The clients are processes of their own, so that what is measured is the server.

Usage: soak_long.py [--clients 200] [--seconds 600] [--bad-share 0.25]
"""
from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import signal
import time
from pathlib import Path

from acceptance_table import metric
from serving import Server

HELDOUT = Path(__file__).resolve().parents[2] / "models/nano/heldout.jsonl"
NUM_PROMPTS = 48
MAX_MODEL_LEN = 4096
SHUTDOWN_TIMEOUT_S = 20
# The allocator keeps some slack per thread; more growth than this over the second half of phase B is a leak.
MAX_RSS_GROWTH = 0.03
MAX_ITL_RATIO = 1.5
ANSWER_TIMEOUT_S = 120


def request_bodies() -> list[dict]:
    questions = [json.loads(line)["question"] for line in HELDOUT.read_text().splitlines()[:NUM_PROMPTS]]
    bodies = []
    for i, question in enumerate(questions):
        sampling = {"temperature": 0} if i % 2 == 0 else {"temperature": 0.8, "seed": i}
        text = question if i % 3 else question * 12  # every third prompt is long enough for full tiles
        bodies.append({"messages": [{"role": "user", "content": text}], "max_tokens": 32 + 8 * (i % 9), **sampling,
                       "stream": True})
    return bodies


def request_bytes(body: bytes, length: int | None = None) -> bytes:
    return (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (len(body) if length is None else length)) + body


class Pace:
    """Seconds from one event with text to the next of the same answer."""

    def __init__(self) -> None:
        self.gaps: list[float] = []


async def streamed_answer(host: str, port: int, body: dict, pace: Pace | None = None,
                          hang_up_after: int | None = None) -> str | None:
    """The whole text of a streamed chat answer, or None after hanging up in the middle."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request_bytes(json.dumps(body).encode()))
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status.decode()}: {(await reader.read()).decode(errors='replace')[-300:]}")
        text, num_events, last = "", 0, None
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                return text
            now = time.monotonic()
            event = json.loads(line[len(b"data: "):])
            if "error" in event:
                raise RuntimeError(f"error event: {event}")
            for choice in event["choices"]:
                delta = choice["delta"]
                text += (delta.get("reasoning_content") or "") + (delta.get("content") or "")
            if pace is not None and last is not None:
                pace.gaps.append(now - last)
            last = now
            num_events += 1
            if hang_up_after is not None and num_events >= hang_up_after:
                return None
        raise RuntimeError("stream ended without [DONE]")
    finally:
        writer.transport.abort()


async def refused(host: str, port: int, request: bytes) -> None:
    """Sends what must be refused: with a 4xx, or by closing the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        status = await reader.readline()
        if status and not re.match(rb"HTTP/1\.1 4\d\d ", status):
            raise RuntimeError(f"{request[:200]!r} was answered {status!r}")
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


async def unfinished(host: str, port: int, request: bytes, seconds: float) -> None:
    _, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    await asyncio.sleep(seconds)
    writer.transport.abort()


async def misbehave(host: str, port: int, chooser: random.Random, bodies: list[dict]) -> None:
    body = chooser.choice(bodies)
    good = request_bytes(json.dumps(body).encode())
    kind = chooser.randrange(10)
    if kind <= 2:
        await streamed_answer(host, port, body, hang_up_after=chooser.randrange(1, 20))
    elif kind == 3:  # before the answer begins
        await unfinished(host, port, good, chooser.random() * 0.05)
    elif kind == 4:  # in the middle of the request
        await unfinished(host, port, good[: chooser.randrange(1, len(good))], chooser.random())
    elif kind == 5:
        broken = bytearray(json.dumps(body).encode())
        broken[chooser.randrange(len(broken) // 2)] = chooser.choice(b"\xff{[\"\0")
        await refused(host, port, request_bytes(bytes(broken[: len(broken) - 2])))
    elif kind == 6:
        wrong = {**body, chooser.choice(["temperature", "max_tokens", "messages", "n", "stop"]): {"no": "way"}}
        await refused(host, port, request_bytes(json.dumps(wrong).encode()))
    elif kind == 7:  # more tokens than the context holds
        words = " ".join(str(chooser.randrange(10**6)) for _ in range(MAX_MODEL_LEN))
        await refused(host, port, request_bytes(
            json.dumps({**body, "messages": [{"role": "user", "content": words}]}).encode()))
    elif kind == 8:
        await refused(host, port, request_bytes(b'{"messages":' + b"[" * 100_000))
    else:
        await refused(host, port, bytes(chooser.randrange(256) for _ in range(200)) + b"\r\n\r\n")


async def keep_asking(host: str, port: int, seed: int, until: float, shared: dict) -> None:
    chooser = random.Random(seed)
    while time.monotonic() < until and len(shared["failures"]) < 10:
        i = chooser.randrange(len(shared["bodies"]))
        try:
            answer = streamed_answer(host, port, shared["bodies"][i], shared["pace"])
            text = await asyncio.wait_for(answer, ANSWER_TIMEOUT_S)
        except Exception as error:  # a client must report, not die
            shared["failures"].append(f"request {i}: {error!r}")
            continue
        shared["answers"] += 1
        if text != shared["expected"][i]:
            shared["failures"].append(f"request {i} differs from alone:\n  {text!r}\n  {shared['expected'][i]!r}")


async def keep_misbehaving(host: str, port: int, seed: int, until: float, shared: dict) -> None:
    chooser = random.Random(seed)
    while time.monotonic() < until and len(shared["failures"]) < 10:
        await asyncio.sleep(chooser.uniform(0.1, 0.9))
        try:
            await asyncio.wait_for(misbehave(host, port, chooser, shared["bodies"]), ANSWER_TIMEOUT_S)
        except Exception as error:
            shared["failures"].append(f"misbehaving: {error!r}")
        shared["answers"] += 1


def client_process(kind: str, host: str, port: int, seeds: range, seconds: float, bodies: list[dict],
                   expected: list[str], results: multiprocessing.Queue) -> None:
    async def all_clients() -> dict:
        shared = {"bodies": bodies, "expected": expected, "failures": [], "answers": 0, "pace": Pace()}
        until = time.monotonic() + seconds
        act = keep_asking if kind == "good" else keep_misbehaving
        await asyncio.gather(*(act(host, port, seed, until, shared) for seed in seeds))
        return {"kind": kind, "failures": shared["failures"], "answers": shared["answers"], "gaps": shared["pace"].gaps}

    os.nice(1 if kind == "bad" else 0)
    results.put(asyncio.run(all_clients()))


def rss_bytes(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Soak:
    def __init__(self, server: Server, bodies: list[dict], expected: list[str]):
        self.server, self.bodies, self.expected = server, bodies, expected
        self.failures: list[str] = []

    def phase(self, num_good: int, num_bad: int, seconds: float) -> tuple[dict, list[int]]:
        """-> what the good clients saw, resident bytes every second"""
        spawn = multiprocessing.get_context("spawn")
        results = spawn.Queue()
        groups = [("good", range(num_good))] + ([("bad", range(10_000, 10_000 + num_bad))] if num_bad else [])
        processes = [spawn.Process(target=client_process, args=(kind, self.server.host, self.server.port, seeds, seconds,
                                                                self.bodies, self.expected, results))
                     for kind, seeds in groups]
        for process in processes:
            process.start()
        samples, seen = [], []
        deadline = time.monotonic() + seconds + 2 * ANSWER_TIMEOUT_S
        while len(seen) < len(processes) and time.monotonic() < deadline:
            time.sleep(1)
            if self.server.process.poll() is not None:
                raise RuntimeError(f"the server ended with code {self.server.process.returncode}:\n"
                                   + "\n".join(self.server.lines[-20:]))
            samples.append(rss_bytes(self.server.process.pid))
            while not results.empty():
                seen.append(results.get())
        if len(seen) < len(processes):
            self.failures.append("clients hang")
        for process in processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
        for result in seen:
            self.failures += result["failures"]
        good = next((result for result in seen if result["kind"] == "good"), {"gaps": [0.0], "answers": 0})
        good["misdeeds"] = sum(result["answers"] for result in seen if result["kind"] == "bad")
        self.expect_idle()
        return good, samples

    def expect_idle(self) -> None:
        deadline = time.monotonic() + 5
        while metric(self.server, "vllm:num_requests_running") + metric(self.server, "vllm:num_requests_waiting") > 0:
            if time.monotonic() > deadline:
                self.failures.append("requests still run 5 s after the last client left")
                return
            time.sleep(0.05)
        if metric(self.server, "vllm:kv_cache_usage_perc") > 0:
            self.failures.append("blocks are still in use after the last client left")

    def drain(self, num_streams: int) -> float:
        """SIGTERM while answers stream: they end as ever, and so does the server. -> seconds until it ended"""
        async def until_ended() -> float:
            body = {**self.bodies[1], "max_tokens": 400, "ignore_eos": True}
            streams = [asyncio.ensure_future(streamed_answer(self.server.host, self.server.port, body))
                       for _ in range(num_streams)]
            while metric(self.server, "vllm:num_requests_running") < min(num_streams, 32):
                await asyncio.sleep(0.02)
            begin = time.monotonic()
            self.server.process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*streams, return_exceptions=True)
            wrong = [answer for answer in answers if not isinstance(answer, str)]
            if wrong:
                self.failures.append(f"{len(wrong)} of {num_streams} streams did not end while draining: {wrong[0]!r}")
            return begin

        begin = asyncio.run(until_ended())
        exit_code = self.server.process.wait(timeout=SHUTDOWN_TIMEOUT_S + 5)
        if exit_code != 0:
            self.failures.append(f"exit code {exit_code} after SIGTERM")
        return time.monotonic() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600, help="both phases together")
    parser.add_argument("--bad-share", type=float, default=0.25)
    options = parser.parse_args()
    num_bad = int(options.clients * options.bad_share)

    # A small cache: it is full in the first seconds, so that a growing RSS means a leak. Slices, since an open step is
    # where a client that leaves is hardest to forget.
    with Server(args=("--max-num-seqs", "32", "--max-model-len", str(MAX_MODEL_LEN), "--block-size", "16",
                      "--num-gpu-blocks-override", "1024", "--max-itl-ms", "20",
                      "--shutdown-timeout", str(SHUTDOWN_TIMEOUT_S))) as server:
        bodies = request_bodies()
        expected = [asyncio.run(streamed_answer(server.host, server.port, body)) for body in bodies]
        soak = Soak(server, bodies, expected)
        alone, _ = soak.phase(options.clients - num_bad, 0, options.seconds / 2)
        among, samples = soak.phase(options.clients - num_bad, num_bad, options.seconds / 2)
        half = samples[len(samples) // 2]
        growth = max(samples[len(samples) // 2:]) / half - 1
        if growth > MAX_RSS_GROWTH:
            soak.failures.append(f"resident memory grew by {growth:.1%} in the second half: {samples}")
        p99_alone, p99_among = percentile(alone["gaps"], 0.99), percentile(among["gaps"], 0.99)
        if p99_among > MAX_ITL_RATIO * p99_alone:
            soak.failures.append("the bad clients slowed the others down")
        num_preemptions = metric(server, "vllm:num_preemptions_total")
        drained_s = soak.drain(40)
    print(f"alone:   {alone['answers']} answers, p50 {1000 * percentile(alone['gaps'], 0.5):.1f} ms, "
          f"p99 {1000 * p99_alone:.1f} ms from token to token")
    print(f"with {num_bad} bad clients: {among['answers']} answers, {among['misdeeds']} misdeeds, "
          f"p50 {1000 * percentile(among['gaps'], 0.5):.1f} ms, p99 {1000 * p99_among:.1f} ms "
          f"({p99_among / p99_alone:.2f} times, at most {MAX_ITL_RATIO})")
    print(f"RSS {samples[0] / 1e6:.0f} -> {samples[-1] / 1e6:.0f} MB (second half {growth:+.1%}), "
          f"{num_preemptions:.0f} preemptions, drained in {drained_s:.1f} s, {len(soak.failures)} failures")
    for failure in soak.failures[:10]:
        print(failure)
    return 1 if soak.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
