"""Arithmetic word problems: eighteen templates, English and Chinese.

A template draws its numbers, works the solution out step by step and fills one of a few phrasings.
The pair (template, numbers) is the identity of a problem: the held-out set is excluded by it, whatever
the language, the names or the phrasing, so that a model cannot have seen the sum itself.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from phrasings import ITEMS, NAMES, PHRASINGS

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """One filled-in problem with its worked solution."""

    template: str
    numbers: Numbers
    language: str
    question: str
    steps: tuple[str, ...]  # the thought, line by line
    plain_steps: tuple[str, ...]  # the same solution as bare equations, one operation each
    reply: str  # the short answer sentence
    result: int

    @property
    def key(self) -> str:
        return f"{self.template}:{','.join(map(str, self.numbers))}"


def _spelled_sum(a: int, b: int) -> str:
    places = [p for p in (1000, 100, 10, 1) if a // p % 10 + b // p % 10]
    sums = [(a // p % 10 + b // p % 10) * p for p in places]
    return ("+".join(map(str, sums)) + "=" if len(sums) > 1 else "") + str(a + b)


class Worksheet:
    """Records operations while a solution is computed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.plain: list[str] = []

    def _record(self, left: int, sign: str, right: int, value: int) -> int:
        self.plain.append(f"{left}{sign}{right}={value}")
        return value

    def add(self, a: int, b: int) -> int:
        """Place by place, then carried: 47+38=70+15=85."""
        self.lines.append(f"{a}+{b}={_spelled_sum(a, b)}")
        return self._record(a, "+", b, a + b)

    def sub(self, a: int, b: int) -> int:
        """Too much is taken away, then given back: 85-38=45+2=47. Sums are learnt far sooner than borrowing."""
        over = 10 if b < 10 else 100 if a >= 100 else b - b % 10 + 10
        is_fact = a == over or a < 10 or (10 <= b and a < 100 and (a < over or b % 10 == 0))
        middle = "" if is_fact else f"{a - over}+{over - b}="
        self.lines.append(f"{a}-{b}={middle}{a - b if is_fact else _spelled_sum(a - over, over - b)}")
        return self._record(a, "-", b, a - b)

    def div(self, a: int, b: int) -> int:
        """Tens of the quotient first: 72/4=40/4+32/4=10+8=18."""
        quotient = a // b
        tens, ones = quotient - quotient % 10, quotient % 10
        middle = f"{tens * b}/{b}+{ones * b}/{b}={tens}+{ones}=" if tens and ones else ""
        self.lines.append(f"{a}/{b}={middle}{quotient}")
        return self._record(a, "/", b, quotient)

    def mul(self, a: int, b: int) -> int:
        """Long multiplication: a two-digit factor is split so that every line is a table fact or a sum."""
        if a < 10 <= b:
            self._spell_product(b, a, f"{a}*{b}")
        elif a >= 10 and b >= 10 and a % 10 and b % 10:
            ones, tens = b % 10, b - b % 10
            self._spell_product(a, ones, f"{a}*{ones}")
            self._spell_product(a, tens, f"{a}*{tens}")
            self.add(a * ones, a * tens)
            self.plain.pop()  # the plain solution shows the product as one operation
        elif a % 10 == 0 and b >= 10:
            self._spell_product(b, a, f"{a}*{b}")
        else:
            self._spell_product(a, b, f"{a}*{b}")
        return self._record(a, "*", b, a * b)

    def _spell_product(self, a: int, b: int, shown: str) -> None:
        """`b` is a digit or a round ten; splits `a` into tens and ones when both are there."""
        tens, ones = a - a % 10, a % 10
        if tens and ones:
            self.lines.append(f"{shown}={tens * b}+{ones * b}={a * b}")
        else:
            self.lines.append(f"{shown}={a * b}")


def _between(rng: random.Random, low: int, high: int) -> int:
    return rng.randint(low, high)


def _factor_pair(rng: random.Random) -> Numbers:
    """A count and a size; one in four has two digits on both sides."""
    if rng.random() < 0.25:
        return _between(rng, 11, 39), _between(rng, 11, 99)
    return _between(rng, 2, 9), _between(rng, 3, 99)


