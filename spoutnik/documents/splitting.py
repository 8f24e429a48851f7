"""Which rows are held out: whole passages, so that nothing is asked of a fact that was learned."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from spoutnik.tasks.hygiene import words_of
from spoutnik.tasks.own.rows import Row

_ALIKE = 0.5  # share of a question's words that another one has too, from which equal answers mean the same fact


def held_out_passages(keys: Collection[str], share: float) -> set[str]:
    """The passages of the held-out share, by their words' hash: one stays where it is when documents come and go. Of two or
    more there is at least one on each side, that of the lowest (or highest) hash where the share takes none (or all)."""
    if not share or len(keys) < 2:
        return set()
    ordered = sorted(keys)
    held_out = {key for key in keys if int(key[:16], 16) < share * 2 ** 64}
    return (held_out or {ordered[0]}) - ({ordered[-1]} if len(held_out) == len(keys) else set())


def drop_known_facts(rows: Sequence[Row], held_out: Sequence[bool]) -> set[int]:
    """The numbers of rows that would teach what a held-out one asks: the same answer, and at least _ALIKE of the words of one
    question in the other. A word counts more the fewer questions have it: "How much does pump A weigh?" and the same of
    pump B are two facts. Documents state a fact in several passages."""
    questions = [frozenset(words_of(row.prompt)) for row in rows]
    counts = Counter(word for question in questions for word in question)
    weights = {word: math.log((1 + len(rows)) / count) for word, count in counts.items()}
    by_answer: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_answer.setdefault(" ".join(words_of(row.gold)), []).append(number)
    return {number for numbers in by_answer.values() for number in numbers if not held_out[number]
            for other in numbers if held_out[other] and _share(questions[number], questions[other], weights) >= _ALIKE}


def _share(a: frozenset[str], b: frozenset[str], weights: Mapping[str, float]) -> float:
    shared, smaller = sum(weights[word] for word in a & b), min(sum(weights[word] for word in each) for each in (a, b))
    return shared / smaller if smaller else 1.0
