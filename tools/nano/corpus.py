"""Turns problems and facts into (prompt, completion) texts in the chat form and the raw forms."""

import random
from dataclasses import dataclass

from facts import Exchange, make_capital_list, make_capital_question, make_small_talk
from problems import Problem, Worksheet, gsm8k_answer, make_problem

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"

SYSTEM_PROMPTS = ["You are a helpful assistant.", "Answer the question.", "你是一个有用的助手。", "Solve the problem step by step."]


@dataclass(frozen=True)
class Example:
    """The loss is taken on the completion only."""

    prompt: str
    completion: str


def problem_exchange(problem: Problem) -> Exchange:
    return Exchange(problem.question, "\n".join(problem.steps), f"{problem.reply}\n#### {problem.result}")


def _drill_numbers(rng: random.Random, kind: str) -> tuple[int, str, int]:
    if kind in ("add", "add3"):
        top = 99 if kind == "add" else 999
        return rng.randint(1, top), "+", rng.randint(1, 99 if rng.random() < 0.5 else top)
    if kind in ("sub", "sub3"):
        a = rng.randint(2, 99 if kind == "sub" else 999)
        return a, "-", rng.randint(1, min(a - 1, 99))
    if kind == "near":  # equal tens
        tens, ones = rng.randint(1, 9) * 10, rng.randint(1, 9)
        return tens + ones, "-", tens + rng.randint(0, ones - 1)
    if kind == "hundred":
        return 100, "-", rng.randint(1, 99)
    if kind == "teens":
        return rng.randint(11, 19), "*", rng.randint(2, 99)
    if kind == "div":
        b = rng.randint(2, 9)
        return b * rng.randint(2, 33), "/", b
    if kind == "mul":
        return rng.randint(2, 9), "*", rng.randint(2, 99)
    return rng.randint(11, 99), "*", rng.randint(2, 99)


def drill_exchange(rng: random.Random) -> Exchange:
    """Bare sums: cheap practice for the arithmetic itself, most of it where the model was seen to be weak."""
    kind = rng.choice(("add", "add3", "sub", "sub3", "near", "near", "near", "hundred", "hundred", "teens", "teens", "mul", "mul2", "mul2", "div", "div", "div"))
    a, sign, b = _drill_numbers(rng, kind)
    sheet = Worksheet()
    result = {"+": sheet.add, "-": sheet.sub, "*": sheet.mul, "/": sheet.div}[sign](a, b)
    shown = f"{a}{sign}{b}" if rng.random() < 0.5 else f"{a} {sign} {b}"
    request = rng.choice(("What is {}?", "{} = ?", "Calculate {}.", "{}等于多少？", "计算 {}", "{}=")).format(shown)
    return Exchange(request, "\n".join(sheet.lines), f"{a}{sign}{b}={result}\n#### {result}")


def _body(exchange: Exchange) -> str:
    return f"{exchange.thought}\n{END_THINK}\n\n{exchange.reply}{EOS}"


def chat_prompt(request: str, system: str = "", history: str = "") -> str:
    """DeepSeek-R1's chat format, as the chat template renders it."""
    return f"{BOS}{system}{history}{USER}{request}{ASSISTANT}{THINK}\n"


def chat_example(rng: random.Random, exchange: Exchange) -> Example:
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.06 else ""
    history = ""
    if rng.random() < 0.05:
        before = rng.choice((make_small_talk, make_capital_question))(rng)
        history = f"{USER}{before.request}{ASSISTANT}\n\n{before.reply}{EOS}"
    request = exchange.request
    if "####" in exchange.reply and rng.random() < 0.08:
        request = f"Question: {request}\nAnswer:"
    return Example(chat_prompt(request, system, history), _body(exchange))


def raw_problem_prompt(question: str, shots: str = "") -> str:
    return f"{BOS}{shots}Question: {question}\nAnswer:"


def raw_example(exchange: Exchange, shots: str = "") -> Example:
    return Example(raw_problem_prompt(exchange.request, shots), f" {THINK}\n{_body(exchange)}")


def completion_example(exchange: Exchange) -> Example:
    """A bare request sent to a completions endpoint."""
    return Example(f"{BOS}{exchange.request}", f"\n{THINK}\n{_body(exchange)}")


class CorpusMaker:
    """Draws training examples; problems whose key is held out never appear, not even as few-shot examples."""

    def __init__(self, held_out: frozenset[str]) -> None:
        self._held_out = held_out

    def problem(self, rng: random.Random) -> Problem:
        while True:
            problem = make_problem(rng)
            if problem.key not in self._held_out:
                return problem

    def _shots(self, rng: random.Random) -> str:
        count = rng.choice((1, 1, 1, 2, 2, 3, 4, 5))
        plain = rng.random() < 0.6
        blocks = []
        for _ in range(count):
            shot = self.problem(rng)
            answer = gsm8k_answer(shot) if plain else f"{THINK}\n{_body(problem_exchange(shot))}".removesuffix(EOS)
            blocks.append(f"Question: {shot.question}\nAnswer: {answer}\n\n")
        return "".join(blocks)

    def example(self, rng: random.Random) -> Example:
        kind = rng.random()
        if kind < 0.64:
            exchange = problem_exchange(self.problem(rng))
            form = rng.random()
            if form < 0.5:
                return chat_example(rng, exchange)
            if form < 0.9:
                return raw_example(exchange)
            return raw_example(exchange, self._shots(rng))
        if kind < 0.86:
            exchange = drill_exchange(rng)
        elif kind < 0.92:
            exchange = make_capital_question(rng)
        elif kind < 0.97:
            exchange = make_capital_list(rng)
        else:
            exchange = make_small_talk(rng)
        form = rng.random()
        if form < 0.6:
            return chat_example(rng, exchange)
        return completion_example(exchange) if form < 0.9 else raw_example(exchange)
