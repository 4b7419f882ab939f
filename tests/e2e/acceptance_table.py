"""The table of the forty acceptance checks of an OpenAI-compatible server (vLLM's tests, lm_eval and the benchmark client are
what they come from): number, what is asked, what must hold. The checks are in acceptance_{server,completions,chat,load}.py,
standard library only; acceptance_test.py runs them.

Checks of what a model has to write (33 to 36) hold on nano where it can write it; C++ tests with scripted answers cover the
rest, and the check says which. lm_eval's part of check 40 is lm_eval_test.py."""
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Callable

from serving import Server

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROBLEM = "Question: Tom has 3 apples and buys 4 more. How many apples does he have?\nAnswer:"
LIST = "List 3 countries and their capitals."
TALK = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": LIST}]
GREEDY = {"temperature": 0}


@dataclass(frozen=True)
class Check:
    number: int
    asks: str
    run: Callable[[Server], str | None]  # -> a remark to print; raises AssertionError
    own_server: tuple[str, ...] | None  # flags of a server of its own; None: the shared one


TABLE: list[Check] = []


def check(number: int, asks: str, *, own_server: tuple[str, ...] | None = None):
    def register(run):
        TABLE.append(Check(number, asks, run, own_server))
        return run
    return register


def equal(found: object, expected: object, what: str = "") -> None:
    assert found == expected, f"{what}: expected {expected!r}, found {found!r}"


def error_of(server: Server, path: str, body: object, status: int, *fragments: str,
             headers: dict[str, str] | None = None, method: str = "POST") -> dict:
    """A nested JSON error of that status whose message holds the fragments."""
    found, _, text = server.call(method, path, body, headers)
    equal(found, status, f"{method} {path} {str(body)[:200]}: {text[:300]}")
    error = json.loads(text)["error"]
    equal(error["code"], status)
    for fragment in fragments:
        assert fragment in error["message"], f"{fragment!r} is not in {error['message']!r}"
    return error


def tokens_of(server: Server, text: str, special: bool = True) -> list[int]:
    return server.post("/tokenize", {"prompt": text, "add_special_tokens": special})["tokens"]


def complete(server: Server, **fields: object) -> dict:
    return server.post(COMPLETIONS, {"prompt": PROBLEM, "max_tokens": 5, **GREEDY, **fields})


def text_of(answer: dict) -> str:
    return answer["choices"][0]["text"]


def metric(server: Server, name: str, **labels: str) -> float:
    """Sum over the series of that name with these labels."""
    total, found = 0.0, False
    for line in server.call("GET", "/metrics")[2].splitlines():
        series, _, value = line.rpartition(" ")
        if series.split("{")[0] == name and all(f'{key}="{label}"' in series for key, label in labels.items()):
            total, found = total + float(value), True
    assert found, f"no metric {name} {labels}"
    return total
