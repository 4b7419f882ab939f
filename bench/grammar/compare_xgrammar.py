#!/usr/bin/env python3
"""The documents of bench_grammar through xgrammar, the engine behind vLLM's structured output, on one thread.

Needs the Python packages xgrammar and tokenizers. Its times are those of its Python calls, which end in C++ at once.
"""

import argparse
import json
import subprocess
import time

import tokenizers
import xgrammar


def summary(us):
    us = sorted(us)
    return us[len(us) // 2], us[int(0.99 * (len(us) - 1))], us[-1]


def walk(compiled, ids, bitmask):
    matcher = xgrammar.GrammarMatcher(compiled, terminate_without_stop_token=True)
    us = []
    for token in ids:
        begin = time.thread_time_ns()
        matcher.fill_next_token_bitmask(bitmask)
        us.append((time.thread_time_ns() - begin) / 1e3)
        if not matcher.accept_token(token):
            return None
    return us


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json")
    parser.add_argument("--bench", required=True, help="bench_grammar")
    parser.add_argument("--repetitions", type=int, default=20)
    args = parser.parse_args()

    ours = json.loads(subprocess.run([args.bench, "--tokenizer", args.tokenizer, "--json"], check=True,
                                     capture_output=True).stdout)
    tokenizer = tokenizers.Tokenizer.from_file(args.tokenizer)
    vocabulary = [""] * tokenizer.get_vocab_size()
    for text, token in tokenizer.get_vocab().items():
        vocabulary[token] = text
    info = xgrammar.TokenizerInfo(vocabulary, vocab_type=xgrammar.VocabType.BYTE_LEVEL, stop_token_ids=[1])
    bitmask = xgrammar.allocate_token_bitmask(1, len(vocabulary))

    print(f"{'':20} {'':7} {'compile, ms':>12} {'first request: median':>22} {'p99':>9} {'max':>9}"
          f" {'later, us: median':>18} {'p99':>8}")
    for row in ours["cases"]:
        source = row["source"]
        if source is None:
            continue
        first, later = row["first_request_mask_us"], row["later_mask_us"]
        print(f"{row['case']:20} {'hadal':7} {row['compile_ms']:12.2f} {first['median']:22.1f} {first['p99']:9.1f}"
              f" {first['max']:9.1f} {later['median']:18.1f} {later['p99']:8.1f}")
        compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        begin = time.thread_time_ns()
        if "schema" in source:
            compiled = compiler.compile_json_schema(json.dumps(source["schema"]), any_whitespace=True)
        else:
            compiled = compiler.compile_regex(source["regex"])
        compile_ms = (time.thread_time_ns() - begin) / 1e6
        texts = [tokenizer.encode(text, add_special_tokens=False).ids for text in row["texts"]]
        walks = [[walk(compiled, ids, bitmask) for ids in texts] for _ in range(args.repetitions + 1)]
        if any(us is None for one in walks for us in one):
            print(f"{'':20} xgrammar refuses the document")
            continue
        first = summary([t for us in walks[0] for t in us])
        later = summary([t for one in walks[1:] for us in one for t in us])
        print(f"{'':20} {'theirs':7} {compile_ms:12.2f} {first[0]:22.1f} {first[1]:9.1f} {first[2]:9.1f}"
              f" {later[0]:18.1f} {later[1]:8.1f}")


if __name__ == "__main__":
    main()
