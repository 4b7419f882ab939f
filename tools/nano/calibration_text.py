"""Writes models/nano/calibration.jsonl: documents for `hadal calibrate`, drawn as training was and held out from nothing.

A document is a run of exchanges in the forms that the model knows, chat and raw, without the problems of heldout.jsonl.
"""

import argparse
import json
import random
from pathlib import Path

from tokenizers import Tokenizer

from corpus import BOS, EOS, CorpusMaker
from heldout import held_out_keys


def document(rng: random.Random, maker: CorpusMaker, tokenizer: Tokenizer, least_tokens: int) -> str:
    text = ""
    while len(tokenizer.encode(text, add_special_tokens=False).ids) < least_tokens:
        example = maker.example(rng)
        text += example.prompt.removeprefix(BOS) + example.completion.removesuffix(EOS) + "\n\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/nano"))
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=512, help="of a document, at least")
    parser.add_argument("--seed", type=int, default=2024)
    arguments = parser.parse_args()
    rng, maker = random.Random(arguments.seed), CorpusMaker(held_out_keys())
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    lines = [json.dumps({"text": document(rng, maker, tokenizer, arguments.tokens)}, ensure_ascii=False)
             for _ in range(arguments.documents)]
    (arguments.model / "calibration.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
