"""Endless training batches: examples of similar length together, so that little is spent on padding."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from corpus import CorpusMaker, Example

PAD_ID = 2
POOL_BATCHES = 24
FEWEST_ROWS = 4  # a pool's last batch can be a remnant, too small to share among workers


@dataclass(frozen=True)
class Batch:
    """`weight[b, t]` is a token's weight in the loss; sequences start at position 0 and are padded on the right."""

    tokens: Tensor
    weight: Tensor


def _encode(tokenizer: Tokenizer, examples: list[Example]) -> list[tuple[list[int], int]]:
    """Prompt and completion are encoded apart, as a server does: no merge crosses the seam."""
    texts = [text for e in examples for text in (e.prompt, e.completion)]
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    return [(prompt + completion, len(prompt)) for prompt, completion in zip(ids[::2], ids[1::2])]


class LossWeights:
    """Zero for the prompt, one for the completion, more for the digits that have to be computed."""

    def __init__(self, tokenizer: Tokenizer, result_weight: float) -> None:
        self._equals = {tokenizer.token_to_id(sign) for sign in ("=", "Ġ=")}
        self._digits = {tokenizer.token_to_id(str(digit)) for digit in range(10)}
        self._signs = self._equals | {tokenizer.token_to_id(sign) for sign in "+-*/"}
        self._result_weight = result_weight

    def of(self, ids: list[int], start: int) -> list[float]:
        weights, in_result = [0.0] * start, False
        for token in ids[start:]:
            in_result = token in self._equals or (in_result and (token in self._digits or token in self._signs))
            weights.append(self._result_weight if in_result and token in self._digits else 1.0)
        return weights


def _pack(rows: list[tuple[list[int], int]], weights: LossWeights) -> Batch:
    width = -(-max(len(ids) for ids, _ in rows) // 8) * 8
    tokens = torch.full((len(rows), width), PAD_ID)
    weight = torch.zeros(len(rows), width)
    for i, (ids, start) in enumerate(rows):
        tokens[i, : len(ids)] = torch.tensor(ids)
        weight[i, : len(ids)] = torch.tensor(weights.of(ids, start))
    return Batch(tokens, weight)


class BatchMaker:
    """Pools are numbered and seeded one by one, so that a resumed run goes on with fresh examples."""

    def __init__(self, tokenizer: Tokenizer, maker: CorpusMaker, seed: int, batch_tokens: int, result_weight: float) -> None:
        self._weights = LossWeights(tokenizer, result_weight)
        self._tokenizer, self._maker, self._seed, self._batch_tokens = tokenizer, maker, seed, batch_tokens

    def _pool(self, number: int) -> list[Batch]:
        rng = random.Random(f"{self._seed}:{number}")
        rows: list[tuple[list[int], int]] = []
        total = 0
        while total < POOL_BATCHES * self._batch_tokens:
            fresh = _encode(self._tokenizer, [self._maker.example(rng) for _ in range(256)])
            total += sum(len(ids) for ids, _ in fresh)
            rows += fresh
        rows.sort(key=lambda row: len(row[0]))
        batches, start = [], 0
        for end in range(1, len(rows) + 1):
            if end == len(rows) or (end + 1 - start) * len(rows[end][0]) > self._batch_tokens:
                if end - start >= FEWEST_ROWS:
                    batches.append(_pack(rows[start:end], self._weights))
                start = end
        rng.shuffle(batches)
        return batches

    def batches(self, first_pool: int) -> Iterator[tuple[int, Batch]]:
        """Yields (pool number, batch) for ever."""
        number = first_pool
        while True:
            for batch in self._pool(number):
                yield number, batch
            number += 1
