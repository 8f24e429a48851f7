"""Writing numbers in other bases: repeated division one way, a weighted sum with a running total the other way."""

import random
from collections.abc import Iterable

from spoutnik.tasks import phrases
from spoutnik.tasks.answers import clean
from spoutnik.tasks.family import Family, check_request, structure_key
from spoutnik.tasks.problem import Problem, Trace, check_style
from spoutnik.tasks.steps import product_steps, repair_or_plain, slip_position, sum_steps, write_step

TEXT = {
    "en": {
        "to_binary": ("Write {n} in binary.", "What is {n} in binary ?"),
        "from_binary": ("What number is {n} in binary ? Answer in decimal.", "Convert the binary number {n} to decimal."),
        "to_base": ("Write {n} in base {b}.", "Convert {n} to base {b}."),
        "from_base": ("{n} is written in base {b}. What is it in decimal ?", "Convert {n} from base {b} to decimal."),
        "quick": "{n} in base {b} is {m}.",
        "divide": "{n} / {b} = {q} remainder {r}",
        "digit": "{n} is {q} remainder {r}",
        "backwards": "Backwards: {m}.",
        "total": "Total {t}.",
    },
    "fr": {
        "to_binary": ("Écris {n} en binaire.", "Comment s'écrit {n} en binaire ?"),
        "from_binary": ("Quel nombre s'écrit {n} en binaire ? Réponds en décimal.", "Convertis le binaire {n} en décimal."),
        "to_base": ("Écris {n} en base {b}.", "Convertis {n} en base {b}."),
        "from_base": ("{n} est écrit en base {b}. Combien vaut-il en décimal ?", "Convertis {n} de la base {b} en décimal."),
        "quick": "{n} en base {b} donne {m}.",
        "divide": "{n} / {b} = {q} reste {r}",
        "digit": "{n} donne {q} reste {r}",
        "backwards": "À l'envers : {m}.",
        "total": "Total {t}.",
    },
}


def to_base(number: int, base: int) -> str:
    """The digits of a non-negative number in a base from 2 to 10."""
    digits = ""
    while number or not digits:
        number, digit = divmod(number, base)
        digits = str(digit) + digits
    return digits


class Bases(Family):
    """Level 1: to binary, at most 63. Level 2: from binary, at most 255. Level 3: bases 3 to 9, both ways."""

    name = "bases"
    levels = (1, 2, 3)
    structure = "the number and the base, either way"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        if level == 3:
            base, value = rng.randint(3, 9), rng.randint(10, 500)
            source, target = rng.choice(((10, base), (base, 10)))
            return self.pose(value, source, target, level, language, rng)
        value, source, target = (rng.randint(2, 63), 10, 2) if level == 1 else (rng.randint(4, 255), 2, 10)
        return self.pose(value, source, target, level, language, rng)

    def pose(self, value: int, source: int, target: int, level: int, language: str, rng: random.Random) -> Problem:
        """The problem of writing in base `target` a number given in base `source`; one of the two is ten."""
        if 10 not in (source, target) or source == target:
            raise ValueError(f"The family bases converts from or to base 10, not from base {source} to base {target}.")
        wording = ("to_" if source == 10 else "from_") + ("binary" if 2 in (source, target) else "base")
        base = source + target - 10
        prompt = rng.choice(TEXT[language][wording]).format(n=to_base(value, source), b=base)
        data = {"value": value, "from": source, "to": target}
        return Problem(self, level, language, prompt, to_base(value, target), data)

    def structures(self, problem: Problem) -> Iterable[str]:
        data = problem.data
        return (structure_key(self.name, [data["value"], data["from"] + data["to"] - 10]),)

    def verify(self, problem: Problem, answer: str) -> bool:
        expected = to_base(problem.data["value"], problem.data["to"])
        left, equals, right = clean(answer).rpartition("=")
        return clean(right) == expected and (not equals or len(left) < 40)

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        value, source, target = problem.data["value"], problem.data["from"], problem.data["to"]
        answer, text = to_base(value, target), TEXT[problem.language]
        if style == "quick":
            shown = to_base(value, source)
            return Trace(text["quick"].format(n=shown, b=target, m=answer), answer)
        procedure = _divide if source == 10 else _weigh
        words = procedure(value, source + target - 10, rng, problem.language)
        return Trace(phrases.opening(rng, problem.language) + " ".join(words), answer)


def _divide(value: int, base: int, rng: random.Random, language: str) -> list[str]:
    """Repeated division. A quotient above 9 is found digit by digit, as in long division on paper."""
    text, sentences = TEXT[language], []
    slip_at = slip_position(rng, len(to_base(value, base)))
    remaining = value
    for index in range(len(to_base(value, base))):
        quotient, remainder = divmod(remaining, base)
        if remaining >= 10 * base:
            carried, parts = 0, []
            for digit in str(remaining):
                current = 10 * carried + int(digit)
                carried = current % base
                if parts or current >= base:
                    parts.append(text["digit"].format(n=current, q=current // base, r=carried))
            sentences.append(", ".join(parts) + ".")
        fact = text["divide"].format(n=remaining, b=base, q=quotient, r=remainder)
        wrong = text["divide"].format(n=remaining, b=base, q=quotient, r=(remainder + 1) % base)
        sentences.append(repair_or_plain(fact, wrong, rng, language, index == slip_at))
        remaining = quotient
    return [*sentences, text["backwards"].format(m=to_base(value, base))]


def _weigh(value: int, base: int, rng: random.Random, language: str) -> list[str]:
    """Weighted sum from the last digit to the first: weight, product, running total."""
    text, sentences = TEXT[language], []
    digits = to_base(value, base)
    slip_at = slip_position(rng, len(digits))
    total, weight = 0, 1
    for index, digit in enumerate(map(int, reversed(digits))):
        product = digit * weight
        steps = product_steps(digit, weight)
        sentences += [f"{left} = {result}." for left, result in steps[:-1]]
        sentences.append(write_step(steps[-1], rng, language, index == slip_at))
        if index and product:
            sentences += [f"{left} = {result}." for left, result in sum_steps(total, "+", product)]
        total, weight = total + product, weight * base
    return [*sentences, text["total"].format(t=total)]
