"""What the tests of several ranks share: a fixed set of requests, and processes of a server's ranks."""
from __future__ import annotations

import concurrent.futures
import json
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from serving import Server  # noqa: E402

LONG_PROMPT = " ".join(f"Line {i}: the {i * 7 % 13}th lamp of corridor {i % 5} is {'lit' if i % 3 else 'dark'}."
                       for i in range(60))
RANK_LINE = re.compile(r"rank (\d+)\s+node (\d+), pid (\d+)")
PATIENCE_S = 180  # for what takes seconds on an idle machine


def ranked(num_ranks: int, *args: str, expert_parallel: bool = False, **kwargs) -> Server:
    flags = ["--tensor-parallel-size", str(num_ranks), *args]
    if expert_parallel:
        flags.append("--enable-expert-parallel")
    return Server(args=tuple(flags), **kwargs)


def fixed_requests() -> list[tuple[str, dict]]:
    """Greedy, sampled, with log-probabilities, long, and as a conversation."""
    completions = [
        {"prompt": "The capital of France is", "max_tokens": 24, "temperature": 0, "logprobs": 5},
        {"prompt": "One two three", "max_tokens": 24, "temperature": 0.9, "top_p": 0.9, "seed": 11, "logprobs": 3},
        {"prompt": "Water boils", "max_tokens": 16, "temperature": 1.2, "seed": 5, "n": 2, "logprobs": 1,
         "repetition_penalty": 1.1},
        {"prompt": LONG_PROMPT, "max_tokens": 16, "temperature": 0, "logprobs": 2},
        {"prompt": LONG_PROMPT[:700], "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1},
    ]
    chats = [{"messages": [{"role": "user", "content": "List 3 countries and their capitals."}], "max_tokens": 32,
              "temperature": 0, "logprobs": True, "top_logprobs": 4}]
    return [("/v1/completions", body) for body in completions] + [("/v1/chat/completions", body) for body in chats]


def crowd() -> list[tuple[str, dict]]:
    """For asking at once."""
    return [("/v1/completions", {"prompt": f"Number {i} of {'many ' * (i * 3 % 40)}", "max_tokens": 12 + i % 9,
                                 "temperature": 0.8 if i % 2 else 0, "seed": i, "logprobs": 2}) for i in range(20)]


def answer_of(server: Server, request: tuple[str, dict]) -> str:
    path, body = request
    answer = server.post(path, body)
    return json.dumps([answer["choices"], answer["usage"]["completion_tokens"]], sort_keys=True)


def answers_to(server: Server, in_turn: list[tuple[str, dict]], at_once: list[tuple[str, dict]]) -> list[str]:
    """Everything that must not depend on the number of ranks: text, tokens, log-probabilities to the last digit."""
    answers = [answer_of(server, request) for request in in_turn]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers += pool.map(lambda request: answer_of(server, request), at_once)
    return answers


def all_answers(server: Server) -> list[str]:
    return answers_to(server, fixed_requests(), crowd())


def few_answers(server: Server) -> list[str]:
    """Greedy, sampled, as a conversation, and some at once: short ones, where ranks share processors."""
    requests = fixed_requests()
    return answers_to(server, [*requests[:2], requests[-1]], crowd()[:6])


def pids_by_rank(server: Server) -> dict[int, int]:
    """Of the last table that the server printed."""
    return {int(match[1]): int(match[3]) for match in map(RANK_LINE.search, server.lines) if match}


def health(server: Server) -> tuple[int, str]:
    status, _, text = server.call("GET", "/health")
    return status, text


def num_restarts(server: Server) -> int:
    return sum("; restart " in line for line in server.lines)


def wait_until(what: str, condition, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
