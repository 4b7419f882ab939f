"""What a long prompt does to running streams, without and with --max-itl-ms: a table, and a plot if asked for.

Some clients stream all the time. After a while a long prompt arrives. Counted are the times from a token to the next of
the same stream, before it came and until it got its first token. With the target, set by --factor from what they were
before, their 99th percentile must stay within --limit times that of before.

Usage: long_prompt_long.py [--model models/nano] [--prompt-tokens 30000] [--plot docs/latency.svg] [--json out.json]
"""
from __future__ import annotations

import argparse
import json
import math
import os
import random
import selectors
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from serving import Server


@dataclass
class Client:
    """One connection that streams completions, one after another, and notes when each event came."""

    server: Server
    body: dict
    repeats: bool
    socket: socket.socket | None = None
    last: float | None = None  # when the last token came
    gaps: list[tuple[float, float]] = field(default_factory=list)  # (when, seconds since the token before)
    first: float | None = None
    pending: bytes = b""

    def start(self, selector: selectors.BaseSelector) -> None:
        body = json.dumps({**self.body, "stream": True}).encode()
        self.socket = socket.create_connection((self.server.host, self.server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.socket.setblocking(False)
        self.last, self.pending = None, b""
        selector.register(self.socket, selectors.EVENT_READ, self)

    def read(self, selector: selectors.BaseSelector) -> None:
        data = self.socket.recv(1 << 16)
        now = time.monotonic()
        if not data:
            selector.unregister(self.socket)
            self.socket.close()
            if self.first is None:
                raise RuntimeError(f"no token: {self.pending.decode(errors='replace')}")
            if self.repeats:
                self.start(selector)
            return
        if self.first is None and len(self.pending) < 4096:
            self.pending += data
        # Events that came together are one: what a reader sees is a pause and then several tokens.
        if b"data: {" in data:
            if self.last is not None:
                self.gaps.append((now, now - self.last))
            self.first = self.first or now
            self.last = now


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(options: argparse.Namespace, target_ms: float) -> dict:
    generator = random.Random(1)
    vocab = json.loads((Path(options.model) / "config.json").read_text())["vocab_size"]

    def prompt(length: int) -> list[int]:
        return [generator.randrange(10, min(vocab, 256)) for _ in range(length)]

    args = ["--max-num-seqs", "16", "--no-enable-prefix-caching", "--threads", str(options.threads)]
    if target_ms > 0:
        args += ["--max-itl-ms", f"{target_ms:.3f}"]
    with Server(args=tuple(args), model=options.model) as server, selectors.DefaultSelector() as selector:
        def work_until(done) -> None:
            while not done():
                for key, _ in selector.select(0.05):
                    key.data.read(selector)

        clients = [Client(server, {"prompt": prompt(16), "max_tokens": 1000 - 31 * i, "ignore_eos": True,
                                   "temperature": 0}, True) for i in range(options.streams)]
        for client in clients:
            client.start(selector)
        warm = time.monotonic() + options.warm_seconds
        work_until(lambda: time.monotonic() > warm)
        before = time.monotonic()
        work_until(lambda: time.monotonic() > before + options.before_seconds)
        long = Client(server, {"prompt": prompt(options.prompt_tokens), "max_tokens": 1}, False)
        arrived = time.monotonic()
        long.start(selector)
        work_until(lambda: long.first is not None)
        gaps = [gap for client in clients for gap in client.gaps]
        # A pause that began before the answer and ended after it belongs to it.
        after = time.monotonic() + 3
        work_until(lambda: time.monotonic() > after)
        late = [gap for client in clients for gap in client.gaps[-2000:] if gap[0] > long.first]
        gaps += [(when, gap) for when, gap in late if when - gap < long.first]
        for client in clients:
            client.socket.close()
    windows = {"before": [gap for when, gap in gaps if before < when <= arrived],
               "during": [gap for when, gap in gaps if when > arrived]}
    result = {"target_ms": target_ms, "ttft_s": long.first - arrived,
              "series": [(when - arrived, gap) for when, gap in sorted(gaps) if when > before]}
    for name, values in windows.items():
        result[name] = {"count": len(values), "p50_ms": 1000 * percentile(values, 0.5),
                        "p99_ms": 1000 * percentile(values, 0.99), "max_ms": 1000 * max(values)}
    return result


def plot(path: Path, runs: dict[str, dict], title: str) -> None:
    """The longest and the median pause of every bin of time, on a logarithmic axis, one panel a run."""
    width, height, left, top, gap = 860, 230, 70, 46, 54
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + len(runs) * (height + gap)}" '
             f'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left}" y="22" font-size="15">{title}</text>']
    low, high = 0.3, max(10.0, max(1000 * value for run in runs.values() for _, value in run["series"])) * 1.2
    for panel, (name, result) in enumerate(runs.items()):
        y0, series = top + panel * (height + gap), result["series"]
        begin, end = series[0][0], max(result["ttft_s"] * 1.02, 1)
        x = lambda t: left + (t - begin) / (end - begin) * (width - left - 20)
        y = lambda ms: y0 + height - math.log(max(ms, low) / low) / math.log(high / low) * height
        lines.append(f'<rect x="{x(0):.1f}" y="{y0}" width="{x(result["ttft_s"]) - x(0):.1f}" height="{height}" '
                     'fill="#f3ead7"/>')
        lines.append(f'<text x="{left}" y="{y0 - 6}">{name}</text>')
        for tick in (10**power for power in range(6) if low <= 10**power <= high):
            lines.append(f'<path d="M{left} {y(tick):.1f}H{width - 20}" stroke="#ddd"/>'
                         f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g} ms</text>')
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500) if (end - begin) / s <= 12)
        for second in range(int(begin // step) * step, int(end) + 1, step):
            if second >= begin:
                lines.append(f'<text x="{x(second):.1f}" y="{y0 + height + 16}" text-anchor="middle">{second} s</text>')
        num_bins = 220
        bins: list[list[float]] = [[] for _ in range(num_bins)]
        for when, value in series:
            if when <= end:
                bins[min(num_bins - 1, int((when - begin) / (end - begin) * num_bins))].append(1000 * value)
        for color, pick in (("#c0392b", max), ("#2c3e50", lambda values: percentile(values, 0.5))):
            points = " ".join(f"{x(begin + (i + 0.5) * (end - begin) / num_bins):.1f},{y(pick(values)):.1f}"
                              for i, values in enumerate(bins) if values)
            lines.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.3"/>')
    lines.append(f'<text x="{width - 20}" y="22" text-anchor="end"><tspan fill="#c0392b">longest</tspan> and '
                 '<tspan fill="#2c3e50">median</tspan> pause; shaded: until the prompt has its first token</text></svg>')
    path.write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/nano", help="relative to the repository")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=30000)
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) // 2),
                        help="of the server; the client needs a core of its own")
    parser.add_argument("--factor", type=float, default=0.55, help="the target, in 99th percentiles of before; where "
                        "the median is near them, 1.4 medians")
    parser.add_argument("--target-ms", type=float, default=0, help="instead of --factor")
    parser.add_argument("--limit", type=float, default=1.5)
    parser.add_argument("--warm-seconds", type=float, default=4)
    parser.add_argument("--before-seconds", type=float, default=8)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.chdir(Path(__file__).resolve().parents[2])

    without = run(options, 0)
    target_ms = options.target_ms or max(options.factor * without["before"]["p99_ms"], 1.4 * without["before"]["p50_ms"])
    runs = {"without": without, f"--max-itl-ms {target_ms:.2f}": run(options, target_ms)}
    print(f"{options.streams} streams, then a prompt of {options.prompt_tokens} tokens; {options.model}, "
          f"{options.threads} thread(s); milliseconds from token to token")
    print(f"{'':24}{'before p50':>11}{'p99':>8}{'max':>9}{'during p50':>12}{'p99':>9}{'max':>9}{'ratio p99':>11}"
          f"{'prompt TTFT':>13}")
    for name, result in runs.items():
        before, during = result["before"], result["during"]
        print(f"{name:24}{before['p50_ms']:11.2f}{before['p99_ms']:8.2f}{before['max_ms']:9.2f}{during['p50_ms']:12.2f}"
              f"{during['p99_ms']:9.2f}{during['max_ms']:9.2f}{during['p99_ms'] / before['p99_ms']:11.2f}"
              f"{result['ttft_s']:11.1f} s")
    if options.plot:
        plot(options.plot, runs, f"A prompt of {options.prompt_tokens:,} tokens among {options.streams} streams")
    if options.json:
        options.json.write_text(json.dumps({name: {key: value for key, value in result.items() if key != "series"}
                                            for name, result in runs.items()}, indent=1))
    with_target = list(runs.values())[1]
    ratio = with_target["during"]["p99_ms"] / with_target["before"]["p99_ms"]
    print(f"with the target: p99 {ratio:.2f} times that of before, at most {options.limit} asked for")
    return 0 if ratio <= options.limit else 1


if __name__ == "__main__":
    raise SystemExit(main())