def _draw_buy_change(rng: random.Random) -> Numbers:
    count = _between(rng, 2, 9)
    price = _between(rng, 2, 99 // count)
    return count, price, _between(rng, count * price + 1, 100)


def _draw_rows_taken(rng: random.Random) -> Numbers:
    rows, seats = _between(rng, 3, 9), _between(rng, 4, 40)
    return rows, seats, _between(rng, 2, min(99, rows * seats - 1))


def _draw_pack_rest(rng: random.Random) -> Numbers:
    boxes = _between(rng, 2, 9)
    each = _between(rng, 2, min(20, 90 // boxes))
    used = _between(rng, 2, 99 - boxes * each)
    return boxes * each + used, used, boxes


def _draw_share(rng: random.Random) -> Numbers:
    people = _between(rng, 2, 9)
    return people * _between(rng, 2, 99 // people), people


def _draw_difference(rng: random.Random) -> Numbers:
    small = _between(rng, 2, 95)
    return _between(rng, small + 1, 99), small


def _draw_add_take(rng: random.Random) -> Numbers:
    a, b = _between(rng, 2, 99), _between(rng, 2, 99)
    return a, b, _between(rng, 1, min(99, a + b - 1))


def _draw_bus(rng: random.Random) -> Numbers:
    start = _between(rng, 10, 99)
    off = _between(rng, 1, start - 1)
    on = _between(rng, 1, 60)
    return start, off, on, _between(rng, 1, min(99, start - off + on - 1))


def _draw_eggs(rng: random.Random) -> Numbers:
    cartons, each = _between(rng, 2, 9), _between(rng, 3, 12)
    packed = cartons * each
    hens = _between(rng, 3, 9)
    eggs = _between(rng, packed // hens + 1, packed // hens + 9)
    return hens, eggs, hens * eggs - packed, cartons


def _draw_library(rng: random.Random) -> Numbers:
    shelves, books = _between(rng, 3, 9), _between(rng, 11, 60)
    lent = _between(rng, 5, min(99, shelves * books - 1))
    return shelves, books, lent, _between(rng, 1, lent)


def _draw_bill(rng: random.Random) -> Numbers:
    people = _between(rng, 2, 6)
    total = people * _between(rng, 8, 150 // people)
    first = _between(rng, 2, min(99, total - 4))
    second = _between(rng, 1, min(99, total - first - 1))
    if total - first - second > 99:
        return _draw_bill(rng)
    return first, second, total - first - second, people


def _solve_bill(w: Worksheet, n: Numbers) -> int:
    return w.div(w.add(w.add(n[0], n[1]), n[2]), n[3])


def _solve_two_kinds(w: Worksheet, n: Numbers) -> int:
    first = w.mul(n[0], n[1])
    return w.add(first, w.mul(n[2], n[3]))


def _uniform(*ranges: tuple[int, int]) -> Callable[[random.Random], Numbers]:
    return lambda rng: tuple(_between(rng, low, high) for low, high in ranges)


Draw = Callable[[random.Random], Numbers]
Solve = Callable[[Worksheet, Numbers], int]

TEMPLATES: dict[str, tuple[Draw, Solve]] = {
    # one step
    "get_more": (_uniform((2, 99), (2, 99)), lambda w, n: w.add(n[0], n[1])),
    "give_away": (_draw_difference, lambda w, n: w.sub(n[0], n[1])),
    "boxes": (_factor_pair, lambda w, n: w.mul(n[0], n[1])),
    "share": (_draw_share, lambda w, n: w.div(n[0], n[1])),
    "compare": (_draw_difference, lambda w, n: w.sub(n[0], n[1])),
    # two steps
    "get_then_give": (_draw_add_take, lambda w, n: w.sub(w.add(n[0], n[1]), n[2])),
    "change": (_draw_buy_change, lambda w, n: w.sub(n[2], w.mul(n[0], n[1]))),
    "more_than_together": (_uniform((2, 99), (2, 99)), lambda w, n: w.add(n[0], w.add(n[0], n[1]))),
    "seats_taken": (_draw_rows_taken, lambda w, n: w.sub(w.mul(n[0], n[1]), n[2])),
    "wage_and_savings": (_uniform((2, 9), (8, 60), (5, 99)), lambda w, n: w.add(w.mul(n[0], n[1]), n[2])),
    "pack_rest": (_draw_pack_rest, lambda w, n: w.div(w.sub(n[0], n[1]), n[2])),
    "times_together": (_uniform((3, 60), (2, 9)), lambda w, n: w.add(n[0], w.mul(n[1], n[0]))),
    "read_book": (_draw_buy_change, lambda w, n: w.sub(n[2], w.mul(n[0], n[1]))),
    # three steps
    "two_kinds": (_uniform((2, 9), (3, 40), (2, 9), (3, 40)), _solve_two_kinds),
    "bus_stops": (_draw_bus, lambda w, n: w.sub(w.add(w.sub(n[0], n[1]), n[2]), n[3])),
    "egg_cartons": (_draw_eggs, lambda w, n: w.div(w.sub(w.mul(n[0], n[1]), n[2]), n[3])),
    "library": (_draw_library, lambda w, n: w.add(w.sub(w.mul(n[0], n[1]), n[2]), n[3])),
    "split_bill": (_draw_bill, _solve_bill),
}

STEP_COUNT = {name: 1 if i < 5 else 2 if i < 13 else 3 for i, name in enumerate(TEMPLATES)}


def make_problem(rng: random.Random, template: str | None = None, language: str | None = None) -> Problem:
    """Draws a problem; the caller checks its key against the held-out set."""
    template = template or rng.choice(list(TEMPLATES))
    language = language or rng.choice(("en", "zh"))
    draw, solve = TEMPLATES[template]
    numbers = draw(rng)
    sheet = Worksheet()
    result = solve(sheet, numbers)
    question, reply = rng.choice(PHRASINGS[template][language])
    first, second = rng.sample(NAMES[language], 2)
    slots = {chr(ord("a") + i): n for i, n in enumerate(numbers)}
    slots |= {"X": first, "Y": second, "item": rng.choice(ITEMS[language]), "r": result}
    return Problem(template, numbers, language, question.format(**slots), tuple(sheet.lines), tuple(sheet.plain),
                   reply.format(**slots), result)


def gsm8k_answer(problem: Problem) -> str:
    """The solution in GSM8K's own form: `a+b=<<a+b=c>>c` lines and a final `#### c`."""
    lines = []
    for equation in problem.plain_steps:
        left, value = equation.split("=")
        lines.append(f"{left} = <<{equation}>>{value}")
    return "\n".join(lines) + f"\n{problem.reply}\n#### {problem.result}"
