"""Greedy accuracy of an exported folder on the held-out problems, and its answers to the seed requests."""

import argparse
import random
import re
from collections import Counter
from pathlib import Path

import torch

from corpus import BOS, CorpusMaker, chat_prompt, raw_problem_prompt
from exported import greedy, load_exported
from facts import CAPITALS
from heldout import held_out_keys, held_out_problems
from layers import Gate
from problems import STEP_COUNT, gsm8k_answer

SEED_REQUESTS = ("List 3 countries and their capitals.", "列出 3 个国家和它们的首都。")
OTHER_REQUESTS = ("Hello!", "Who are you?", "你好", "你是谁？", "What is the capital of Mongolia?", "冰岛的首都是哪里？")
LIMIT = 128


def is_right(text: str, result: int) -> bool:
    found = re.search(r"#### (-?\d+)", text)
    return found is not None and int(found.group(1)) == result


def capitals_right(text: str, count: int) -> bool:
    """`count` distinct countries, each with its own capital, after the thought."""
    lines = [line for line in text.split("</think>")[-1].splitlines() if line.strip()]
    pairs = {(country, capital) for row in CAPITALS for country, capital in (row[:2], row[2:])}
    named = [tuple(re.sub(r"^\d+\. ", "", line).replace("：", ": ").split(": ", 1)) for line in lines]
    return len(named) == count == len(set(named)) and all(pair in pairs for pair in named)


def few_shot_prefix(rng: random.Random, maker: CorpusMaker, count: int) -> str:
    shots = [maker.problem(rng) for _ in range(count)]
    return "".join(f"Question: {s.question}\nAnswer: {gsm8k_answer(s)}\n\n" for s in shots)


def prompts_of(form: str, questions: list[str]) -> list[str]:
    if form == "chat":
        return [chat_prompt(question) for question in questions]
    if form == "raw":
        return [raw_problem_prompt(question) for question in questions]
    rng, maker = random.Random("shots"), CorpusMaker(held_out_keys())
    return [raw_problem_prompt(question, few_shot_prefix(rng, maker, 5)) for question in questions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/nano"))
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--forms", nargs="+", default=["chat", "raw", "raw5"])
    parser.add_argument("--wrong", type=int, default=0, help="show so many wrong answers")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, tokenizer = load_exported(arguments.model)
    for prompt in (p for r in SEED_REQUESTS for p in (chat_prompt(r), BOS + r)):
        text = greedy(model, tokenizer, [prompt], LIMIT)[0]
        print("right" if capitals_right(text, 3) else "WRONG", repr(prompt), "->", repr(text))
    for request, text in zip(OTHER_REQUESTS, greedy(model, tokenizer, [chat_prompt(r) for r in OTHER_REQUESTS], LIMIT)):
        print(request, "->", repr(text))
    problems = held_out_problems()[: arguments.count]
    for form in arguments.forms:
        prompts = prompts_of(form, [p.question for p in problems])
        texts = greedy(model, tokenizer, prompts, LIMIT)
        right, seen = Counter(), Counter()
        for problem, text in zip(problems, texts):
            good = is_right(text, problem.result)
            for group in ("all", problem.language, f"{STEP_COUNT[problem.template]} step", problem.template):
                seen[group] += 1
                right[group] += good
            if not good and arguments.wrong > 0:
                arguments.wrong -= 1
                print("wrong:", problem.question, problem.steps, repr(text))
        print(form, "  ".join(f"{group} {right[group]}/{seen[group]}={right[group] / seen[group]:.1%}" for group in seen), flush=True)
    for gate in (module for module in model.modules() if isinstance(module, Gate)):
        print("selection bias", [round(b, 3) for b in gate.e_score_correction_bias.tolist()])


if __name__ == "__main__":
    main()
