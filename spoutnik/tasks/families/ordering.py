"""Who is taller, older, faster: rewrite every statement as A > B, build the chain one person at a time, read it off."""

import random
from collections.abc import Iterable

from spoutnik.tasks import phrases
from spoutnik.tasks.answers import as_word
from spoutnik.tasks.family import Family, check_request, structure_key
from spoutnik.tasks.names import NAMES, agree
from spoutnik.tasks.problem import Problem, Trace, check_style
from spoutnik.tasks.steps import repair_or_plain, slip_position

# English: comparative of the greater, of the lesser, superlative of the greatest, of the least.
# French: comparative of the greater, of the lesser, each (masculine, feminine); the superlative adds the article.
RELATIONS = {
    "en": {
        "height": ("taller", "shorter", "tallest", "shortest"),
        "age": ("older", "younger", "oldest", "youngest"),
        "speed": ("faster", "slower", "fastest", "slowest"),
    },
    "fr": {
        "height": (("plus grand", "plus grande"), ("plus petit", "plus petite")),
        "age": (("plus âgé", "plus âgée"), ("plus jeune", "plus jeune")),
        "speed": (("plus rapide", "plus rapide"), ("plus lent", "plus lente")),
    },
}
TEXT = {
    "en": {
        "statement": "{a} is {r} than {b}.",
        "question": ("Who is the {s} ?", "Give the name of the {s}."),
        "rank": ("", "", "second ", "third "),
        "quick": "{name} is the {s}.",
    },
    "fr": {
        "statement": "{a} est {r} {que}{b}.",
        "question": ("Qui est {s} ?", "Donne le nom : qui est {s} ?"),
        "rank": ("", "", "deuxième ", "troisième "),
        "quick": "{name} est {s}.",
    },
}


class Ordering(Family):
    """Level 1: three persons. Level 2: four. Level 3: five."""

    name = "ordering"
    levels = (1, 2, 3)
    structure = "the order and direction of the statements with the question, whatever the names and whatever is compared"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        chain = rng.sample(NAMES, level + 2)
        relation = rng.choice(sorted(RELATIONS["en"]))
        facts = [[index, rng.random() < 0.4] for index in range(len(chain) - 1)]  # [chain position, stated inverted]
        rng.shuffle(facts)
        from_top = rng.random() < 0.6
        rank = rng.randint(1, (2, 2, 3)[level - 1])
        data = {"chain": chain, "relation": relation, "rank": rank, "from_top": from_top, "shown_facts": facts}
        statements = " ".join(_statement(data, index, inverted, language) for index, inverted in facts)
        question = rng.choice(TEXT[language]["question"]).format(s=_superlative(data, language))
        return Problem(self, level, language, f"{statements} {question}", _answer(data), data)

    def structures(self, problem: Problem) -> Iterable[str]:
        """Read from the other end of the chain, taller is shorter: of the two readings the first in alphabetical order."""
        data, last = problem.data, len(problem.data["chain"]) - 2
        facts = data["shown_facts"]
        mirrored = [[last - index, not inverted] for index, inverted in facts]
        readings = ([facts, data["rank"], data["from_top"]], [mirrored, data["rank"], not data["from_top"]])
        return (min(structure_key(self.name, reading) for reading in readings),)

    def verify(self, problem: Problem, answer: str) -> bool:
        return as_word(answer) == _answer(problem.data).lower()

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        data, language = problem.data, problem.language
        name = _answer(data)
        quick = TEXT[language]["quick"].format(name=name, s=_superlative(data, language, name))
        return Trace(quick if style == "quick" else _careful(data, rng, language) + " " + quick, name)


def _answer(data: dict) -> str:
    return data["chain"][data["rank"] - 1] if data["from_top"] else data["chain"][-data["rank"]]


def _superlative(data: dict, language: str, name: str = "") -> str:
    """`second tallest`; in French `le deuxième plus grand`, which agrees with the name when one is given."""
    side = 0 if data["from_top"] else 1
    rank = TEXT[language]["rank"][data["rank"]]
    if language == "en":
        return rank + RELATIONS["en"][data["relation"]][2 + side]
    masculine, feminine = RELATIONS["fr"][data["relation"]][side]
    return agree(name, f"le {rank}{masculine}", f"la {rank}{feminine}")


def _statement(data: dict, index: int, inverted: bool, language: str) -> str:
    """The comparison of two neighbours of the chain, stated from the lesser when inverted."""
    pair = data["chain"][index : index + 2]
    a, b = reversed(pair) if inverted else pair
    word = RELATIONS[language][data["relation"]][1 if inverted else 0]
    if language == "fr":
        word = agree(a, *word)
    que = "qu'" if b[0] in "AEIOH" else "que "
    return TEXT[language]["statement"].format(a=a, r=word, que=que, b=b)


def _careful(data: dict, rng: random.Random, language: str) -> str:
    chain, facts = data["chain"], data["shown_facts"]
    sentences = []
    slip_at = slip_position(rng, len(facts))
    for position, (index, inverted) in enumerate(facts):
        greater, lesser = chain[index : index + 2]
        reason = _statement(data, index, inverted, language).removesuffix(".")
        slip = position == slip_at
        fact, wrong = f"{greater} > {lesser}", f"{lesser} > {greater}"
        sentences.append(repair_or_plain(f"{reason}, {fact}" if slip else fact, wrong, rng, language, slip))
    sentences += [f"{' > '.join(chain[low:high])}." for low, high in _growing(facts)]
    if data["rank"] > 1 or not data["from_top"]:
        names = chain if data["from_top"] else chain[::-1]
        sentences.append(", ".join(f"{rank + 1} {name}" for rank, name in enumerate(names[: data["rank"]])) + ".")
    return phrases.opening(rng, language) + " ".join(sentences)


def _growing(facts: list[list]) -> list[tuple[int, int]]:
    """Bounds of the known part of the chain as facts join it, always the first stated fact that touches it."""
    pending = [index for index, _ in facts]
    first = pending.pop(0)
    low, high = first, first + 2
    bounds = []
    while pending:
        index = next(index for index in pending if index + 1 == low or index == high - 1)
        pending.remove(index)
        low, high = min(low, index), max(high, index + 2)
        bounds.append((low, high))
    return bounds
