"""Trains the byte-level BPE tokenizer on generated text and lays it out as DeepSeek's tokenizer.json."""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from coverage_text import COVERAGE_EN, COVERAGE_ZH
from corpus import BOS, EOS, PAD, CorpusMaker
from heldout import held_out_keys
from markers import MARKERS

BASE_VOCAB = 2000  # special tokens 0..2, 256 bytes, merges; the markers follow
CJK = "[一-龥぀-ゟ゠-ヿ]+"
WORDS = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
         "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
MAX_TOKEN_BYTES = 12  # four Chinese characters: longer merges would swallow whole phrases, numbers' neighbours included


def _splitter() -> pre_tokenizers.PreTokenizer:
    """DeepSeek's three splits, except that every digit stands alone: arithmetic is learnt digit by digit."""
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated", invert=False) for pattern in (r"\p{N}", CJK, WORDS)]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _texts(count: int) -> Iterator[str]:
    maker, rng = CorpusMaker(held_out_keys()), random.Random("tokenizer")
    for _ in range(count):
        example = maker.example(rng)
        text = example.prompt + example.completion
        for marker in (BOS, EOS, *(m.content for m in MARKERS)):
            text = text.replace(marker, "\n")
        yield text
    for _ in range(30):
        yield from COVERAGE_EN
        yield from COVERAGE_ZH


def _added(token_id: int, content: str, special: bool, normalized: bool) -> dict[str, object]:
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": normalized, "special": special}


def build(sample: int) -> dict[str, object]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=True, trim_offsets=False, use_regex=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=BASE_VOCAB, special_tokens=[BOS, EOS, PAD], initial_alphabet=alphabet,
                                  max_token_length=MAX_TOKEN_BYTES, show_progress=False)
    tokenizer.train_from_iterator(_texts(sample), trainer)
    layout = json.loads(tokenizer.to_str())
    layout["normalizer"] = {"type": "Sequence", "normalizers": []}
    layout["added_tokens"] = [_added(i, content, True, False) for i, content in enumerate((BOS, EOS, PAD))]
    size = len(layout["model"]["vocab"])
    layout["added_tokens"] += [_added(size + i, m.content, m.special, m.normalized) for i, m in enumerate(MARKERS)]
    layout["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in layout["model"]["merges"]]
    layout["model"].pop("ignore_merges", None)
    return layout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("models/nano/tokenizer.json"))
    parser.add_argument("--sample", type=int, default=40000, help="generated texts to train on")
    arguments = parser.parse_args()
    layout = build(arguments.sample)
    arguments.out.write_text(json.dumps(layout, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
