"""Chained sums and products: `7 + 5 * 3 - 4`. Products first, then the sum from left to right."""

import math
import random
import re
from collections.abc import Iterable

from spoutnik.tasks import phrases
from spoutnik.tasks.answers import as_integer
from spoutnik.tasks.family import Family, check_request, structure_key
from spoutnik.tasks.problem import Problem, Trace, check_style
from spoutnik.tasks.steps import product_steps, slip_position, sum_steps, write_step

TEXT = {
    "en": {
        "prompt": ("What is {e} ?", "Compute {e}.", "Calculate {e}. Give the number."),
        "rewrite": "So {e}.",
        "yes": "{back} = {total}, yes",
    },
    "fr": {
        "prompt": ("Combien font {e} ?", "Calcule {e}.", "Que vaut {e} ?"),
        "rewrite": "Donc {e}.",
        "yes": "{back} = {total}, oui",
    },
}


def terms_of(expression: str) -> list[tuple[str, list[int]]]:
    """`7 + 5 * 3 - 4` as signed products: [("+", [7]), ("+", [5, 3]), ("-", [4])]."""
    words = expression.split()
    terms = [("+", [int(words[0])])]
    for operator, number in zip(words[1::2], words[2::2], strict=True):
        if operator == "*":
            terms[-1][1].append(int(number))
        else:
            terms.append((operator, [int(number)]))
    return terms


def value_of(expression: str) -> int:
    """The value of a chain of integers joined by +, - and *."""
    return sum(math.prod(factors) if sign == "+" else -math.prod(factors) for sign, factors in terms_of(expression))


class Arithmetic(Family):
    """Level 1: three terms of at most 20. Level 2: one small product. Level 3: one or two larger products."""

    name = "arithmetic"
    levels = (1, 2, 3)
    structure = "the pattern of signs and products (level 1, whose sums have four: the terms in any order)"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        if level == 1:
            parts = [str(rng.randint(1, 20)) for _ in range(3)]
        elif level == 2:
            parts = [str(rng.randint(1, 20)) for _ in range(2)]
            # A product above 20: the rewritten sum in the thought is then never a (held-out) problem of level 1.
            a, b = rng.choice([(a, b) for a in range(3, 10) for b in range(3, 10) if a * b > 20])
            parts.insert(rng.randrange(3), f"{a} * {b}")
        else:
            products = rng.choice((1, 2))
            parts = [str(rng.randint(10, 60)) for _ in range(5 - 2 * products)]
            for _ in range(products):
                factors = [rng.randint(11, 49), rng.randint(2, 9)]
                rng.shuffle(factors)
                parts.insert(rng.randint(0, len(parts)), "{} * {}".format(*factors))
        expression = parts[0] + "".join(f" {rng.choice('+-')} {part}" for part in parts[1:])
        return self.pose(expression, level, language, rng)

    def pose(self, expression: str, level: int, language: str, rng: random.Random) -> Problem:
        """The problem of computing an expression of integers joined by +, - and *, with spaces between them."""
        prompt = rng.choice(TEXT[language]["prompt"]).format(e=expression)
        answer = str(value_of(expression))
        return Problem(self, level, language, prompt, answer, {"expression": expression})

    def structures(self, problem: Problem) -> Iterable[str]:
        expression = problem.data["expression"]
        if "*" in expression:
            return (structure_key(self.name, re.sub(r"\d+", "n", expression)),)
        return (structure_key(self.name, sorted(terms_of(expression))),)

    def verify(self, problem: Problem, answer: str) -> bool:
        return as_integer(answer) == value_of(problem.data["expression"])

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        expression = problem.data["expression"]
        answer = str(value_of(expression))
        return Trace(f"{expression} = {answer}." if style == "quick" else _careful(expression, rng, problem.language), answer)


def _careful(expression: str, rng: random.Random, language: str) -> str:
    text = TEXT[language]
    values, pieces = [], []  # a piece is a step still to be written, or the rewritten sum
    for sign, factors in terms_of(expression):
        value = factors[0]
        for factor in factors[1:]:
            pieces += product_steps(value, factor)
            value *= factor
        values.append((sign, value))
    if pieces and len(values) > 1:
        rewritten = str(values[0][1]) + "".join(f" {sign} {value}" for sign, value in values[1:])
        pieces.append(text["rewrite"].format(e=rewritten))
    total = values[0][1]
    for sign, value in values[1:]:
        pieces += sum_steps(total, sign, value)
        total = pieces[-1][1]

    steps = [piece for piece in pieces if not isinstance(piece, str)]
    slip_at = slip_position(rng, len(steps))
    sentences = []
    for piece in pieces:
        is_step = not isinstance(piece, str)
        slip = is_step and slip_at >= 0 and piece is steps[slip_at]
        sentences.append(write_step(piece, rng, language, slip) if is_step else piece)
    if len(values) > 1 and rng.random() < 0.3:  # undo the last operation: a check that does not repeat the step
        sign, last = values[-1]
        before = total - last if sign == "+" else total + last
        back = f"{total} {'-' if sign == '+' else '+'} {last}"
        sentences.append(phrases.check(rng, language, text["yes"].format(back=back, total=before)))
    return phrases.opening(rng, language) + " ".join(sentences)
