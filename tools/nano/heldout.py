"""The held-out set: 500 problems fixed by seed, kept out of training by key."""

import argparse
import json
import random
from pathlib import Path

from problems import TEMPLATES, Problem, gsm8k_answer, make_problem

SEED, COUNT = 20260, 500


def held_out_problems() -> list[Problem]:
    """Templates and languages in turn, no two with the same key."""
    rng = random.Random(SEED)
    chosen: dict[str, Problem] = {}
    order = [(template, language) for template in TEMPLATES for language in ("en", "zh")]
    while len(chosen) < COUNT:
        template, language = order[len(chosen) % len(order)]
        problem = make_problem(rng, template, language)
        chosen.setdefault(problem.key, problem)
    return list(chosen.values())


def held_out_keys() -> frozenset[str]:
    return frozenset(problem.key for problem in held_out_problems())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("models/nano/heldout.jsonl"))
    out = parser.parse_args().out
    rows = [{"question": p.question, "answer": gsm8k_answer(p)} for p in held_out_problems()]
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
