"""Linear equations with an integer solution: isolate, divide, then check by substitution."""

import random
from collections.abc import Iterable

from spoutnik.tasks import phrases
from spoutnik.tasks.answers import as_integer
from spoutnik.tasks.family import Family, check_request, structure_key
from spoutnik.tasks.problem import Problem, Trace, check_style
from spoutnik.tasks.steps import SLIP_SHARE, near_miss

TEXT = {
    "en": {
        "prompt": ("Solve {e}.", "Find x such that {e}.", "What is x if {e} ?"),
        "but": "{left}, but {right}",
        "ok": "{left}, {right}. Equal.",
    },
    "fr": {
        "prompt": ("Résous {e}.", "Trouve x tel que {e}.", "Que vaut x si {e} ?"),
        "but": "{left}, mais {right}",
        "ok": "{left}, {right}. Égal.",
    },
}


def signed(number: int) -> str:
    """` + 5` or ` - 5`, and nothing for zero: what follows another term."""
    return "" if number == 0 else f" {'+' if number > 0 else '-'} {abs(number)}"


def times(number: int) -> str:
    """A factor after `*`: negative numbers in parentheses."""
    return str(number) if number >= 0 else f"({number})"


class Equations(Family):
    """Level 1: ax + b = c. Level 2: ax + b = cx + d. Level 3: a(x + b) + c = dx + e."""

    name = "equations"
    levels = (1, 2, 3)
    structure = "what is left once all x are on one side: 3x = 15, whichever side"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        x = rng.choice([n for n in range(-6, 13) if n != 0])
        a, d = rng.sample(range(2, 10), 2) if level > 1 else (rng.randint(2, 9), 0)
        inner = rng.choice((-4, -3, -2, -1, 1, 2, 3, 4, 5)) if level == 3 else 0  # the b of a(x + b)
        b = a * inner + rng.choice((-1, 1)) * rng.randint(1, 20)
        # Identified by ax + b = dx + e: level 3 writes that in its thought, and it must be no held-out problem of level 2.
        data = {"a": a, "b": b, "d": d, "e": a * x + b - d * x, "x": x, "shown_inner": inner}
        prompt = rng.choice(TEXT[language]["prompt"]).format(e=equation(data))
        return Problem(self, level, language, prompt, str(x), data)

    def structures(self, problem: Problem) -> Iterable[str]:
        factor, x = problem.data["a"] - problem.data["d"], problem.data["x"]
        return (structure_key(self.name, [abs(factor), abs(factor) * x]),)

    def verify(self, problem: Problem, answer: str) -> bool:
        return as_integer(answer) == problem.data["x"]

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        x = problem.data["x"]
        if style == "quick":
            return Trace(f"x = {x}.", str(x))
        return Trace(_careful(problem.data, rng, problem.language), str(x))


def right_side(data: dict) -> str:
    """`2x + 18`, `2x` or, without x, the number alone."""
    return f"{data['d']}x{signed(data['e'])}" if data["d"] else str(data["e"])


def equation(data: dict) -> str:
    """The equation as it is asked, a(x + inner) + c = dx + e, with absent parts left out."""
    a, inner = data["a"], data["shown_inner"]
    left = f"{a}(x{signed(inner)})" if inner else f"{a}x"
    return f"{left}{signed(data['b'] - a * inner)} = {right_side(data)}"


def _side(factor: int, x: int, constant: int) -> str:
    """`3 * 5 + 4 = 15 + 4 = 19`: one side of the equation at a value of x."""
    product = factor * x
    middle = f" = {product}{signed(constant)}" if constant else ""
    return f"{factor} * {times(x)}{signed(constant)}{middle} = {product + constant}"


def _careful(data: dict, rng: random.Random, language: str) -> str:
    text = TEXT[language]
    a, d, e, x, b = data["a"], data["d"], data["e"], data["x"], data["b"]
    sentences = []
    if data["shown_inner"]:  # a(x + inner) + c becomes ax + (a * inner + c)
        product = a * data["shown_inner"]
        sentences.append(f"{a} * {times(data['shown_inner'])} = {product}. {product}{signed(b - product)} = {b}.")
        sentences.append(f"{a}x{signed(b)} = {right_side(data)}.")
    if d:
        sentences.append(f"{a}x - {d}x = {a - d}x.")
    if b:
        sentences.append(f"{e}{signed(-b)} = {e - b}.")
    factor, rest = a - d, e - b
    sentences.append(f"{factor}x = {rest}.")
    division = f"x = {rest} / {times(factor)}"
    if rng.random() < SLIP_SHARE:  # a wrong quotient is not noticed at once: the substitution reveals it
        wrong = near_miss(rng, x)
        sentences.append(f"{division} = {wrong}.")
        product = f"{factor} * {times(wrong)} = {factor * wrong}"
        failed = text["but"].format(left=product, right=f"{factor}x = {rest}")
        sentences.append(phrases.check(rng, language, failed))
        sentences.append(phrases.repair(rng, language, f"{division} = {x}"))
    else:
        sentences.append(f"{division} = {x}.")
    verdict = text["ok"].format(left=_side(a, x, b), right=_side(d, x, e) if d else right_side(data))
    sentences.append(phrases.check(rng, language, verdict.removesuffix(".")))
    return phrases.opening(rng, language) + " ".join(sentences)
