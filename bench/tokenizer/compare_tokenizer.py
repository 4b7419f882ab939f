#!/usr/bin/env python3
"""Encoding speed of one thread: hadal beside the `tokenizers` library of PyPI, on the same text in the same run.

    python3 -m venv VENV && VENV/bin/pip install tokenizers
    VENV/bin/python bench/tokenizer/compare_tokenizer.py --tokenizer DIR/tokenizer.json \\
        --bench BUILD/bin/bench_tokenizer [--json OUT.json]

Makes the text (corpus.py), runs both alternately, checks that every id is equal, and prints MB/s of CPU time (medians)
and their ratio. Exits 1 if the ids differ or the ratio is below --target.
"""

import os

# Before the library is loaded: it reads them once.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import argparse
import array
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tokenizers

from corpus import mixed_text


def cut_documents(text, max_bytes):
    """The cuts of bench_tokenizer: before the character that would make a document longer than max_bytes."""
    documents, begin = [], 0
    while begin < len(text):
        end = min(len(text), begin + max_bytes)
        while end < len(text) and text[end] & 0xC0 == 0x80:
            end -= 1
        documents.append(text[begin:end].decode())
        begin = end
    return documents


def run_peer(encode, documents):
    begin = time.thread_time()
    encodings = encode(documents)
    return time.thread_time() - begin, encodings


def peer_ways(tokenizer):
    """The library's entry points; the faster one counts. Reading the ids out is not timed."""
    return {
        "encode": lambda documents: [tokenizer.encode(d, add_special_tokens=False) for d in documents],
        "encode_batch_fast": lambda documents: tokenizer.encode_batch_fast(documents, add_special_tokens=False),
    }


def run_ours(args, folder, ids_path):
    command = [args.bench, "--model", folder, "--text", args.text, "--ids", ids_path, "--repetitions", "1",
               "--document-bytes", str(args.document_bytes)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def first_difference(ours, documents, encodings):
    """The document in which the ids differ first, or None."""
    at = 0
    for document, encoding in zip(documents, encodings):
        ids = array.array("i", encoding.ids)
        if ours[at : at + len(ids)] != ids:
            return document
        at += len(ids)
    return None if at == len(ours) else documents[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json, such as DeepSeek's")
    parser.add_argument("--bench", required=True, help="the program bench_tokenizer")
    parser.add_argument("--text", help="UTF-8 text to encode instead of the generated one")
    parser.add_argument("--megabytes", type=float, default=10, help="of generated text (default 10)")
    parser.add_argument("--document-bytes", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--target", type=float, default=5, help="ratio below which the exit code is 1 (default 5)")
    parser.add_argument("--json", help="also write the result here")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(args.tokenizer, Path(folder) / "tokenizer.json")
        if not args.text:
            args.text = str(Path(folder) / "corpus.txt")
            Path(args.text).write_bytes(mixed_text(int(args.megabytes * 1e6)))
        text = Path(args.text).read_bytes()
        documents = cut_documents(text, args.document_bytes)
        peer = tokenizers.Tokenizer.from_file(args.tokenizer)
        ways = peer_ways(peer)
        seconds = {name: [] for name in ways}
        ours = []
        ids_path = str(Path(folder) / "ids")
        for _ in range(args.repetitions):
            for name, way in ways.items():
                spent, encodings = run_peer(way, documents)
                seconds[name].append(spent)
            ours.append(run_ours(args, folder, ids_path))
        our_ids = array.array("i", Path(ids_path).read_bytes())
    different = first_difference(our_ids, documents, encodings)

    megabytes = len(text) / 1e6
    peer_speed = {name: megabytes / statistics.median(spent) for name, spent in seconds.items()}
    best = max(peer_speed, key=peer_speed.get)
    our_speed = statistics.median(run["mb_per_s"]["median"] for run in ours)
    result = {
        "bytes": len(text),
        "tokens": len(our_ids),
        "checksum": ours[-1]["checksum"],
        "same_ids": different is None,
        "hadal_mb_per_s": our_speed,
        "tokenizers_version": tokenizers.__version__,
        "tokenizers_mb_per_s": peer_speed,
        "ratio": our_speed / peer_speed[best],
    }
    print(f"{megabytes:.1f} MB, {len(documents)} documents, {len(our_ids)} tokens, one thread")
    for name, speed in peer_speed.items():
        print(f"tokenizers {tokenizers.__version__} {name:18} {speed:7.2f} MB/s")
    print(f"hadal                             {our_speed:7.2f} MB/s   {result['ratio']:.1f} x the faster")
    print(f"ids equal: {'yes' if different is None else 'NO'}   checksum {result['checksum']}")
    if different is not None:
        print(f"first document that differs: {different[:200]!r}", file=sys.stderr)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if different is None and result["ratio"] >= args.target else 1


if __name__ == "__main__":
    sys.exit(main())
