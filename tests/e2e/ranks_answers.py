"""Questions whose answers must be the same for every number of ranks, to the last bit of the log-probabilities."""
from __future__ import annotations

from serving import Server

QUESTIONS = [
    {"prompt": "Tom has 3 apples and buys 4 more. How many apples does he have?", "max_tokens": 48, "temperature": 0, "logprobs": 3},
    {"prompt": "The capital of France is", "max_tokens": 24, "temperature": 0.8, "seed": 7, "logprobs": 1},
    {"prompt": [5, 6, 7, 8, 9, 10] * 40, "max_tokens": 8, "temperature": 0, "logprobs": 5},
]


def answers(server: Server) -> list[tuple]:
    """-> text, tokens and log-probabilities of each"""
    choices = [server.post("/v1/completions", question)["choices"][0] for question in QUESTIONS]
    return [(choice["text"], choice["finish_reason"], choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"],
             choice["logprobs"]["top_logprobs"]) for choice in choices]


def answers_of_one_process() -> list[tuple]:
    with Server() as server:
        return answers(server)
